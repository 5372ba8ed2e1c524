"""`mmzoo fuse DATA [overrides]`: web and synthetic captions to fused ones; a later run goes on behind it."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from multimodal_zoo.captions.job import FusionJob, Task
    from multimodal_zoo.captions.progress import FusionProgress
    from multimodal_zoo.captions.sources import Unit
    from multimodal_zoo.captions.unit_files import UnitRecord

#: What a dry run asks instead of a model.
ECHO = {"type": "echo_engine", "batch_size": 1024}
#: Seconds after which a half-written file is nobody's any more, if other processes may be at work in the folder.
OLD = 3600.0


def run(config: DictConfig) -> float | None:
    """Fuse what the configuration names.

    A unit of rows appears whole or not at all; started again, the command goes on behind the units that are there.

    Args:
        config: see `conf/base/fuse.yaml`.

    Raises:
        FileNotFoundError, ValueError: no source, a value that does not fit, a folder begun with other settings.
        RuntimeError: units are left over.
    """
    import multimodal_zoo.captions.parts  # noqa: F401  # found there, no other room is searched, and torch stays out
    from multimodal_zoo.captions.job import begin, compare_engine, open_tasks
    from multimodal_zoo.captions.progress import FusionProgress
    from multimodal_zoo.registry import build

    again = _again(config.retry)
    job = job_of(config)
    runner = build(config.runner, path="runner")
    source = build(job.source, path="source")
    unit_rows, limit = _positive(config, "unit_rows"), config.limit
    if limit is not None:
        limit = _positive(config, "limit")
        unit_rows = min(unit_rows, limit)
    units = source.units(unit_rows)
    if not units:
        raise ValueError(f"source.path: {config.source.path} has no rows")
    begin(job, source, unit_rows)
    tasks, stand = open_tasks(job, units, again)
    if limit is not None:
        tasks = _limited(tasks, units, limit)
    source.close()
    if not tasks:
        compare_engine(job)  # workers do that where there is something to do
    _clean(job)
    before = sum((Counter(done.statuses) for done in stand), Counter())
    total = before.total() + sum(task.unit.rows for task in tasks)
    if stand:
        print(f"{len(stand):,} of {len(stand) + len(tasks):,} units are done, {before.total():,} rows", flush=True)
    progress = FusionProgress(total, before)
    with stopped_by_signals(progress), progress, closing(runner.run(job, tasks, progress.answered)) as results:
        for done in results:
            progress.add(done)
    _finish(job, tasks, progress, int(config.samples))
    return None


@contextmanager
def stopped_by_signals(progress: FusionProgress) -> Iterator[None]:
    """Let both signals that ask a process to end do so in order: units that are at work are given back.

    Raises:
        SystemExit: a signal came.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped after {progress.rows:,} rows; the same command goes on behind them", flush=True)
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def job_of(config: DictConfig) -> FusionJob:
    """The job that a configuration describes.

    Raises:
        ValueError: no source, or nothing to write.
    """
    from multimodal_zoo.captions.job import FusionJob

    if lacking := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{lacking[0]} has no value; give it one: {lacking[0]}=...")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if not plain["source"].get("path"):
        raise ValueError("source.path: nothing to fuse; give a folder, a file or a pattern: mmzoo fuse DATA out=FOLDER")
    engine, filters, folder = plain.get("fusion_engine") or None, plain.get("fusion_filters") or {}, str(plain["out"])
    if plain["dry_run"]:
        engine, filters, folder = ECHO, {}, f"{folder.rstrip('/')}-dry-run"
    paths = plain["source"]["path"]
    if Path(folder).resolve() in [Path(one).resolve() for one in ([paths] if isinstance(paths, str) else paths)]:
        raise ValueError(f"out is {folder}, which source.path names as well; choose another, one below it will do")
    return FusionJob(
        folder=str(Path(folder).resolve()),
        source=_source(plain["source"], engine is None, plain.get("captioner") is not None),
        prompt=plain["fusion_prompt"],
        engine=engine,
        filters=filters,
        captioner=plain.get("captioner"),
        formats=tuple(plain["formats"]),
        retries=_positive(plain, "retries", 0),
        give_up=None if plain["give_up"] is None else _positive(plain, "give_up"),
        accepted=tuple(plain["accept_changes"]),
    )


def _source(source: dict[str, Any], captions_only: bool, captioner: bool) -> dict[str, Any]:
    """The source, which asks of rows what nothing later adds, unless it says itself what a row must have."""
    path = source["path"]
    found = {**source, "path": [_whole(one) for one in path] if isinstance(path, list) else _whole(path)}
    rules = dict(source.get("rules") or {"type": "row_rules"})
    if rules.get("required") is None:
        raw, synthetic = ([] if captions_only else ["raw"]), ([] if captioner else ["synthetic"])
        rules["required"] = [*raw, *synthetic, *(["image"] if captioner and captions_only else [])]
    return {**found, "rules": rules}


def _whole(path: str) -> str:
    """A path that means the same in all processes; addresses and patterns stay what they are."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _again(retry: Any) -> tuple[str, ...]:
    from multimodal_zoo.captions.rows import FAILED, REJECTED

    words = tuple([retry] if isinstance(retry, str) else retry or [])
    for word in words:
        if word not in (FAILED, REJECTED):
            raise ValueError(f"retry: {word!r} rows are not run again; it may name {FAILED} and {REJECTED}")
    return words


def _positive(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    if int(config[key]) < least:
        raise ValueError(f"{key} is {config[key]}; it must be at least {least}")
    return int(config[key])


def _limited(tasks: Sequence[Task], units: Sequence[Unit], limit: int) -> list[Task]:
    """The tasks of the first units, up to a number of rows."""
    names, rows = set(), 0
    for unit in units:
        if rows + unit.rows > max(limit, units[0].rows):
            break
        rows += unit.rows
        names.add(unit.name)
    return [task for task in tasks if task.unit.name in names]


def _clean(job: FusionJob) -> None:
    """Delete what killed writers left, what may be another run's excepted."""
    from multimodal_zoo.captions.claims import Claims
    from multimodal_zoo.captions.unit_checks import remove_leftovers

    claims = Claims(job.work / "claims")
    remove_leftovers(job.folder, OLD if claims.holders() else 0.0)


def _finish(job: FusionJob, tasks: Sequence[Task], progress: FusionProgress, samples: int) -> None:
    """Make sure that all is done, and report it.

    Raises:
        RuntimeError: units are left over.
    """
    from multimodal_zoo.captions.job import unfinished
    from multimodal_zoo.captions.progress import in_time
    from multimodal_zoo.captions.report_page import write_report
    from multimodal_zoo.captions.speed import speed_of
    from multimodal_zoo.captions.unit_files import records

    left = unfinished(job, tasks)
    if left:
        raise RuntimeError(
            f"{len(left)} of {len(tasks)} units are not done, {left[0].unit.name} for one; what is done stays, and the "
            "same command goes on behind it"
        )
    _clean(job)
    print(f"{progress.rows:,} rows in {in_time(progress.wall)}: {progress.line()}")
    print(progress.stages())
    last = {"last_run_rows": progress.rows, "last_run_seconds": round(progress.wall, 3)}
    speed = {**speed_of(job.folder), **last}
    broken: list[UnitRecord] = []
    pages = write_report(Path(job.folder), _noting(records(job.folder), broken), rows_shown=samples, speed=speed)
    if broken:
        print(f"{len(broken)} units could not be read, {broken[0].name} for one: {broken[0].problem}")
    print(f"report: {pages['html']}")


def _noting(records: Iterable[UnitRecord], broken: list[UnitRecord]) -> Iterator[UnitRecord]:
    """Records as they come, while those of units that could not be read are put aside."""
    for record in records:
        if record.problem is not None:
            broken.append(record)
        yield record
