"""Synthetic captions written during a run: which rows get one, which have a problem then."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from multimodal_zoo.captions.captioning import captioned
from multimodal_zoo.captions.process_runner import ProcessRunner
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.unit_reading import read_units
from multimodal_zoo.registry import CAPTIONS


class ColourCaptioner:
    """Names a picture by its first pixel."""

    def __init__(self, when: str = "missing", batch_size: int = 2) -> None:
        self.when, self.batch_size = when, batch_size
        self.batches: list[int] = []

    def describe(self) -> dict[str, Any]:
        return {"captioner": "colours", "when": self.when}

    def caption(self, images: Sequence[Any]) -> list[str]:
        self.batches.append(len(images))
        return [f"  red {image.getpixel((0, 0))[0]}\n" if image.getpixel((0, 0))[0] else "" for image in images]

    def close(self) -> None:
        pass


def picture(red: int) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (2, 2), (red, 0, 0)).save(content, "png")
    return content.getvalue()


ROWS = [
    CaptionRow("a", "raw", (), picture(10)),
    CaptionRow("b", "raw", ("old",), picture(20)),
    CaptionRow("c", "raw", (), None),
    CaptionRow("d", "raw", (), b"no picture"),
    CaptionRow("e", "raw", (), picture(0)),
    CaptionRow("f", "", (), picture(30), problem="no raw caption"),
    CaptionRow("g", "raw", (), picture(40)),
]


def test_pictures_with_holes_lie_on_white() -> None:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(content, "png")
    assert captioned([CaptionRow("a", "raw", (), content.getvalue())], ColourCaptioner())[0].synthetic == ("red 255",)


def test_rows_without_a_caption_get_one() -> None:
    captioner = ColourCaptioner()
    found = captioned(ROWS, captioner)
    assert [row.key for row in found] == list("abcdefg")
    assert [row.synthetic for row in found] == [("red 10",), ("old",), (), (), (), (), ("red 40",)]
    assert [row.problem is None for row in found] == [True, True, False, False, False, False, True]
    assert found[2].problem == "no synthetic caption and no picture"
    assert found[4].problem == "the captioner wrote nothing"
    assert found[5].problem == "no raw caption"
    assert captioner.batches == [2, 1]  # a, e and g


def test_captions_are_replaced_where_that_is_wanted() -> None:
    found = captioned(ROWS[:2], ColourCaptioner(when="always"))
    assert [row.synthetic for row in found] == [("red 10",), ("red 20",)]
    kept = captioned([CaptionRow("x", "raw", ("old",), None)], ColourCaptioner(when="always"))
    assert (kept[0].synthetic, kept[0].problem) == (("old",), None)
    assert captioned([], ColourCaptioner()) == []


@pytest.mark.parametrize("engine", [None, {"type": "echo_engine"}])
def test_captions_are_written_in_a_run(tmp_path, job_for, run_job, monkeypatch, engine) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setitem(CAPTIONS.module_dict, "colour_captioner", ColourCaptioner)
    pictures = [picture(number) for number in range(1, 31)]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"raw": [f"kite {n}" for n in range(1, 31)], "image": pictures}), path)
    source = {
        "type": "caption_source",
        "path": str(path),
        "rules": {"type": "row_rules", "required": ["raw"]},
    }
    job = job_for(tmp_path / "out", source=source, captioner={"type": "colour_captioner"}, engine=engine)
    assert len(run_job(job, ProcessRunner())) == 2
    rows = list(read_units(job.folder))
    assert [row["synthetic"] for row in rows] == [[f"red {n}"] for n in range(1, 31)]
    assert rows[4]["fused"] == ("red 5" if engine is None else "kite 5")
    next((tmp_path / "out" / "records").iterdir()).unlink()
    always = {"type": "colour_captioner", "when": "always"}
    other = job_for(tmp_path / "out", source=source, captioner=always, engine=engine)
    with pytest.raises(ValueError, match=r'captioner\.when: was "missing", is "always"'):
        run_job(other, ProcessRunner())
