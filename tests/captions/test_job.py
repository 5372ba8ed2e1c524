"""Runs in one process: what is written, what a later run goes on with, what is refused."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.job import begin, open_tasks, unfinished
from multimodal_zoo.captions.process_runner import ProcessRunner
from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED
from multimodal_zoo.captions.speed import speed_of
from multimodal_zoo.captions.stages import STAGES
from multimodal_zoo.captions.unit_checks import verify
from multimodal_zoo.captions.unit_files import records
from multimodal_zoo.captions.unit_reading import read_units
from multimodal_zoo.registry import CAPTIONS, build

HERE = ProcessRunner()


class FlakyEngine:
    """Echoes; prompts with one of some words get no answer."""

    def __init__(self, batch_size: int = 8, words: Sequence[str] = (), temperature: float = 0.0) -> None:
        self.batch_size, self.words, self.temperature = batch_size, tuple(words), temperature
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"engine": "flaky", "temperature": self.temperature}

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:-tokens])

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        self.asked += [one.raw for one in requests]
        return [
            Answer("", error="no answer") if set(self.words) & set(one.raw.split()) else Answer(one.raw)
            for one in requests
        ]

    def close(self) -> None:
        pass


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> list[FlakyEngine]:
    """The engines that are built as `flaky_engine`, registered for one test."""
    built: list[FlakyEngine] = []

    def make(batch_size: int = 8, words: Sequence[str] = (), temperature: float = 0.0) -> FlakyEngine:
        built.append(FlakyEngine(batch_size, words, temperature))
        return built[-1]

    monkeypatch.setitem(CAPTIONS.module_dict, "flaky_engine", make)
    return built


def test_every_row_comes_out_once_with_its_status(tmp_path, job_for, run_job) -> None:
    job = job_for(tmp_path / "out")
    assert len(run_job(job, HERE)) == 17  # 330 rows, 20 a unit
    rows = list(read_units(job.folder))
    assert [row["raw"] for row in rows] == [f"Kite {i} over Rome" for i in range(330)]
    assert Counter(row["status"] for row in rows) == {FUSED: 329, FAILED: 1}
    assert rows[7]["reason"] == "no synthetic caption"
    assert len({row["key"] for row in rows}) == 330
    assert verify(job.folder) == []
    assert not any((job.work / "claims").iterdir())


def test_seconds_of_the_stages_add_up(tmp_path, job_for, run_job) -> None:
    job = job_for(tmp_path / "out")
    run_job(job, HERE)
    speed = speed_of(job.folder)
    assert speed["rows"] == 330
    assert list(speed["stages"]) == list(STAGES)
    assert sum(stage["seconds"] for stage in speed["stages"].values()) == pytest.approx(
        speed["worker_seconds"], abs=0.01
    )
    assert speed_of(tmp_path / "nothing")["rows_per_worker_second"] == 0.0


def test_a_run_goes_on_behind_what_is_there_and_makes_the_same_bytes(tmp_path, job_for, run_job, contents) -> None:
    whole, part = job_for(tmp_path / "whole"), job_for(tmp_path / "part")
    names = run_job(whole, HERE)
    source = build(part.source)
    begin(part, source, 20)
    units = source.units(20)
    results = HERE.run(part, open_tasks(part, units)[0])
    assert [next(results).name for _ in range(5)] == names[:5]
    results.close()  # as an error or a signal does
    tasks, stand = open_tasks(part, units)
    assert (len(tasks), sum(done.rows for done in stand)) == (12, 100)
    assert run_job(part, HERE) == names[5:]
    assert run_job(part, HERE) == []
    assert unfinished(part, tasks) == []
    assert contents(Path(part.folder)) == contents(Path(whole.folder))


def test_a_damaged_unit_is_made_again(tmp_path, job_for, run_job, contents) -> None:
    job = job_for(tmp_path / "out")
    names = run_job(job, HERE)
    before = contents(Path(job.folder))
    (tmp_path / "out" / "parquet" / f"{names[3]}.parquet").write_bytes(b"half")
    (tmp_path / "out" / "records" / f"{names[5]}.json").write_text("{")
    (tmp_path / "out" / "webdataset" / f"{names[8]}.tar").unlink()
    assert run_job(job, HERE) == [names[3], names[5], names[8]]
    assert contents(Path(job.folder)) == before


def test_other_settings_are_refused_by_their_keys(tmp_path, job_for, run_job, caption_file, flaky) -> None:
    job = job_for(tmp_path / "out", engine={"type": "flaky_engine", "words": []})
    run_job(job, HERE)
    with pytest.raises(ValueError, match=r"retries: was 2, is 1"):
        run_job(replace(job, retries=1), HERE)
    with pytest.raises(ValueError, match=r"prompt\.template_sha256: was"):
        run_job(replace(job, prompt={"type": "fusion_prompt", "template": "{raw} {synthetic}"}), HERE)
    next((tmp_path / "out" / "records").iterdir()).unlink()
    with pytest.raises(ValueError, match=r"engine\.temperature: was 0\.0, is 0\.7.*accept_changes=\[engine\]"):
        run_job(replace(job, engine={"type": "flaky_engine", "temperature": 0.7}), HERE)
    assert flaky[-1].asked == []
    warm = replace(job, engine={"type": "flaky_engine", "temperature": 0.7}, accepted=("engine",))
    assert len(run_job(warm, HERE)) == 1
    with caption_file.open("a") as file:
        file.write(json.dumps({"url": "u/x", "raw": "a", "synthetic": "b"}) + "\n")
    with pytest.raises(ValueError, match=r"source\.files\[0\]\.bytes: was"):
        run_job(job, HERE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ("csv",)}, r"formats is \['csv'\]"),
        ({"filters": {"length": {"type": "length_filter", "fewest": 9, "most": 3}}}, "length_filter takes most 3"),
    ],
)
def test_nothing_is_noted_of_settings_that_cannot_work(change, message, tmp_path, job_for) -> None:
    """So that the same folder may be taken once they are mended."""
    job = replace(job_for(tmp_path / "out"), **change)
    with pytest.raises(ValueError, match=message):
        begin(job, build(job.source), 8)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_units_is_refused(tmp_path, job_for, run_job) -> None:
    job = job_for(tmp_path / "out")
    run_job(job, HERE)
    with pytest.raises(ValueError, match=r"holds 17 units that the source does not have"):
        open_tasks(job, build(job.source).units(30))


def test_failed_rows_alone_are_run_again(tmp_path, job_for, run_job, flaky) -> None:
    bad = job_for(tmp_path / "out", engine={"type": "flaky_engine", "words": ["3", "44"]}, retries=0)
    run_job(bad, HERE)
    assert Counter(row["status"] for row in read_units(bad.folder)) == {FUSED: 327, FAILED: 3}
    good = replace(bad, engine={"type": "flaky_engine", "words": []})
    assert len(run_job(good, HERE, again=(FAILED,))) == 2  # row 7 has nothing to ask
    assert sorted(flaky[-1].asked) == ["Kite 3 over Rome", "Kite 44 over Rome"]
    rows = list(read_units(bad.folder))
    assert [row["raw"] for row in rows] == [f"Kite {i} over Rome" for i in range(330)]
    assert [row["raw"] for row in rows if row["status"] == FAILED] == ["Kite 7 over Rome"]
    assert sorted(record.rounds for record in records(bad.folder))[-3:] == [0, 1, 1]
    assert verify(bad.folder) == []


def test_an_engine_that_answers_nothing_stops_the_run(tmp_path, job_for, run_job, flaky) -> None:
    dead = {"type": "flaky_engine", "words": ["over"]}
    job = job_for(tmp_path / "out", engine=dead, give_up=20, retries=0)
    with pytest.raises(RuntimeError, match=r"fusion_engine: all 20 rows of .* failed, the last one with 'no answer'"):
        run_job(job, HERE)
    # row 7 is not asked, so that the first unit has 19: it stands
    assert [record.statuses[FAILED] for record in records(job.folder)] == [20]
    assert not any((job.work / "claims").iterdir())
    assert not list((tmp_path / "out" / "parquet").glob(".*"))
    patient = replace(job, give_up=None)
    run_job(patient, HERE)
    assert Counter(row["status"] for row in read_units(job.folder)) == {FAILED: 330}


def test_an_engine_that_is_gone_stops_the_run_at_once(tmp_path, job_for, run_job, flaky, monkeypatch) -> None:
    calls = []

    def gone(self: FlakyEngine, requests: Sequence[Request]) -> list[Answer]:
        calls.append(len(requests))
        raise ConnectionError("nobody listens")

    job = job_for(tmp_path / "out", engine={"type": "flaky_engine", "batch_size": 1})
    with monkeypatch.context() as patch:
        patch.setattr(FlakyEngine, "answer", gone)
        with pytest.raises(RuntimeError, match=r"fusion_engine: not reached 4 times in a row \(nobody listens\)"):
            run_job(job, HERE)
        assert calls == [1] * 4
        assert not list(records(job.folder))
        run_job(replace(job, give_up=None), HERE)
    assert Counter(row["status"] for row in read_units(job.folder)) == {FAILED: 330}


def test_rejected_rows_stay_with_their_reason(tmp_path, job_for, run_job) -> None:
    job = job_for(tmp_path / "out", filters={"short": {"type": "length_filter", "fewest": 30}})
    run_job(job, HERE)
    rows = list(read_units(job.folder, statuses=[REJECTED]))
    assert len(rows) == 329
    assert {row["reason"] for row in rows} == {"short"}
    assert rows[0]["fused"] == "Kite 0 over Rome"


def test_synthetic_captions_alone(tmp_path, job_for, run_job) -> None:
    job = job_for(tmp_path / "out", engine=None)
    run_job(job, HERE)
    rows = list(read_units(job.folder))
    assert rows[8]["fused"] == "a kite number 8."
    assert [row["reason"] for row in rows if row["status"] == FAILED] == ["no synthetic caption"]


def test_a_full_disk_names_the_key_and_leaves_no_half(tmp_path, job_for, run_job, monkeypatch) -> None:
    job = job_for(tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"out: .*file/out cannot be written to"):
        run_job(job_for(tmp_path / "file" / "out"), HERE)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("multimodal_zoo.files.flush", full)
        patch.setattr("multimodal_zoo.captions.run_manifest.flush", full)
        with pytest.raises(OSError, match=r"out: .*out cannot be written to .*No space left on device"):
            run_job(job, HERE)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    begin(job, build(job.source), 20)
    tasks, _ = open_tasks(job, build(job.source).units(20))
    with monkeypatch.context() as patch:
        patch.setattr("multimodal_zoo.captions.unit_files.atomic_file", full)
        with pytest.raises(OSError, match=r"out: .*out cannot be written to .*No space left"):
            list(HERE.run(job, tasks))
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]
    assert len(run_job(job, HERE)) == 17


def test_a_file_that_breaks_while_it_is_read_is_an_error_or_a_unit_of_its_own(tmp_path, job_for, run_job) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    texts = [f"kite {i}" for i in range(60)]
    table = pa.table({"raw": texts, "synthetic": texts})
    parquet.write_table(table, path, row_group_size=20, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    group = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    start = group.data_page_offset
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(bytes(content))
    source = {"type": "caption_source", "path": str(path)}
    with pytest.raises(ValueError, match=r"rows\.parquet"):
        run_job(job_for(tmp_path / "strict", source=source), HERE)
    job = job_for(tmp_path / "out", source={**source, "broken_files": "report"})
    assert len(run_job(job, HERE)) == 3
    assert [record.problem is None for record in records(job.folder)] == [True, False, True]
    assert len(list(read_units(job.folder))) == 40
    parquet.write_table(table, path, row_group_size=20, compression="zstd", use_dictionary=False)
    mended = replace(job, accepted=("source",))
    assert len(run_job(mended, HERE)) == 1
    assert len(list(read_units(job.folder))) == 60


def test_a_second_run_leaves_the_note_of_a_broken_file_to_its_workers(tmp_path, job_for) -> None:
    """Whoever tries again replaces the note; the run beside it takes that for done."""
    path = tmp_path / "broken.json"
    path.write_text(json.dumps([{"raw": f"Kite {i}", "synthetic": "a kite."} for i in range(30)])[:-1])
    job = job_for(tmp_path / "out", source={"type": "caption_source", "path": str(path), "broken_files": "report"})
    source = build(job.source)
    begin(job, source, 20)
    units = source.units(20)
    assert len(list(HERE.run(job, open_tasks(job, units)[0]))) == 3
    first, second = open_tasks(job, units)[0], open_tasks(job, units)[0]
    assert [record.problem is None for record in records(job.folder)] == [True, True, False]
    assert unfinished(job, first) == first == second
    assert [done.name for done in HERE.run(job, second)] == [units[-1].name]
    assert unfinished(job, first) == []
    assert list(HERE.run(job, first)) == []


def test_a_file_that_breaks_later_does_not_undo_a_finished_unit(tmp_path, job_for, run_job, flaky) -> None:
    path = tmp_path / "broken.jsonl"
    lines = [json.dumps({"url": f"u/{i}", "raw": f"Kite {i}", "synthetic": "a kite."}) + "\n" for i in range(40)]
    path.write_text("".join(lines))
    source = {"type": "caption_source", "path": str(path), "broken_files": "report"}
    engine = {"type": "flaky_engine", "words": ["3"]}
    job = job_for(tmp_path / "out", source=source, engine=engine, retries=0)
    opened = build(job.source, path="source")
    units = opened.units(20)
    begin(job, opened, 20)
    assert len(list(HERE.run(job, open_tasks(job, units)[0]))) == 2
    opened.close()
    stood = list(records(job.folder))
    path.write_text("".join(lines[:10]))
    again = open_tasks(job, units, (FAILED,))[0]
    with pytest.raises(ValueError, match=r"broken\.jsonl"):
        list(HERE.run(job, again))
    assert list(records(job.folder)) == stood
    assert verify(job.folder) == []
