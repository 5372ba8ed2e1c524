"""One worker of a run: it claims units, fuses their rows and writes them, until none is left."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.captions.job import MANIFEST, Done, FusionJob, Moving, Task, unwritable
from multimodal_zoo.captions.rows import FAILED, FUSED, CaptionRow, FusedRow
from multimodal_zoo.captions.run_manifest import settle
from multimodal_zoo.captions.sources import BrokenFileError
from multimodal_zoo.captions.stages import EngineLostError, Stages, TimedChecks, TimedEngine
from multimodal_zoo.captions.statistics import Statistics
from multimodal_zoo.captions.unit_checks import is_whole
from multimodal_zoo.captions.unit_files import UnitRecord, record_of, undo, write_broken_unit, write_unit
from multimodal_zoo.captions.unit_reading import read_unit
from multimodal_zoo.files import write_text

if TYPE_CHECKING:
    from multimodal_zoo.captions.claims import Claims

logger = logging.getLogger(__name__)

#: Seconds between two looks at units that others hold.
PAUSE = 0.2
#: Calls in a row without a connection after which an engine is gone; engines of servers try several times in each.
PATIENCE = 4
#: Rows that are held at once, with their pictures; more if the engine likes larger batches.
CHUNK = 1024


class TakenOverError(RuntimeError):
    """Another worker took the unit over, after this one had slept."""


class Worker:
    """What fuses units, one at a time; made once in each process.

    Args:
        job: the run.
        claims: of this process.
        moving: told how many rows the engine has answered.

    Raises:
        ValueError: the folder was begun with another engine or captioner.
    """

    def __init__(self, job: FusionJob, claims: Claims, moving: Moving = lambda rows: None) -> None:
        import multimodal_zoo.captions.parts  # noqa: F401  # found there, no other room is searched, and torch stays out
        from multimodal_zoo.captions.checks import Checks
        from multimodal_zoo.registry import build

        self.job, self.claims, self.stages = job, claims, Stages()
        self.source = build(job.source, path="source")
        self.prompt = build(job.prompt, path="fusion_prompt")
        self.checks = TimedChecks(Checks(build(job.filters, path="fusion_filters")), self.stages)
        self.captioner = None if job.captioner is None else build(job.captioner, path="captioner")
        self.engine: TimedEngine | None = None
        if self.captioner is not None:
            self._settle("captioner", self.captioner.describe())
        if job.engine is not None:
            patience = None if job.give_up is None else PATIENCE
            self.engine = TimedEngine(build(job.engine, path="fusion_engine"), self.stages, moving, patience)
            self._settle("engine", self.engine.describe())
        self.instruction = self.prompt.fill("", "")
        self.chunk = max(CHUNK, self.engine.batch_size if self.engine else 0)

    def _settle(self, part: str, facts: dict[str, Any]) -> None:
        """Note what a part says of itself, or make sure that it is what the folder was begun with."""
        path = Path(self.job.folder, MANIFEST).with_suffix(f".{part}.json")
        settle(path, {part: facts}, self.job.accepted)

    def work(self, tasks: Sequence[Task], first: int = 0) -> Iterator[Done]:
        """Do tasks until all are done, by this worker or by others; what others are at is waited for, for they may die.

        Args:
            tasks: the same in all workers.
            first: where this one begins, so that each has a stretch of its own.

        Yields:
            What this worker has done.
        """
        waiting = [*tasks[first:], *tasks[:first]]
        while waiting:
            held = []
            for task in waiting:
                if task.record(self.job.folder) is not None:
                    continue
                if not self.claims.take(task.unit.name):
                    held.append(task)
                elif done := self._claimed(task):
                    yield done
                elif task.record(self.job.folder) is None:
                    held.append(task)
            if len(held) == len(waiting):
                time.sleep(PAUSE)
            waiting = held

    def _claimed(self, task: Task) -> Done | None:
        """Do a task that this worker holds; None if it has been done just before, or taken over since."""
        finished = False
        try:
            done = None
            if task.record(self.job.folder) is None:
                done = self._done(task)
                while not self._whole(task):
                    done = self._done(task)
            finished = True
            return done
        except TakenOverError as error:
            logger.warning("%s", error)
            return None
        finally:
            self.claims.release(task.unit.name, finished)

    def _whole(self, task: Task) -> bool:
        """Whether the files of a unit are one worker's alone; two may put them in place at once where one had slept.

        Both look when they have ended, so that whoever is the last sees what stays, and undo what is mixed.

        Raises:
            TakenOverError: it is, and the unit is the other one's, who writes it again.
        """
        name = task.unit.name
        if not self.claims.inherited(name) or is_whole(self.job.folder, name):
            return True
        undo(self.job.folder, name)
        self._require_claim(task)
        return False

    def _done(self, task: Task) -> Done:
        try:
            with self.stages.time("write"):
                record = self._written(task)
            done = Done(task.unit.name, record.rows, record.statuses, self.stages.take())
            note = {"rows": done.rows, "seconds": done.seconds}
            write_text(self.job.work / "seconds" / f"{task.unit.name}.{task.rounds}.json", json.dumps(note) + "\n")
        except OSError as error:
            raise unwritable(self.job.folder, error) from error
        return done

    def _written(self, task: Task) -> UnitRecord:
        if task.unit.problem is not None:
            return write_broken_unit(self.job.folder, task.unit, task.unit.problem)
        try:
            return self._all_rows(task)
        except BrokenFileError as error:
            stands = record_of(self.job.folder, task.unit.name)  # of an earlier round: more than a note of the problem
            if self.source.broken_files != "report" or (stands is not None and stands.problem is None):
                raise
            return write_broken_unit(self.job.folder, task.unit, str(error))

    def _all_rows(self, task: Task) -> UnitRecord:
        return write_unit(
            self.job.folder,
            task.unit,
            self._fused(task),
            formats=self.job.formats,
            kinds=self.source.kinds(),
            statistics=Statistics(self.instruction),
            rounds=task.rounds,
            still=lambda: self._require_claim(task),
        )

    def _require_claim(self, task: Task) -> None:
        """Make sure that the unit is still this worker's.

        Raises:
            TakenOverError: it has another one by now; what it writes is left to that one.
        """
        if not self.claims.mine(task.unit.name):
            raise TakenOverError(f"unit {task.unit.name} was taken over by another worker; its result stands")

    def _fused(self, task: Task) -> Iterator[FusedRow]:
        """The rows of a unit, as the writer takes them: only a part of them is ever held.

        Raises:
            RuntimeError: the engine answers nothing at all any more.
        """
        rows = iter(self.source.read(task.unit))
        before = self._before(task)
        asked = failed = 0
        while True:
            with self.stages.time("read"):
                chunk = self._chunk(rows, task)
                stand = self._standing(chunk, before, task.again)
            if not chunk:
                break
            fresh = iter(self._ask([row for row, kept in zip(chunk, stand, strict=True) if kept is None]))
            for kept in stand:
                one = kept or next(fresh)
                if kept is None and one.row.problem is None:
                    asked, failed = asked + 1, failed + (one.status == FAILED)
                yield one
            if failed == asked:
                self._require_answers(task, failed, one)

    def _chunk(self, rows: Iterator[CaptionRow], task: Task) -> list[CaptionRow]:
        """The next rows of a unit.

        Raises:
            BrokenFileError: its file is gone, or cannot be read here.
        """
        try:
            return list(islice(rows, self.chunk))
        except OSError as error:
            raise BrokenFileError(f"source.path: {task.unit.file} cannot be read: {error}") from error

    def _before(self, task: Task) -> Iterator[FusedRow] | None:
        """The rows of an earlier round; None if this is the first one, or the last one was killed while it wrote."""
        record = record_of(self.job.folder, task.unit.name) if task.rounds else None
        return None if record is None else read_unit(self.job.folder, record)

    @staticmethod
    def _standing(
        rows: Sequence[CaptionRow], before: Iterator[FusedRow] | None, again: Sequence[str]
    ) -> list[FusedRow | None]:
        """What stands of an earlier round, carrying what the source carries; None for a row that is to be asked."""
        if before is None:
            return [None] * len(rows)
        found = zip(rows, islice(before, len(rows)), strict=True)
        return [
            None if old.status in again else replace(old, row=replace(old.row, image=row.image, extra=row.extra))
            for row, old in found
        ]

    def _ask(self, rows: list[CaptionRow]) -> list[FusedRow]:
        from multimodal_zoo.captions.asking import ask
        from multimodal_zoo.captions.captioning import captioned

        if self.captioner is not None:
            with self.stages.time("caption"):
                rows = captioned(rows, self.captioner)
        if self.engine is None:
            return [_synthetic(row) for row in rows]
        try:
            with self.stages.time("prompt"):
                return ask(self.engine, self.prompt, rows, self.checks, self.job.retries)
        except EngineLostError as error:
            raise RuntimeError(
                f"fusion_engine: not reached {PATIENCE} times in a row ({error}); the unit is left for the next run "
                "(give_up=null writes such rows as failed and goes on)"
            ) from error

    def _require_answers(self, task: Task, failed: int, last: FusedRow) -> None:
        """Stop when an engine answers nothing at all any more."""
        if self.engine is not None and self.job.give_up is not None and failed >= self.job.give_up:
            raise RuntimeError(
                f"fusion_engine: all {failed} rows of unit {task.unit.name} failed, the last one with {last.reason!r}; "
                "the unit is left for the next run (give_up=null writes such rows as failed and goes on)"
            )

    def close(self) -> None:
        """Give claims, engine and captioner back."""
        self.claims.close()
        for part in (self.engine, self.captioner, self.source):
            if part is not None and hasattr(part, "close"):
                part.close()


def _synthetic(row: CaptionRow) -> FusedRow:
    """A row whose synthetic caption is all that is wanted."""
    if row.synthetic:
        return FusedRow(row, row.synthetic[0], FUSED, attempts=0)
    return FusedRow(row, "", FAILED, row.problem or "no synthetic caption", attempts=0)
