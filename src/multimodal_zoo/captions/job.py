"""A run of caption fusion: what its workers know, what there is to do, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from multimodal_zoo.captions.run_manifest import settle
from multimodal_zoo.captions.unit_files import UnitRecord, check_formats, finished, note_of, record_of, undo

if TYPE_CHECKING:
    from multimodal_zoo.captions.sources import Source, Unit

#: The run's own notes in its folder; all other files are the same however the run went.
WORK = "work"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class FusionJob:
    """What every worker of a run knows: configurations of its parts, which each process builds for itself.

    Attributes:
        folder: where the results go; on a file system that all workers share.
        source: what is read.
        prompt: a `fusion_prompt`.
        engine: what answers the prompts; None writes the synthetic captions alone.
        filters: name -> filter.
        captioner: what writes synthetic captions; None leaves them as they are read.
        formats: what is written, of `parquet` and `webdataset`.
        retries: how often one row is asked again.
        give_up: a unit in which so many rows or more were asked and all failed stops the run: the engine is gone, not
            the rows. None never stops.
        accepted: dotted keys of the manifest that may have changed since the folder was begun.
    """

    folder: str
    source: Mapping[str, Any]
    prompt: Mapping[str, Any]
    engine: Mapping[str, Any] | None
    filters: Mapping[str, Any]
    captioner: Mapping[str, Any] | None = None
    formats: tuple[str, ...] = ("parquet", "webdataset")
    retries: int = 2
    give_up: int | None = 64
    accepted: tuple[str, ...] = ()

    @property
    def work(self) -> Path:
        """Where claims and seconds are noted."""
        return Path(self.folder) / WORK


@dataclass(frozen=True)
class Task:
    """A unit of work, and how.

    Attributes:
        unit: which rows.
        rounds: how often its rows will have been run again; 0 is the first time.
        again: statuses of the rows that are run again; the others stay as they are.
        broken: the note of an earlier run that it could not be read (`note_of`), after which it is tried again.
    """

    unit: Unit
    rounds: int = 0
    again: tuple[str, ...] = ()
    broken: tuple[int, int] | None = None

    def record(self, folder: str) -> UnitRecord | None:
        """What is noted of it, if it is done."""
        found = record_of(folder, self.unit.name)
        if found is None or found.rounds < self.rounds:
            return None
        if found.problem is not None and note_of(folder, self.unit.name) == self.broken:
            return None
        return found


@dataclass(frozen=True)
class Done:
    """One task that was done.

    Attributes:
        name: of the unit.
        rows: of the unit.
        statuses: how many of the unit's rows have which status.
        seconds: of each stage.
    """

    name: str
    rows: int
    statuses: Mapping[str, int]
    seconds: Mapping[str, float]


#: Told how many more rows an engine has answered, now and then.
Moving = Callable[[int], None]


class Runner(Protocol):
    """What has tasks done, by one process or many."""

    def run(self, job: FusionJob, tasks: Sequence[Task], moving: Moving) -> Iterator[Done]:
        """Each task as it is done; those that another run does meanwhile are left out."""
        ...


def begin(job: FusionJob, source: Source, unit_rows: int) -> None:
    """Note in the folder what it is made from, or make sure that it is the same as before.

    Engine and captioner are noted by the first worker that has built them: nobody else need load a model. Nothing is
    noted of settings that no worker could work with.

    Args:
        job: the run.
        source: its source.
        unit_rows: rows of a unit.

    Raises:
        ValueError: the folder was begun with something else, or a setting does not fit.
        OSError: it cannot be written to.
    """
    from multimodal_zoo import __version__
    from multimodal_zoo.captions.checks import Checks
    from multimodal_zoo.registry import build

    check_formats(job.formats)
    Checks(build(job.filters, path="fusion_filters"))
    facts = {
        "library": __version__,
        "source": source.describe(),
        "unit_rows": unit_rows,
        "prompt": build(job.prompt, path="fusion_prompt").describe(),
        "filters": dict(job.filters),
        "formats": list(job.formats),
        "retries": job.retries,
        "writes": "fused captions" if job.engine is not None else "synthetic captions",
    }
    try:
        # units of another size have other names: nothing that is done could stay
        settle(Path(job.folder) / MANIFEST, facts, job.accepted, fixed=("unit_rows",))
    except OSError as error:
        raise unwritable(job.folder, error) from error


def compare_engine(job: FusionJob) -> None:
    """Make sure that a folder in which nothing is left to do was made with this engine; no model is loaded for it.

    An engine that is not there any more is not asked: a finished folder needs none.

    Args:
        job: the run.

    Raises:
        ValueError: it was made with another one.
    """
    from multimodal_zoo.registry import build

    noted = Path(job.folder, MANIFEST).with_suffix(".engine.json")
    if job.engine is None or not noted.exists():
        return
    try:
        engine = build(job.engine, path="fusion_engine")
        facts = engine.describe()
    except (OSError, ImportError, RuntimeError):  # a server that answers with an error is one that is not there
        return
    engine.close()
    settle(noted, {"engine": facts}, job.accepted)


def unwritable(folder: str | Path, error: OSError) -> OSError:
    """The error for a folder of results that takes no more files."""
    return OSError(
        f"out: {folder} cannot be written to ({error}); what is done stays, and the same command goes on behind it"
    )


def open_tasks(job: FusionJob, units: Sequence[Unit], again: Sequence[str] = ()) -> tuple[list[Task], list[Done]]:
    """What is left to do of some units, and what is done.

    What could not be read is tried again: its file may have been mended. The note of it stays until a worker replaces
    it, as another run may be at work in the folder.

    Args:
        job: the run.
        units: all units of its source.
        again: rows of these statuses are run again where their unit is done.

    Raises:
        ValueError: the folder holds units that the source does not have.
    """
    names, rounds, broken, stand = {unit.name for unit in units}, {}, {}, {}
    foreign = []
    for name in finished(job.folder):
        note, record = note_of(job.folder, name), record_of(job.folder, name)
        if record is not None and record.problem is not None:
            if name in names:
                broken[name] = note
            else:  # the broken rest of a file that has been mended
                undo(job.folder, name)
        elif name not in names:
            foreign.append(name)
        elif record is not None and any(record.statuses.get(status) for status in again):
            rounds[name] = record.rounds + 1
        elif record is not None:
            stand[name] = Done(name, record.rows, record.statuses, {})
    if foreign:
        raise ValueError(
            f"out: {job.folder} holds {len(foreign)} units that the source does not have, {min(foreign)} for one; "
            "choose another out"
        )
    left = [unit for unit in units if unit.name not in stand]
    tasks = [Task(unit, rounds.get(unit.name, 0), tuple(again), broken.get(unit.name)) for unit in left]
    return tasks, list(stand.values())


def unfinished(job: FusionJob, tasks: Iterable[Task]) -> list[Task]:
    """The tasks that are not done."""
    return [task for task in tasks if task.record(job.folder) is None]
