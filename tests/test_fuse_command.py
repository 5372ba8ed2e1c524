"""`mmzoo fuse` and `mmzoo plan fuse`: from the command line to the report, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from multimodal_zoo import cli
from multimodal_zoo.captions.plan import REFERENCE_RATE, FusionPlan, Rate, Tokens
from multimodal_zoo.captions.unit_reading import read_units
from multimodal_zoo.commands.fuse import job_of
from multimodal_zoo.commands.plan_fuse import fusion_plan
from multimodal_zoo.config import compose


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"url": f"u/{i}", "raw": f"Kite {i} over Rome", "synthetic": f"a kite number {i}."} for i in range(50)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def fuse(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `mmzoo fuse` on the rows into the folder `out`; what it returns."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, data: Path = rows) -> int:
        try:
            return cli.main(["fuse", str(data), "fusion_engine=template", *overrides])
        except SystemExit as end:
            return int(end.code or 0)

    return run


def test_fuse_reports_and_goes_on(fuse, tmp_path, capsys) -> None:
    assert fuse("out=out", "unit_rows=20", "limit=40") == 0
    told = capsys.readouterr().out
    assert "40 rows in" in told
    assert "rows/s of a worker by stage: read" in told
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"] == report["speed"]["rows"] == 40
    assert set(report["speed"]["stages"]) == {"read", "caption", "prompt", "ask", "judge", "write"}
    assert "Rome" in (tmp_path / "out" / "report.html").read_text()
    assert fuse("out=out", "unit_rows=20") == 0
    assert "2 of 3 units are done, 40 rows" in capsys.readouterr().out
    assert len({row["key"] for row in read_units(tmp_path / "out")}) == 50
    assert fuse("out=out", "unit_rows=20") == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_other_settings_are_refused_until_they_are_taken(fuse, capsys) -> None:
    assert fuse("out=out") == 0
    assert fuse("out=out", "retries=1") == 1
    told = capsys.readouterr().err
    assert "retries: was 2, is 1" in told
    assert "accept_changes=[retries]" in told
    assert fuse("out=out", "retries=1", "accept_changes=[retries]") == 0


def test_a_finished_folder_is_not_that_of_another_engine(fuse, capsys) -> None:
    assert fuse("out=out") == 0
    assert fuse("out=out", "fusion_engine.most_words=7") == 1
    told = capsys.readouterr().err
    assert "engine.most_words: was" in told
    assert "accept_changes=[engine]" in told
    assert fuse("out=out", "fusion_engine=llama_cpp", "fusion_engine.model=gone.gguf") == 0
    assert fuse("out=out") == 0


def test_a_dry_run_asks_nothing_and_lies_beside(fuse, tmp_path) -> None:
    assert fuse("out=out", "dry_run=true") == 0
    assert not (tmp_path / "out").exists()
    found = list(read_units(tmp_path / "out-dry-run"))
    assert [row["fused"] for row in found] == [row["raw"] for row in found]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["captioner=zoo"], "captioner.model has no value; give it one: captioner.model=..."),
        (["out=rows.jsonl"], "out is rows.jsonl, which source.path names as well"),
        (["retries=-1"], "retries is -1; it must be at least 0"),
        (["retry=fused"], "retry: 'fused' rows are not run again"),
        (["formats=[webdataset]"], "formats is ['webdataset']"),
        (["runner.processes=0"], "runner.processes is 0"),
        (["source.raw=alt"], "no column 'alt'"),
        (["unit_rows=0"], "unit_rows is 0"),
        (["limit=0"], "limit is 0"),
    ],
)
def test_what_cannot_be_is_named_by_its_key(fuse, overrides, told, capsys) -> None:
    assert fuse("out=out", *overrides) == 1
    assert told in capsys.readouterr().err


def test_sources_that_are_none(fuse, tmp_path, capsys) -> None:
    assert fuse("out=out", data=tmp_path / "nowhere") == 1
    assert "source.path" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert fuse("out=out", data=empty) == 1
    assert "source.path" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["fuse", "fusion_engine=template"])
    assert "mmzoo fuse DATA out=FOLDER" in capsys.readouterr().err


def test_a_folder_that_is_none(fuse, tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    assert fuse("out=file") == 1
    assert "out: " in capsys.readouterr().err


def test_what_a_row_must_have_depends_on_what_is_done(rows) -> None:
    def required(*overrides: str) -> list[str]:
        job = job_of(compose("base/fuse", [f"source.path={rows}", "fusion_engine=template", *overrides]))
        return job.source["rules"]["required"]

    assert required() == ["raw", "synthetic"]
    assert required("fusion_engine=none") == ["synthetic"]
    assert required("source.rules.required=[raw]") == ["raw"]


def test_torch_stays_out_of_runs_that_need_none(rows, tmp_path) -> None:
    words = ["fuse", str(rows), f"out={tmp_path / 'out'}", "fusion_engine=echo", "fusion_filters=none"]
    code = f"import sys; from multimodal_zoo.cli import main; main({words!r}); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "False"


def test_a_plan_states_the_published_speed_and_makes_none_up(capsys) -> None:
    assert cli.main(["plan", "fuse", "rows=120e6"]) == 0
    told = capsys.readouterr().out
    assert "32,000" in told
    assert "not known" in told
    plan = fusion_plan({"rows": "120e6"})
    assert round(plan.reference_hours) == 32000
    assert (plan.hours, plan.device_hours, plan.money) == (None, None, None)


def test_hours_and_money_of_a_plan() -> None:
    plan = fusion_plan({"rows": "7200", "captions_per_second": "0.5", "devices": "4", "price_per_hour": "3"})
    assert (plan.device_hours, plan.hours, plan.money) == (4.0, 1.0, 12.0)
    assert plan.reference_hours == pytest.approx(7200 / REFERENCE_RATE / 3600)
    assert json.loads(json.dumps(plan.as_dict()))["hours"] == 1.0


def test_a_plan_reads_what_a_run_measured(fuse, tmp_path, rows) -> None:
    assert fuse("out=out") == 0
    speed = json.loads((tmp_path / "out" / "report.json").read_text())["speed"]
    plan = fusion_plan({"rows": "1e6", "run": "out", "data": str(rows), "sample": "30"}, ["fusion_engine=template"])
    assert plan.rate.captions_per_second == speed["rows_per_worker_second"]
    assert plan.rate.bytes_per_row == pytest.approx(next((tmp_path / "out" / "parquet").iterdir()).stat().st_size / 50)
    assert "template_engine" in plan.rate.source
    assert plan.tokens.source == "30 rows of the data"
    from multimodal_zoo.registry import build

    job = job_of(compose("base/fuse", [f"source.path={rows}", "fusion_engine=template"]))
    lengths = [len(build(job.prompt).fill(f"Kite {i} over Rome", f"a kite number {i}.").split()) for i in range(30)]
    assert plan.tokens.prompt == round(sum(lengths) / 30)
    again = fusion_plan({"rows": "1e6", "run": "out/report.json"})
    assert again.rate.captions_per_second == plan.rate.captions_per_second


def test_operations_of_a_decoder() -> None:
    options = {"rows": "1e6", "model": "smollm2_135m", "tflops": "100", "utilisation": "0.2", "batch_size": "8"}
    plan = fusion_plan(options)
    assert plan.model is not None
    assert plan.model.parameters == 134_515_008
    # keys and values: 30 layers, 3 heads of 64, two bytes; 138 + 32 tokens
    assert plan.model.cache_bytes == 170 * 30 * 2 * 3 * 64 * 2
    assert plan.model.memory == 2 * 134_515_008 + 8 * plan.model.cache_bytes
    assert plan.rate.captions_per_second == pytest.approx(100e12 * 0.2 / plan.model.flops)
    assert not plan.rate.measured


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs rows=NUMBER"),
        (["rows=1.5"], "rows=1.5: expected a whole number"),
        (["rows=10", "captions_per_second=2", "run=x"], "captions_per_second and run are 2 speeds"),
        (["rows=10", "captions_per_second=0"], "captions_per_second=0.0: expected more than 0"),
        (["rows=10", "tflops=100"], "needs model=DECODER"),
        (["rows=10", "run=nowhere"], "run=nowhere: nothing is there"),
        (["rows=10", "model=smollm3"], "closest: smollm2_135m"),
        (["rows=10", "prefix_tokens=200"], "prefix_tokens=200: expected at most prompt_tokens=138"),
        (["rows=10", "fusion_engine=echo"], "with data=FOLDER"),
        (["rows=10", "data=x", "prompt_tokens=3"], "prompt_tokens and data are two"),
    ],
)
def test_plans_that_cannot_be(words, told, capsys) -> None:
    assert cli.main(["plan", "fuse", *words]) == 1
    assert told in capsys.readouterr().err


def test_a_plan_of_few_rows_is_a_plan() -> None:
    plan = FusionPlan(1, Rate(2.0, "as given"), Tokens())
    assert plan.device_hours == pytest.approx(0.5 / 3600)
    with pytest.raises(ValueError, match=r"devices=0"):
        FusionPlan(1, Rate(2.0, "as given"), devices=0)


def test_a_source_in_the_home_folder_and_when_to_give_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["source.path='~/rows.jsonl'", "fusion_engine=template"]
    assert job_of(compose("base/fuse", words)).source["path"] == str(tmp_path / "rows.jsonl")
    assert job_of(compose("base/fuse", [*words, "give_up=null"])).give_up is None
    with pytest.raises(ValueError, match="give_up is 0; it must be at least 1"):
        job_of(compose("base/fuse", [*words, "give_up=0"]))
