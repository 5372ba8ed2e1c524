"""Captions in JSON lines and JSON lists: both spellings, pieces of any size, broken records, files cut off."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.captions import json_records
from multimodal_zoo.captions.json_records import Elements, parse
from multimodal_zoo.captions.opening import find_files, open_source
from multimodal_zoo.captions.sources import BrokenFileError, Source
from multimodal_zoo.registry import build


def record(number: int, spelling: str = "capsfuion_official") -> dict[str, Any]:
    """A row of CapsFusion's example file."""
    return {
        "laion_2b": f'alt "{number}" \\ [x], {{raw}} ü',
        "laion_coco": f"a photo of {number}",
        spelling: f"fused {number}",
    }


def read(source: Source, size: int = 4) -> list[Any]:
    return [row for unit in source.units(size) for row in source.read(unit)]


def write(path: Path, content: str | bytes) -> str:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def lines(rows: int) -> str:
    return "".join(json.dumps(record(number), ensure_ascii=False) + "\n" for number in range(rows))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("spelling", ["capsfuion_official", "capsfusion_official"])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_the_example_file_is_read_in_both_spellings(tmp_path, name: str, spelling: str, indent: int | None) -> None:
    rows = [record(number, spelling) for number in range(11)]
    found = read(open_source(write(tmp_path / name, json.dumps(rows, indent=indent))))
    assert [row.raw for row in found] == [row["laion_2b"] for row in rows]
    assert [row.synthetic for row in found] == [(row["laion_coco"],) for row in rows]
    assert [row.extra for row in found] == [{"capsfusion_official": f"fused {n}"} for n in range(11)]


@pytest.mark.parametrize("named", ["capsfuion_official", "capsfusion_official"])
def test_a_named_key_is_found_in_both_spellings_of_one_file(tmp_path, named: str) -> None:
    rows = [record(0), record(1, "capsfusion_official"), {"laion_2b": "a kite"}]
    found = read(open_source(write(tmp_path / "a.json", json.dumps(rows)), synthetic=named))
    assert [row.synthetic for row in found] == [("fused 0",), ("fused 1",), ()]
    assert [row.problem for row in found] == [None, None, "no synthetic caption"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_lines_are_read_from_the_middle_too(tmp_path, name: str) -> None:
    source = open_source(write(tmp_path / name, "\ufeff" + lines(4) + "\n  \n" + lines(5)[len(lines(4)) :]))
    units = source.units(2)
    assert [unit.rows for unit in units] == [2, 2, 1]
    for unit in [*units[::-1], *units, units[1]]:
        assert [row.raw for row in source.read(unit)] == [record(n)["laion_2b"] for n in range(unit.start, unit.stop)]
    assert source.kinds() == {"capsfusion_official": "text"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_elements_of_a_list_are_found_in_pieces_of_any_size(size: int) -> None:
    values = [{"a": 'quote " comma , \\" [', "b": [{"c": "]}"}, []]}, {"é": "\\"}, 3, "x,y", [1, [2]], None, {}]
    content = json.dumps(values, ensure_ascii=False).encode() + b"\n"
    elements = Elements(1)
    found = [one for at in range(1, len(content), size) for one in elements.feed(content[at : at + size])]
    assert [json.loads(one.text) for one in found] == values
    assert elements.ended
    assert all(content[one.offset :].startswith(one.text) for one in found)


def test_lists_larger_than_a_piece_are_read_in_units(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_records, "PIECE", 100)
    source = open_source(write(tmp_path / "a.json", " " + json.dumps([record(n) for n in range(30)], indent=1)))
    units = source.units(7)
    for unit in [*units, *units[::-1]]:
        assert [row.raw for row in source.read(unit)] == [record(n)["laion_2b"] for n in range(unit.start, unit.stop)]


def test_broken_records_are_rows_with_a_problem(tmp_path) -> None:
    odd = [
        (b'{"raw": "a", "synthetic": "b"}', None),
        (b'{"raw": "a", "synthetic": ', "record is no JSON"),
        (b"[1, 2]", "record is a list, not an object"),
        (b'{"raw": "caf\xe9", "synthetic": "b"}', "raw is not UTF-8"),
        (b'{"raw": "a", "synthetic": ["b", "caf\xe9"]}', "synthetic is not UTF-8"),
        (b'{"raw": "a", "synthetic": "b", "x": "caf\xe9"}', None),
        (b"\xff\xfe", "record is no JSON"),
        (b'{"raw": "\\ud83d", "synthetic": "b"}', "raw has half a character"),
        (b"[" * 5_000, "record is no JSON"),
        (b"\xff" + b"[" * 5_000, "record is no JSON"),
        (b'{"raw": 1e400, "synthetic": "b"}', "raw is float inf, not text"),
    ]
    path = write(tmp_path / "a.jsonl", b"\n".join(line for line, _ in odd))
    rows = read(open_source(path))
    assert len(rows) == len(odd) == len({row.key for row in rows}) + 2  # three begin with the same captions
    for row, (line, problem) in zip(rows, odd, strict=True):
        assert (row.problem is None) == (problem is None), line
        assert (row.problem or "").startswith(problem or ""), line
    assert rows[1].extra == {"record": '{"raw": "a", "synthetic": '}
    assert rows[5].extra == {"x": b"caf\xe9"}


def test_records_larger_than_memory_are_left_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_records, "LONGEST", 400)
    monkeypatch.setattr(json_records, "SHOWN", 40)
    huge = json.dumps({**record(1), "laion_2b": "x" * 1000})
    path = write(tmp_path / "a.jsonl", "\n".join([json.dumps(record(0)), huge, json.dumps(record(2))]))
    rows = read(open_source(path), 2)
    assert [row.problem is None for row in rows] == [True, False, True]
    assert rows[2].raw == record(2)["laion_2b"]


def test_a_list_that_is_cut_off_is_an_error_or_keeps_what_is_whole(tmp_path) -> None:
    whole = json.dumps([record(n) for n in range(9)]).encode()
    for cut in (1, 60, 300, len(whole) - 1):
        path = write(tmp_path / "a.json", whole[:cut])
        with pytest.raises(BrokenFileError, match=r"a.json is a JSON list that does not end.*source.path"):
            open_source(path).units(4)
        write(tmp_path / "b.json", whole)
        source = open_source([tmp_path / "b.json", path], broken_files="report")
        units = [unit for unit in source.units(4) if unit.file == path]
        assert units[-1].problem
        rows = [row for unit in units[:-1] for row in source.read(unit)]
        assert [row.raw for row in rows] == [record(n)["laion_2b"] for n in range(len(rows))]
        assert len(rows) >= cut // (len(whole) // 8) - 1


def test_damaged_compressed_files_are_named(tmp_path) -> None:
    packed = gzip.compress(lines(2000).encode())
    for number, content in enumerate((packed[: len(packed) // 2], packed[:200] + b"junk" + packed[204:], b"no gzip")):
        path = tmp_path / f"{number}.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(BrokenFileError, match=rf"{number}.jsonl.gz is damaged.*source.path"):
            read(open_source(path))
        write(tmp_path / "good.jsonl", lines(1))
        assert open_source([tmp_path / "good.jsonl", path], broken_files="report").units(5000)[-1].problem


def test_files_that_hold_something_else_are_refused(tmp_path) -> None:
    with pytest.raises(BrokenFileError, match="none of the first 256 records is a JSON object"):
        read(open_source(write(tmp_path / "a.json", "[1, 2]")))
    with pytest.raises(ValueError, match=r"source.raw: .* has none of the usual columns"):
        read(open_source(write(tmp_path / "a.json", '{"data": []}')))
    with pytest.raises(ValueError, match="JSON holds no pictures"):
        read(open_source(write(tmp_path / "a.jsonl", lines(1)), image="laion_2b"))
    source = open_source(write(tmp_path / "b.jsonl", '{"raw": "a", "synthetic": "b", "image": "c.jpg"}'))
    assert (read(source)[0].image, read(source)[0].extra) == (None, {"image": "c.jpg"})


def test_objects_keep_bytes_that_are_not_text() -> None:
    assert parse(b'{"a\xff": ["\xe9", "x"], "b": {"c": 1}}') == ({"a\ufffd": [b"\xe9", "x"], "b": {"c": 1}}, None)
    assert parse(b"\xff") == (None, parse(b"\xff")[1])


def test_a_path_may_be_a_file_a_folder_a_pattern_or_a_list(tmp_path) -> None:
    (tmp_path / "deep" / "_temporary").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "deep/_temporary/d.jsonl", "notes.txt", "z.json"):
        write(tmp_path / name, lines(1))
    names = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "deep/c.jsonl")]
    assert find_files(tmp_path) == names
    assert find_files(str(tmp_path / "{a,b}.jsonl")) == find_files(str(tmp_path / "*.jsonl")) == names[:2]
    assert find_files([names[1], names[0], tmp_path]) == [names[1], names[0], names[2]]
    source = build({"type": "caption_source", "path": str(tmp_path)})
    assert [unit.file for unit in source.units(10)] == names
    assert len({row.key for row in read(source)}) == 1  # the captions are the same


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("nothing.jsonl", FileNotFoundError, "nothing.jsonl"),
        ("empty", FileNotFoundError, "has no file of captions"),
        ("notes.txt", ValueError, r"notes.txt is of no kind that is known by its suffix; known are .tar"),
        ("s3://bucket/a.parquet", ValueError, "local or mounted files"),
        (["a.jsonl", "z.json"], ValueError, "several kinds: json, json lines"),
    ],
)
def test_paths_without_captions_are_refused(tmp_path, monkeypatch, path: Any, error: type, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("a.jsonl", "z.json", "notes.txt"):
        write(tmp_path / name, lines(1))
    with pytest.raises(error, match=message):
        open_source(path)


@pytest.mark.parametrize("made", ["records", "work"])
def test_outputs_of_runs_inside_a_folder_are_not_read(made: str, tmp_path) -> None:
    """A run into a folder below its data goes on with the same files, whether the first one was ended early or not."""
    write(tmp_path / "a.jsonl", lines(2))
    output = tmp_path / "fused"
    for name in (made, "webdataset", "parquet"):
        (output / name).mkdir(parents=True)
    write(output / "manifest.json", "{}")
    write(output / "webdataset" / "a.tar", "")
    assert find_files(tmp_path) == [str(tmp_path / "a.jsonl")]
    write(output / "parquet" / "a.parquet", "")
    assert find_files(output / "parquet") == [str(output / "parquet" / "a.parquet")]


def test_files_of_one_name_in_several_folders_have_units_of_their_own(tmp_path) -> None:
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "part 1.jsonl", lines(3))
    long = write(tmp_path / ("x" * 150 + ".jsonl"), lines(1))
    source = open_source(tmp_path)
    units = source.units(2)
    assert len({unit.name for unit in units}) == len(units) == 7
    assert all(len(unit.name) + len("-000000.json") < 100 for unit in units if unit.file == long)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (tmp_path / "one").rename(other / "one")
    (tmp_path / "two").rename(other / "two")
    moved = [unit.name for unit in open_source([other / "one", other / "two"]).units(2)]
    assert moved == [unit.name for unit in units if "/one/" in unit.file] + [u.name for u in units if "/two/" in u.file]
