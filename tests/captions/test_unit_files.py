"""Unit files: whole or absent, the same bytes for the same rows, nothing lost, readable by other libraries."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from multimodal_zoo.captions import unit_files
from multimodal_zoo.captions.opening import open_source
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED, CaptionRow, FusedRow
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.captions.statistics import Statistics
from multimodal_zoo.captions.unit_checks import remove_leftovers, verify
from multimodal_zoo.captions.unit_files import (
    UnitRecord,
    finished,
    is_done,
    record_of,
    records,
    write_broken_unit,
    write_unit,
)
from multimodal_zoo.captions.unit_reading import double_keys, read_unit, read_units, unit_rows
from multimodal_zoo.captions.unit_tables import column_names, infer_kinds
from multimodal_zoo.captions.unit_tars import member, picture_suffix
from multimodal_zoo.registry import build

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def picture(number: int, kind: str = "png") -> bytes:
    stored = io.BytesIO()
    Image.new("RGB", (3, 3), (number % 256, 0, 0)).save(stored, kind)
    return stored.getvalue()


def unit(rows: int, number: int = 0, file: str = "/data/part.parquet") -> Unit:
    start = number * 10
    return Unit(f"part-{start:09d}-{start + rows:09d}", file, start, start + rows)


def results(rows: int, number: int = 0) -> list[FusedRow]:
    """Every third row is rejected, every fourth one failed; every second one has a picture."""
    found = []
    for place in range(number * 10, number * 10 + rows):
        image = picture(place) if place % 2 else None
        row = CaptionRow(
            f"k{place}", f"alt {place} ü", (f"photo {place}", "two"), image, {"url": f"u{place}", "w": place}
        )
        if place % 4 == 3:
            found.append(FusedRow(row, "", FAILED, "no answer", (), 3, 0))
        elif place % 3 == 2:
            found.append(FusedRow(row, f"bad {place}", REJECTED, "leak", ("leak", "long"), 2, 0))
        else:
            found.append(FusedRow(row, f"photo of alt {place} ü", FUSED, "", ("long",) * (place % 2), 1, place % 3))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_unit_comes_back_as_it_was_written(tmp_path) -> None:
    rows = results(12)
    record = write_unit(tmp_path, unit(12), rows, statistics=Statistics("instruction"), rounds=2)
    assert record == record_of(tmp_path, unit(12).name) == next(records(tmp_path))
    assert (record.rows, record.doubles, record.rounds, record.file) == (12, 0, 2, "part.parquet")
    assert record.statuses == {FUSED: 6, REJECTED: 3, FAILED: 3}
    assert record.statistics
    assert sorted(record.files) == [f"parquet/{unit(12).name}.parquet", f"webdataset/{unit(12).name}.tar"]
    assert all(hashlib.sha256((tmp_path / f).read_bytes()).hexdigest() == sha for f, sha in record.files.items())
    for old, new in zip(rows, read_unit(tmp_path, record), strict=True):
        assert vars(new) | {"row": None} == vars(old) | {"row": None}
        assert (new.row.key, new.row.raw, new.row.synthetic) == (old.row.key, old.row.raw, old.row.synthetic)
        assert new.row.extra == old.row.extra
        assert new.row.problem == ("no answer" if old.status == FAILED else None)
    assert verify(tmp_path) == []
    assert is_done(tmp_path, unit(12))


def test_the_same_rows_give_the_same_bytes(tmp_path) -> None:
    for folder in ("a", "b"):
        write_unit(tmp_path / folder, unit(50), iter(results(50)))
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    time.sleep(0.01)
    write_unit(tmp_path / "b", unit(50), results(50))  # over what is there
    assert first == contents(tmp_path / "b")
    assert len(first) == 3


def test_chunks_of_rows_do_not_show(tmp_path, monkeypatch) -> None:
    write_unit(tmp_path / "a", unit(20), results(20))
    monkeypatch.setattr(unit_files, "CHUNK", 3)
    write_unit(tmp_path / "b", unit(20), results(20))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_units_of_no_row_and_of_one_are_units(tmp_path, rows: int) -> None:
    write_unit(tmp_path, unit(rows), results(rows), kinds={"url": "text", "w": "integer"})
    assert len(list(read_units(tmp_path))) == rows
    assert verify(tmp_path) == []
    with tarfile.open(tmp_path / f"webdataset/{unit(rows).name}.tar") as tar:
        assert len(tar.getnames()) == {0: 0, 1: 2, 3: 5}[rows]


@pytest.mark.parametrize("count", [11, 13])
def test_rows_that_are_not_the_units_are_refused(tmp_path, count: int) -> None:
    with pytest.raises(ValueError, match=f"has 12 rows, {count} results came; none may be lost or added"):
        write_unit(tmp_path, unit(12), results(count))
    assert not contents(tmp_path)
    assert not is_done(tmp_path, unit(12))


def test_a_writer_that_dies_leaves_the_unit_undone(tmp_path, monkeypatch) -> None:
    def broken() -> Any:
        yield from results(12)[:5]
        raise TimeoutError("engine is gone")

    with pytest.raises(TimeoutError):
        write_unit(tmp_path, unit(12), broken())
    assert not contents(tmp_path)
    whole = contents_of_good(tmp_path / "good")
    # killed between the renames: what is there is whole, and no record says more than there is
    for stop in range(3):
        folder = tmp_path / str(stop)
        real, count = os.replace, iter(range(9))

        def replace_some(source: Any, target: Any, real: Any = real, count: Any = count, stop: int = stop) -> None:
            if next(count) >= stop:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_some)
            with pytest.raises(KeyboardInterrupt):
                write_unit(folder, unit(12), results(12))
        assert not is_done(folder, unit(12))
        assert finished(folder) == set()
        assert len(verify(folder)) == stop  # files that belong to no finished unit
        assert contents(folder).items() <= whole.items()
        write_unit(folder, unit(12), results(12))
        assert contents(folder) == whole


def contents_of_good(folder: Path) -> dict[str, bytes]:
    write_unit(folder, unit(12), results(12))
    return contents(folder)


def test_half_written_files_are_found_and_written_again(tmp_path) -> None:
    whole = contents_of_good(tmp_path)
    name = unit(12).name
    for file, content in whole.items():
        for size in (0, 1, len(content) // 2, len(content) - 2):
            (tmp_path / file).write_bytes(content[:size])
            assert not is_done(tmp_path, unit(12)), (file, size)
            assert record_of(tmp_path, name) is None
            assert list(records(tmp_path)) == []
            assert verify(tmp_path)
            write_unit(tmp_path, unit(12), results(12))
            assert contents(tmp_path) == whole
        (tmp_path / file).unlink()
        assert not is_done(tmp_path, unit(12))
        assert verify(tmp_path)
        write_unit(tmp_path, unit(12), results(12))
    for file in whole:
        if not file.startswith("records"):
            changed = bytearray(whole[file])
            changed[len(changed) // 3] ^= 1
            (tmp_path / file).write_bytes(changed)
            assert is_done(tmp_path, unit(12))  # hashes are read by verify alone
            assert verify(tmp_path) == [f"{file} has other bytes than its record says"]
            (tmp_path / file).write_bytes(whole[file])
    assert verify(tmp_path) == []


def test_a_damaged_record_is_named_and_says_what_to_do(tmp_path) -> None:
    write_unit(tmp_path, unit(12), results(12))
    for file in contents(tmp_path):
        if not file.startswith("records"):
            (tmp_path / file).unlink()
    path = tmp_path / "records" / f"{unit(12).name}.json"
    for damage, why in (("{", "JSONDecodeError"), ("[]", "TypeError"), ("{}", "TypeError")):
        path.write_text(damage)
        (said,) = verify(tmp_path)
        assert said.startswith(f"{path} is damaged or no record of a unit ({why}: ")
        assert said.endswith("; delete it, and the unit is written again")


def test_a_unit_that_is_written_again_is_not_done_meanwhile(tmp_path, monkeypatch) -> None:
    write_unit(tmp_path, unit(12), results(12))

    def stop(source: Any, target: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_unit(tmp_path, unit(12), [replace(row, status=FUSED) for row in results(12)], rounds=1)
    assert not is_done(tmp_path, unit(12))


def test_what_killed_writers_left_is_removed(tmp_path) -> None:
    write_unit(tmp_path, unit(12), results(12))
    whole = contents(tmp_path)
    left = [tmp_path / "parquet" / ".part-1.0123456789ab.parquet", tmp_path / "records" / ".part-1.0123456789ab.json"]
    for path in left:
        path.write_bytes(b"half")
    assert finished(tmp_path) == {unit(12).name}
    assert remove_leftovers(tmp_path, older_than=3600.0) == []
    assert remove_leftovers(tmp_path) == ["parquet/.part-1.0123456789ab.parquet", "records/.part-1.0123456789ab.json"]
    assert contents(tmp_path) == whole
    assert finished(tmp_path / "nowhere") == set()
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_a_broken_unit_is_noted_and_not_done(tmp_path) -> None:
    write_broken_unit(tmp_path, unit(12), "part.parquet is cut off")
    assert not is_done(tmp_path, unit(12))
    assert next(records(tmp_path)).problem == "part.parquet is cut off"
    assert verify(tmp_path) == [f"unit {unit(12).name} could not be read: part.parquet is cut off"]
    assert list(read_units(tmp_path)) == []
    write_unit(tmp_path, unit(12), results(12))  # the file was replaced
    assert is_done(tmp_path, unit(12))
    assert verify(tmp_path) == []


def test_plain_parquet_readers_read_a_folder(tmp_path) -> None:
    import pandas as pd

    kinds = {"url": "text", "w": "integer"}
    for number in range(3):
        write_unit(tmp_path, unit(7, number), results(7, number), kinds=kinds)
    table = pq.read_table(tmp_path / "parquet")
    assert table.num_rows == 21
    assert table.schema.names == [
        *("key", "raw", "synthetic", "fused", "status", "reason", "flags", "attempts", "words_cut", "url", "w", "more"),
    ]
    frame = pd.read_parquet(tmp_path / "parquet")
    expected = [row for number in range(3) for row in results(7, number)]
    assert frame["key"].tolist() == [row.row.key for row in expected]
    assert frame["fused"].tolist() == [row.fused for row in expected]
    assert [list(one) for one in frame["synthetic"]] == [list(row.row.synthetic) for row in expected]
    assert (frame["status"] == FUSED).sum() == sum(row.status == FUSED for row in expected)
    assert frame["w"].tolist() == [row.row.extra["w"] for row in expected]


def test_the_webdataset_library_reads_the_tars(tmp_path) -> None:
    webdataset = pytest.importorskip("webdataset")
    write_unit(tmp_path, unit(9), results(9))
    samples = list(webdataset.WebDataset(str(tmp_path / f"webdataset/{unit(9).name}.tar"), shardshuffle=False).decode())
    expected = [row for row in results(9) if row.status == FUSED]
    assert [sample["txt"] for sample in samples] == [row.fused for row in expected]
    assert [sample["json"]["key"] for sample in samples] == [row.row.key for row in expected]
    assert [sample.get("png") is not None for sample in samples] == [row.row.image is not None for row in expected]
    assert samples[0]["json"]["synthetic"] == ["photo 0", "two"]


def test_the_library_reads_its_own_tars_for_training_and_for_another_run(tmp_path) -> None:
    rows = [row for row in results(40) if row.row.image]
    write_unit(tmp_path, unit(len(rows)), rows)
    accepted = [row for row in rows if row.status == FUSED]
    tars = str(tmp_path / "webdataset" / "*.tar")
    settings = {"streams": 1, "shuffle": 1, "samples_per_epoch": None}
    reader = build({"type": "webdataset_pairs", "sources": tars, **settings})
    documents = list(reader)
    assert [document.text for document in documents] == [row.fused for row in accepted]
    assert documents[0].meta["raw"] == accepted[0].row.raw
    source = open_source(tars)
    again = [row for unit_ in source.units(4) for row in source.read(unit_)]
    assert [(row.raw, row.synthetic, row.image) for row in again] == [
        (row.row.raw, row.row.synthetic, row.row.image) for row in accepted
    ]
    table = open_source(tmp_path)  # a run's folder is its parquet
    keys = [row.key for unit_ in table.units(4) for row in table.read(unit_)]
    assert keys == [row.row.key for row in rows]


def test_the_standard_library_reads_our_headers() -> None:
    files = {"a-000000.txt": b"x" * 700, "b" * 100: b"", "c.json": bytes(512)}
    packed = b"".join(b"".join(member(name, content)) for name, content in files.items()) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for name, info in zip(files, tar, strict=True):
            assert (info.name, info.size, info.mode, info.mtime) == (name, len(files[name]), 0o644, 0)
            assert (info.uid, info.gid, info.uname, info.gname, info.type) == (0, 0, "", "", tarfile.REGTYPE)
            assert tar.extractfile(info).read() == files[name]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="101 characters; 100 fit"):
        member("a" * 101, b"")
    kinds = [picture_suffix(picture(0, kind)) for kind in ("png", "jpeg", "gif", "bmp", "webp")]
    assert kinds == ["png", "jpg", "gif", "bmp", "webp"]
    assert picture_suffix(b"?") == "bin"


def test_odd_values_are_kept_in_more(tmp_path) -> None:
    odd: list[Any] = ["text", 3, 2.5, True, None, b"\xff", [1, {"a": "ü"}], 2**70, "half \ud83d", float("inf")]
    rows = [
        FusedRow(CaptionRow(f"k{n}", "r", ("s",), None, {"x": value, "key": n, "t": "half \ud83d"}), "half \ud83d")
        for n, value in enumerate(odd)
    ]
    for number, kind in enumerate(("text", "integer", "number", "truth", "bytes", "json")):
        write_unit(tmp_path / kind, unit(len(odd)), rows, kinds={"x": kind, "key": "integer", "t": "text"})
        found = list(unit_rows(tmp_path / kind, next(records(tmp_path / kind))))
        assert [row["source_key"] for row in found] == list(range(len(odd)))
        assert {row["fused"] for row in found} == {"half \ufffd"}
        assert [row["t"] for row in found] == ["half \ufffd"] * len(odd)
        kept = [row["x"] is not None or "x" in json.loads(row["more"] or "{}") for row in found]
        assert kept == [value is not None for value in odd], number
    with tarfile.open(tmp_path / f"json/webdataset/{unit(len(odd)).name}.tar") as tar:
        facts = [tar.extractfile(one).read() for one in tar if one.name.endswith(".json")]  # type: ignore[union-attr]
    values = [json.loads(one, parse_constant=lambda name: pytest.fail(name)) for one in facts]
    assert [one.get("x") for one in values] == [*odd[:5], None, *odd[6:9], None]  # bytes are the table's alone
    inferred = tmp_path / "inferred"
    write_unit(inferred, unit(len(odd)), rows)
    assert len(list(read_units(inferred))) == len(odd)
    late = [replace(row, row=replace(row.row, extra={"new": 1})) for row in rows[:2]]
    write_unit(inferred, unit(2, 1), late, kinds={})
    assert json.loads(list(read_units(inferred, ["more"]))[-1]["more"]) == {"new": 1}


def test_kinds_are_the_narrowest_that_fit() -> None:
    samples: list[dict[str, Any]] = [
        {"a": 1, "b": 1, "c": None, "d": True, "e": "x", "f": [1], "g": 1, "h": 2**63},
        {"a": 2, "b": 0.5, "c": None, "d": False, "e": None, "f": "x", "g": "y"},
    ]
    kinds = {
        "a": "integer",
        "b": "number",
        "c": "text",
        "d": "truth",
        "e": "text",
        "f": "json",
        "g": "json",
        "h": "json",
    }
    assert infer_kinds(samples) == kinds
    names = column_names(["url", "key", "source_key", "more"])
    assert names == {"url": "url", "key": "source_key", "source_key": "source_source_key", "more": "source_more"}


@pytest.mark.parametrize("formats", [["webdataset"], ["parquet", "csv"], []])
def test_unknown_formats_are_refused(tmp_path, formats: list[str]) -> None:
    with pytest.raises(ValueError, match="it must have parquet, where rejected and failed rows are kept"):
        write_unit(tmp_path, unit(1), results(1), formats)
    with pytest.raises(ValueError, match="kind of column 'w' is 'int'; it must be one of text, integer"):
        write_unit(tmp_path, unit(1), results(1), kinds={"w": "int"})


def test_parquet_alone_is_enough(tmp_path) -> None:
    record = write_unit(tmp_path, unit(5), results(5), ["parquet"])
    assert list(record.files) == [f"parquet/{unit(5).name}.parquet"]
    assert not (tmp_path / "webdataset").exists()


def test_selected_columns_and_statuses(tmp_path) -> None:
    for number in range(2):
        write_unit(tmp_path, unit(10, number), results(10, number))
    rows = [row for number in range(2) for row in results(10, number)]
    found = list(read_units(tmp_path, ["fused"], [REJECTED]))
    assert [row["fused"] for row in found] == [row.fused for row in rows if row.status == REJECTED]
    assert set(found[0]) == {"unit", "fused"}
    with pytest.raises(ValueError, match=r"have no column 'text'; they have key, raw"):
        list(read_units(tmp_path, ["text"]))


@pytest.mark.parametrize("memory", [1 << 20, 64, 8])
def test_double_keys_are_found_in_any_memory(tmp_path, memory: int) -> None:
    for number in range(3):
        write_unit(tmp_path, unit(10, number), results(10, number))
    assert double_keys(tmp_path, memory) == []
    assert double_keys(tmp_path / "nowhere", memory) == []
    twice = [*results(9, 5), replace(results(1)[0], fused="again")]
    assert write_unit(tmp_path, unit(10, 5), twice).doubles == 0
    assert double_keys(tmp_path, memory) == ["k0"]
    assert write_unit(tmp_path, unit(10, 6), [*results(9, 6), results(1, 6)[0]]).doubles == 1
    assert double_keys(tmp_path, memory) == ["k0", "k60"]


def test_nothing_is_lost_from_source_to_units(tmp_path) -> None:
    odd: list[dict[str, Any]] = [
        {"raw": f"r{n}", "synthetic": f"s{n}", "n": n} if n % 5 else {"raw": None, "synthetic": f"s{n}\x00", "n": n}
        for n in range(53)
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(odd), path, row_group_size=20)
    source = open_source(path, rules=RowRules(damaged="fail"))
    out = tmp_path / "out"
    for one in source.units(10):
        rows = (
            FusedRow(row, "", FAILED, row.problem) if row.problem else FusedRow(row, f"{row.raw} {row.synthetic[0]}")
            for row in source.read(one)
        )
        write_unit(out, one, rows, kinds=source.kinds())
    found = list(read_units(out))
    assert [row["n"] for row in found] == list(range(53))
    assert [row["status"] == FAILED for row in found] == [n % 5 == 0 for n in range(53)]
    assert sum(record.rows for record in records(out)) == 53
    assert isinstance(next(records(out)), UnitRecord)
