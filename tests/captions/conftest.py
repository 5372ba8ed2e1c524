"""What tests of whole runs share: captions in a file, jobs that fuse them, folders compared byte by byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multimodal_zoo.captions.parts  # noqa: F401  # no other room is searched for parts then
from multimodal_zoo.captions.job import WORK, FusionJob, begin, open_tasks
from multimodal_zoo.registry import build

#: A prompt without options: what the runs of these tests ask does not matter.
PROMPT = {"type": "fusion_prompt", "template": "Web: {raw}\nModel: {synthetic}\nBoth:"}
UNIT_ROWS = 20


@pytest.fixture
def caption_file(tmp_path: Path) -> Path:
    """330 rows, each with a key of its own, one of them without a synthetic caption."""
    path = tmp_path / "rows.jsonl"
    rows = [{"url": f"u/{i}", "raw": f"Kite {i} over Rome", "synthetic": f"a kite number {i}."} for i in range(330)]
    rows[7]["synthetic"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def job_for(caption_file: Path) -> Callable[..., FusionJob]:
    """A job that echoes the rows of `caption_file` into a folder; keywords replace what it is made of."""

    def make(folder: Path, **others: Any) -> FusionJob:
        given: dict[str, Any] = {
            "source": {"type": "caption_source", "path": str(caption_file)},
            "prompt": PROMPT,
            "engine": {"type": "echo_engine", "batch_size": 16},
            "filters": {},
        }
        return FusionJob(folder=str(folder), **{**given, **others})

    return make


@pytest.fixture
def run_job() -> Callable[..., list[str]]:
    """Does all that is left of a job by a runner; the names of the units that were done."""

    def run(job: FusionJob, runner: Any, again: tuple[str, ...] = ()) -> list[str]:
        source = build(job.source, path="source")
        begin(job, source, UNIT_ROWS)
        tasks, _ = open_tasks(job, source.units(UNIT_ROWS), again)
        source.close()
        return [done.name for done in runner.run(job, tasks)]

    return run


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a run's folder by its path, without the run's own notes and its report, which tells the time."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        named = {path.relative_to(folder).as_posix(): path for path in files}
        return {name: path.read_bytes() for name, path in named.items() if not name.startswith((f"{WORK}/", "report."))}

    return read
