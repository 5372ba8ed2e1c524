"""Captions in parquet: published layouts, any column types, both ways of reading a batch, damaged files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from multimodal_zoo.captions.columns import Columns
from multimodal_zoo.captions.opening import open_source
from multimodal_zoo.captions.parquet_source import BATCH, ParquetCursor, ParquetSource
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.rows import CaptionRow, key_of
from multimodal_zoo.captions.sources import BrokenFileError, Source
from multimodal_zoo.registry import build

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
CONF = Path(__file__).parents[2] / "conf" / "caption_source"


def published(rows: int, first: int = 0) -> dict[str, list[Any]]:
    """CapsFusion-120M's columns."""
    numbers = range(first, first + rows)
    return {
        "image_url": [f"https://example.org/{n}.jpg" for n in numbers],
        "laion_2b": [f"alt text {n}" for n in numbers],
        "laion_coco": [f"a photo of {n}" for n in numbers],
        "capsfusion": [f"a photo with alt text {n}" for n in numbers],
    }


def write(path: Path, columns: Any, group: int = 100) -> str:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, row_group_size=group)
    return str(path)


def all_rows(source: Source, rows_per_unit: int = 7) -> list[CaptionRow]:
    return [row for unit in source.units(rows_per_unit) for row in source.read(unit)]


def plain(rows: list[CaptionRow]) -> list[tuple[Any, ...]]:
    return [(row.key, row.raw, row.synthetic, row.image, dict(row.extra), row.problem) for row in rows]


@pytest.mark.parametrize("name", ["auto", "capsfusion_120m"])
def test_the_published_layout_is_read_as_it_is(tmp_path, name: str) -> None:
    path = write(tmp_path / "capsfusion_1.parquet", published(23))
    source = build({**yaml.safe_load((CONF / f"{name}.yaml").read_text()), "path": path})
    rows = all_rows(source)
    assert [row.raw for row in rows] == published(23)["laion_2b"]
    assert [row.synthetic for row in rows] == [(text,) for text in published(23)["laion_coco"]]
    assert rows[3].key == hashlib.sha256(b"https://example.org/3.jpg").hexdigest()
    assert rows[3].extra == {"image_url": "https://example.org/3.jpg", "capsfusion": "a photo with alt text 3"}
    assert source.kinds() == {"image_url": "text", "capsfusion": "text"}
    assert source.describe()["rows"] == 23


def test_units_are_fixed_and_name_file_and_rows(tmp_path) -> None:
    for number, rows in enumerate((10, 3, 0)):
        write(tmp_path / f"part.{number}.parquet", published(rows), group=4)
    source = open_source(tmp_path)
    units = source.units(4)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 4), (4, 8), (8, 10), (0, 3)]
    assert units == open_source(str(tmp_path / "*.parquet")).units(4) == pickle.loads(pickle.dumps(units))
    assert len({unit.name for unit in units}) == 4
    assert all("." not in unit.name for unit in units)
    assert write(tmp_path / "part.3.parquet", published(1))
    assert open_source(tmp_path).units(4)[:4] == units
    with pytest.raises(ValueError, match="rows_per_unit is 0"):
        source.units(0)


def test_units_can_be_read_in_any_order(tmp_path) -> None:
    source = open_source(write(tmp_path / "a.parquet", published(50), group=13))
    units = source.units(6)
    expected = {unit.name: published(unit.rows, unit.start)["laion_2b"] for unit in units}
    for unit in [*units, *units[::-1], *units[::2], *units[1::3], units[0], units[0]]:
        assert [row.raw for row in source.read(unit)] == expected[unit.name]
    part = source.read(units[2])
    next(part)  # left in the middle
    part.close()
    assert [row.raw for row in source.read(units[3])] == expected[units[3].name]


def test_a_row_group_is_decoded_once_for_all_its_units(tmp_path, monkeypatch) -> None:
    source = open_source(write(tmp_path / "a.parquet", published(3 * BATCH), group=2 * BATCH))
    started = []
    start = ParquetCursor._start
    monkeypatch.setattr(ParquetCursor, "_start", lambda self, group: (started.append(group), start(self, group))[1])
    assert len(all_rows(source, 1000)) == 3 * BATCH
    assert started == [0]
    list(source.read(source.units(BATCH)[2]))  # the second row group begins here: the first one is not decoded
    assert started == [0, 1]


def odd_rows() -> list[dict[str, Any]]:
    """Rows of which most have something wrong with them."""
    odd: list[dict[str, Any]] = [
        {"raw": "fine", "synthetic": "too", "url": "u", "n": 1},
        {"raw": None, "synthetic": "s", "url": "u1", "n": None},
        {"raw": "r", "synthetic": "", "url": None, "n": 3},
        {"raw": " ", "synthetic": "s", "url": "", "n": 4},
        {"raw": "r\x00", "synthetic": "s\x7f", "url": "u2", "n": 5},
        {"raw": "r" * 40, "synthetic": "ü" * 25, "url": "u3", "n": 6},
        {"raw": "r\ttab", "synthetic": "ü" * 20, "url": "u4", "n": 7},
    ]
    return odd * 3


def test_reading_by_column_equals_reading_row_by_row(tmp_path, monkeypatch) -> None:
    good = [{"raw": f"r{n}", "synthetic": f"s{n}", "url": f"u{n}", "n": n} for n in range(300)]
    for number, rows in enumerate((good, odd_rows(), good + odd_rows() + good, good[:1])):
        path = write(tmp_path / f"{number}.parquet", pa.Table.from_pylist(rows), group=97)
        source = ParquetSource([path], rules=RowRules(longest=30))
        fast = plain(all_rows(source, 50))
        with monkeypatch.context() as patch:
            patch.setattr(ParquetCursor, "_whole", lambda self, batch: None)
            assert plain(all_rows(source, 50)) == fast
        assert len(fast) == len(rows)
        wanted = [key_of(r["raw"] or "", (r["synthetic"] or ""), r["url"]) for r in rows if (r["raw"] or "").strip()]
        assert [row[0] for row in fast if row[1].strip()] == wanted


def test_broken_texts_are_rows_with_a_problem(tmp_path) -> None:
    texts = pa.array([b"good", b"caf\xe9", b"fine"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, texts.buffers())  # what careless writers leave in text columns
    models = pa.array(["a", "b", "c"])
    path = write(tmp_path / "a.parquet", pa.table({"raw": broken, "synthetic": models}))
    rows = all_rows(open_source(path))
    assert [row.raw for row in rows] == ["good", "caf\ufffd", "fine"]
    assert [row.problem is None for row in rows] == [True, False, True]
    rows = all_rows(open_source(write(tmp_path / "b.parquet", pa.table({"raw": texts, "synthetic": models}))))
    assert [row.problem is None for row in rows] == [True, False, True]


def test_columns_of_many_types(tmp_path) -> None:
    table = pa.table(
        {
            "alt": pa.array(["a", "b"]).dictionary_encode(),
            "blip": pa.array([["x", "y"], []], pa.list_(pa.large_string())),
            "jpg": pa.array([b"123", None], pa.large_binary()),
            "when": pa.array([0, 1], pa.timestamp("s")),
            "size": pa.array([[1, 2], [3]], pa.list_(pa.int32())),
            "big": pa.array([2**64 - 1, 1], pa.uint64()),
            "score": pa.array([0.5, None], pa.float32()),
            "ok": pa.array([True, False]),
        }
    )
    path = write(tmp_path / "a.parquet", table)
    source = open_source(path, raw="alt", synthetic="blip", rules=RowRules(pictures="carry"))
    rows = all_rows(source)
    assert [(row.raw, row.synthetic, row.image) for row in rows] == [("a", ("x", "y"), b"123"), ("b", (), None)]
    assert [row.problem for row in rows] == [None, "no synthetic caption"]
    assert rows[0].extra == {
        "when": "1970-01-01 00:00:00.000",
        "size": [1, 2],
        "big": 2**64 - 1,
        "score": 0.5,
        "ok": True,
    }
    kinds = {"when": "text", "size": "json", "big": "json", "score": "number", "ok": "truth"}
    assert source.kinds() == kinds
    few = open_source(path, raw="alt", synthetic="blip", extra=["ok"], rules=RowRules(pictures="carry"))
    assert all_rows(few)[0].extra == {"ok": True}


def test_a_column_that_only_names_a_picture_is_no_picture(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", {"raw": ["a"], "synthetic": ["b"], "image": ["x.jpg"], "n": [1]})
    row = all_rows(open_source(path))[0]
    assert (row.image, row.problem, row.extra["image"]) == (None, None, "x.jpg")
    with pytest.raises(ValueError, match=r"source.image: column 'image' of .* is string; pictures are bytes"):
        open_source(path, image="image").units(1)
    with pytest.raises(ValueError, match=r"column 'n' of .* is int64; captions, addresses and keys are text"):
        open_source(path, raw="n").units(1)


def test_own_keys_are_kept(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", {"id": ["k1", "k2"], **{k: v[:2] for k, v in published(2).items()}})
    assert [row.key for row in all_rows(open_source(path, key="id"))] == ["k1", "k2"]
    captions = {"raw": ["r1", "r2"], "synthetic": ["s1", "s2"]}
    path = write(tmp_path / "b.parquet", {"key": ["k1", "k2"], **captions})
    assert [row.key for row in all_rows(open_source(path))] == ["k1", "k2"]
    path = write(tmp_path / "c.parquet", {"key": ["k1", "k2"], "url": ["u1", ""], **captions})
    assert [row.key for row in all_rows(open_source(path))] == [key_of("", "", "u1"), key_of("r2", "s2")]
    path = write(tmp_path / "d.parquet", {"key": [1, 2], **captions})
    assert [row.key for row in all_rows(open_source(path))] == [key_of("r1", "s1"), key_of("r2", "s2")]


@pytest.mark.parametrize("cut", [0, 3, 400, -1])
def test_a_file_that_is_cut_off_is_an_error_or_reported(tmp_path, cut: int) -> None:
    whole = write(tmp_path / "a.parquet", published(20))
    content = Path(whole).read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[:cut])
    with pytest.raises(BrokenFileError, match=r"b.parquet is no whole parquet file.*source.broken_files=report"):
        open_source(tmp_path).units(10)
    source = open_source(tmp_path, broken_files="report")
    units = source.units(10)
    assert [unit.problem is None for unit in units] == [True, True, False]
    assert "b.parquet" in (units[2].problem or "")
    assert sum(len(list(source.read(unit))) for unit in units[:2]) == 20
    with pytest.raises(BrokenFileError):
        list(source.read(units[2]))


def test_a_file_that_went_away_is_named(tmp_path) -> None:
    paths = [write(tmp_path / "a.parquet", published(2)), str(tmp_path / "b.parquet")]
    with pytest.raises(BrokenFileError, match=r"source.path: .*b.parquet cannot be read"):
        ParquetSource(paths).units(5)
    source = ParquetSource(paths, broken_files="report")
    assert [unit.rows for unit in source.units(5)] == [2, 0]
    assert source.describe()["files"][1] == {"name": "b.parquet", "bytes": None, "fingerprint": None}


def test_damage_inside_a_file_is_found_when_it_is_read(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", published(2000), group=1000)
    content = bytearray(Path(path).read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    Path(path).write_bytes(content)
    source = open_source(path)
    units = source.units(500)
    assert len(list(source.read(units[0]))) == len(list(source.read(units[1]))) == 500
    with pytest.raises(BrokenFileError, match=r"a.parquet is damaged behind row 1000: "):
        list(source.read(units[2]))
    assert len(list(source.read(units[0]))) == 500  # what was read before can be read again


def test_files_of_other_columns_are_recognised_each(tmp_path) -> None:
    first = write(tmp_path / "a.parquet", published(2))
    second = write(tmp_path / "b.parquet", {"raw": ["r"], "synthetic": ["s"], "more": [1]})
    source = open_source([first, second])
    assert [row.raw for row in all_rows(source)] == ["alt text 0", "alt text 1", "r"]
    with pytest.raises(ValueError, match=r"source.raw: .*c.parquet has none of the usual columns"):
        open_source(write(tmp_path / "c.parquet", {"x": ["r"]})).units(3)


def test_fingerprints_tell_files_apart(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", published(20))
    before = open_source(path).describe()
    assert before == open_source(path).describe()
    write(tmp_path / "a.parquet", published(20, 1))
    after = open_source(path).describe()
    assert before["files"][0]["name"] == after["files"][0]["name"] == "a.parquet"
    assert before["files"] != after["files"]
    assert open_source(path, rules=RowRules(longest=5)).describe()["rules"]["longest"] == 5


def test_parts_can_be_built_from_plain_settings(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", published(3))
    columns = {"type": "caption_columns", "raw": "laion_2b", "synthetic": "laion_coco", "extra": []}
    source = build({"type": "caption_parquet", "files": [path], "columns": columns, "broken_files": "report"})
    assert [row.extra for row in all_rows(source)] == [{}] * 3
    assert source.columns == Columns("laion_2b", ("laion_coco",), "image_url", None, None, ())
    with pytest.raises(ValueError, match=r"source.broken_files is 'skip'; it must be one of error, report"):
        ParquetSource([path], broken_files="skip")
    with pytest.raises(ValueError, match="no parquet"):
        ParquetSource([])
