"""The report of a fusion run: numbers that add up, samples with pictures, nothing unescaped."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from multimodal_zoo.captions.length_chart import length_chart
from multimodal_zoo.captions.report_page import add_up, write_report
from multimodal_zoo.captions.report_samples import draw_samples, quotas, spread, tar_pictures
from multimodal_zoo.captions.report_tables import FIGURES, REFERENCE, figure_table, length_table, speed_tables
from multimodal_zoo.captions.rows import CaptionRow, FusedRow
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.captions.statistics import Statistics
from multimodal_zoo.captions.unit_files import UnitRecord, records, write_broken_unit, write_unit

BAD = "<script>alert('raw')</script>"
SPEED = {"rows": 9, "wall_seconds": 2.5, "stages": {"read": {"seconds": 0.5, "share": 0.2}, "ask": {"seconds": 2.0}}}


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (400, 200), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(number: int, status: str = "fused", reason: str = "", image: bytes | None = None, raw: str = "") -> FusedRow:
    source = CaptionRow(f"key{number}", raw or f"Lisbon {number}", ("A yellow tram.", "A street."), image)
    flags = ("names",) if status == "fused" and number % 2 else (reason,) if status == "rejected" else ()
    return FusedRow(source, f"Tram {number} in Lisbon.", status, reason, flags, attempts=2)


def unit(folder: Path, name: str, rows: list[FusedRow], **options: object) -> UnitRecord:
    place = Unit(name, "web.parquet", 0, len(rows))
    return write_unit(folder, place, rows, statistics=Statistics("keep all facts"), **options)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine rows in two units, one of them with an attack in each text, and one broken unit."""
    attack = CaptionRow(f"{BAD}k", BAD, (f"{BAD}s", '"><img src=x onerror=alert(1)>'), b"no picture", {})
    unit(
        tmp_path,
        "a",
        [
            row(0, image=picture("red")),
            row(1, image=picture("#00ff0080")),
            row(2, "rejected", "leak"),
            FusedRow(attack, f"{BAD}f </td> New\x00word \u202e", flags=("copy",)),
            row(4, "failed", f"{BAD}: what the engine said"),
        ],
    )
    unit(tmp_path, "b", [row(5), row(6, "rejected", "cut"), row(7, "rejected", "leak"), row(8, "rejected", "leak")])
    write_broken_unit(tmp_path, Unit("c", "x.parquet", 0, 7), f"x.parquet is {BAD}| cut off")
    (tmp_path / "manifest.json").write_text(json.dumps({"prompt": BAD}), encoding="utf-8")
    return tmp_path


class Tags(HTMLParser):
    """Counts tags, collects attributes, and checks that all are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.names: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.names.update(name for name, _ in attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.names.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_numbers_add_up_to_the_rows(folder: Path) -> None:
    paths = write_report(folder, records(folder), rows_shown=4, speed=SPEED)
    assert paths == {kind: folder / f"report.{kind}" for kind in ("html", "json", "md")}
    found = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert (found["rows"], found["units"], found["rows_with_statistics"]) == (9, 2, 9)
    assert found["statuses"] == {"fused": 4, "rejected": 4, "failed": 1}
    assert found["reasons"] == {"leak": 3, "cut": 1, BAD: 1}
    assert sum(found["reasons"].values()) == found["statuses"]["rejected"] + found["statuses"]["failed"]
    assert found["flags"] == {"names": 2, "copy": 1, "leak": 3, "cut": 1}
    assert found["broken_units"].keys() == {"c"}
    assert found["speed"] == SPEED
    assert found["figures"]["numbers_kept"] == 1.0  # 0, 1 and 5; the fourth caption has no number
    assert found["figures"]["names_kept"] == 1.0
    assert found["words"]["fused"]["median"] == 4
    assert found["trigrams"]["rows"] == 4
    assert found["reference"]["figures"] == REFERENCE
    assert found["counts"]["attempts"] == 8 * 2 + 1


def test_nothing_reaches_the_page_unescaped(folder: Path) -> None:
    paths = write_report(folder, records(folder), rows_shown=9, speed={})
    page = paths["html"].read_text(encoding="utf-8")
    found = Tags()
    found.feed(page)
    assert found.open == []
    assert "script" not in found.seen
    assert found.seen.count("img") == 2  # the third picture is none
    assert not {name for name in found.names if name.startswith("on")}
    assert not re.search(r"https?://|url\(|@import|<link", page)
    assert "\x00" not in page
    text = "".join(found.text)
    for shown in (BAD, f"{BAD}s", '"><img src=x onerror=alert(1)>', "cannot be shown", "rejected: leak", "flags: copy"):
        assert shown in text
    assert "</td> New\ufffdword" in text
    markdown = paths["md"].read_text(encoding="utf-8")
    assert "<" not in markdown
    assert all(line.count("|") - line.count("\\|") == 3 for line in markdown.splitlines() if "x.parquet" in line)


def test_words_are_marked_by_where_they_come_from(folder: Path) -> None:
    page = write_report(folder, records(folder), rows_shown=9)["html"].read_text(encoding="utf-8")
    assert 'Tram <span class="raw">5</span> in <span class="raw">Lisbon</span>.' in page
    assert '<span class="new">word</span>' in page


def test_samples_are_drawn_from_all_units_and_reasons(folder: Path) -> None:
    found = draw_samples(folder, add_up(records(folder)).records, 3)
    assert [sample.key for sample in found.accepted] == ["key0", f"{BAD}k", "key5"]
    assert [sample.reason.partition(":")[0] for sample in found.refused] == [BAD, "cut", "leak"]
    assert found.accepted[0].picture == picture("red")
    assert found.refused[0].picture is None
    assert draw_samples(folder, add_up(records(folder)).records, 3) == found
    none = draw_samples(folder, add_up(records(folder)).records, 0)
    assert (none.accepted, none.refused, none.trigrams.rows) == ([], [], 4)


def test_pictures_of_any_rows(tmp_path: Path) -> None:
    images = [bytes([255, 216, number]) * (200 * number + 1) for number in range(8)]
    record = unit(tmp_path, "u", [row(n, "fused" if n % 3 else "rejected", image=images[n]) for n in range(8)])
    assert tar_pictures(tmp_path, record, [7, 1, 3]) == {1: images[1], 7: images[7]}  # 3 was rejected
    plain = unit(tmp_path, "v", [row(1)], formats=("parquet",))
    assert tar_pictures(tmp_path, plain, [0]) == {}
    tar = next(iter((tmp_path / "webdataset").glob("u.tar")))
    tar.write_bytes(tar.read_bytes()[:1500])  # cut off
    assert tar_pictures(tmp_path, record, [7]) == {}


def test_an_empty_folder_and_units_without_statistics(tmp_path: Path) -> None:
    found = json.loads(write_report(tmp_path, [], rows_shown=5)["json"].read_text(encoding="utf-8"))
    assert (found["rows"], found["reasons"], found["figures"]["leaks"]) == (0, {}, None)
    write_unit(tmp_path, Unit("u", "f", 0, 1), [row(1)])
    found = json.loads(write_report(tmp_path, records(tmp_path))["json"].read_text(encoding="utf-8"))
    assert (found["rows"], found["rows_with_statistics"], found["statuses"]["fused"]) == (1, 0, 1)


def test_every_figure_has_its_reference_and_its_words() -> None:
    assert FIGURES.keys() == REFERENCE.keys() == Statistics().figures().keys()
    counted = Statistics("keep all facts")
    counted.add(row(3))
    table = figure_table(counted)
    assert ["numbers of the raw caption kept", "100.0", "86.0", "higher"] in [list(one) for one in table.rows]
    assert length_table(counted).rows[2] == ("fused", "4.0", "4", "4", "4", "4", "4", "23.3")
    longest = FusedRow(CaptionRow("k", "a " * 600), "b")
    counted.add(longest)
    assert length_table(counted).rows[0][-2] == "512+"


def test_speed_of_either_form() -> None:
    whole, stages = speed_tables(SPEED)
    assert whole.rows == [("rows", "9"), ("wall seconds", "2.5")]
    assert (stages.columns, stages.rows) == (
        ("stage", "seconds", "share"),
        [("read", "0.5", "0.2"), ("ask", "2", "-")],
    )
    assert speed_tables({"stages": {"read": 1.5}})[0].rows == [("read", "1.5")]
    assert speed_tables({}) == []


def test_the_picture_of_lengths() -> None:
    drawn = length_chart({"raw": {1: 1, 3: 3}, "<b>": {}, "fu<sed": {0: 990, 4: 9, 400: 1}})
    assert drawn.count("<polyline") == 2
    assert "fu&lt;sed" in drawn
    assert "<b>" not in drawn
    floor, top = 260 - 40, 24
    points = re.findall(r'points="([^"]+)"', drawn)
    heights = [[float(point.split(",")[1]) for point in line.split()] for line in points]
    assert [len(line) for line in heights] == [6, 6]  # up to 5 words; the one of 400 is not drawn
    assert heights[1][0] == pytest.approx(top, abs=0.1)  # 99 % is the highest
    assert heights[0][3] == pytest.approx(floor - (floor - top) * 75 / 99, abs=0.1)
    assert length_chart({"raw": {}}) == ""


def test_spreading_and_sharing() -> None:
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread([1, 2], 5) == [1, 2]
    assert (quotas(7, 3), quotas(1, 3), quotas(3, 0)) == ([3, 2, 2], [1, 0, 0], [])


def test_a_report_needs_no_torch(folder: Path) -> None:
    script = (
        "import sys, pathlib; from multimodal_zoo.captions.report_page import write_report; "
        "from multimodal_zoo.captions.unit_files import records; folder = pathlib.Path(sys.argv[1]); "
        "write_report(folder, records(folder)); assert not {'torch', 'matplotlib', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=120)
