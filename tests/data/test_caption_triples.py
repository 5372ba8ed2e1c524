"""Readers of caption triples: tables, folders of `mmzoo fuse`, and the emoji's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED, CaptionRow, FusedRow
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.captions.unit_files import write_unit
from multimodal_zoo.data.caption_table import CaptionTable
from multimodal_zoo.data.caption_triples import CaptionTriples, EmojiTriples
from multimodal_zoo.data.emoji_triples import triples
from multimodal_zoo.data.skips import NoUsableSamplesError, UnusableError


def lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"key": "a", "raw": "r", "synthetic": ["s", "t"], "fused": "f"}, {"key": "b", "raw": "q", "fused": "g"}]
    reader = CaptionTriples(CaptionTable(lines(tmp_path / "rows.jsonl", rows)))
    assert len(reader) == 2
    first, last = reader[0], reader[-1]
    assert first.key == "a"
    assert first.segments[0].text == "f"
    assert (first.meta["raw"], first.meta["synthetic"]) == ("r", ["s", "t"])
    assert last.key == "b"
    assert last.meta["fused"] == "g"
    with pytest.raises(IndexError, match="2 rows, no number 2"):
        _ = reader[2]


def test_the_rows_that_mmzoo_fuse_accepted(tmp_path: Path) -> None:
    rows = [
        FusedRow(CaptionRow("a", "r", ("s",)), "f", FUSED),
        FusedRow(CaptionRow("b", "r", ("s",)), "Sorry.", REJECTED, "refusal"),
        FusedRow(CaptionRow("c", "r", ("s",)), "", FAILED, "no answer"),
        FusedRow(CaptionRow("d", "q", ("s", "t")), "g", FUSED),
    ]
    write_unit(tmp_path, Unit("part", "rows.jsonl", 0, 4), rows, ("parquet",))
    reader = CaptionTriples(CaptionTable(str(tmp_path)))
    found = list(reader)
    assert [one.key for one in found] == ["a", "d"]
    assert found[1].meta["synthetic"] == ["s", "t"]
    assert reader.skips.counts == {"no fused caption": 2}
    with pytest.raises(UnusableError, match="no fused caption: b"):
        _ = reader[1]


def test_columns_of_the_published_files(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"image_url": "u", "laion_2b": "r", "laion_coco": "s", "capsfusion": "f"}])
    columns = {"raw": "laion_2b", "synthetic": "laion_coco", "fused": "capsfusion"}
    (one,) = CaptionTriples(CaptionTable(path, "image_url", columns))
    assert one.meta == {"key": "u", "raw": "r", "synthetic": "s", "fused": "f"}


def test_tables_without_anything_to_learn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="captions of raw; fused ones are needed"):
        CaptionTriples(CaptionTable(lines(tmp_path / "raw.jsonl", [{"key": "a", "raw": "r"}])))
    empty = CaptionTriples(CaptionTable(lines(tmp_path / "empty.jsonl", [{"key": "a", "raw": "r", "fused": ""}])))
    with pytest.raises(NoUsableSamplesError, match="no fused caption 1"):
        list(empty)


def test_emoji() -> None:
    reader = EmojiTriples(["twemoji"], ["val"], seeds=[0, 4])
    expected = [*triples("val", "twemoji", 0), *triples("val", "twemoji", 4)]
    assert len(reader) == len(expected)
    assert [one.meta["fused"] for one in reader] == [one.fused for one in expected]
    assert reader[-1].key == expected[-1].key
    assert reader[-1].meta["raw"] == expected[-1].raw
    with pytest.raises(IndexError):
        _ = reader[len(reader)]


def test_emoji_behind_a_captioner(tmp_path: Path) -> None:
    keys = [one.key for one in triples("val", "twemoji", 0)]
    rows = [{"key": key, "synthetic": "A graphic of a thing in red."} for key in keys]
    table = CaptionTable(lines(tmp_path / "all.jsonl", rows))
    reader = EmojiTriples(["twemoji"], ["val"], synthetic=table)
    assert {one.meta["synthetic"] for one in reader} == {"A graphic of a thing in red."}
    assert all("red" in one.meta["fused"].lower() for one in reader)
    table = CaptionTable(lines(tmp_path / "few.jsonl", rows[1:]))
    with pytest.raises(ValueError, match=f"no caption for 1 of {len(keys)} keys"):
        EmojiTriples(["twemoji"], ["val"], synthetic=table)
    with pytest.raises(ValueError, match="seeds"):
        EmojiTriples(["twemoji"], ["val"], seeds=[])
