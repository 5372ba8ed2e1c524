"""Seconds of the stages of fusion, taken around the parts as they are called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal_zoo.captions.checks import Checks, Verdict
    from multimodal_zoo.captions.engine import Answer, Engine, Request
    from multimodal_zoo.captions.rows import CaptionRow

#: In the order of a row's way. `prompt` is all of asking but the engine's and the filters' own.
STAGES = ("read", "caption", "prompt", "ask", "judge", "write")


class Stages:
    """Seconds of each stage since they were last taken."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count a block as a stage; what stages inside it take is not counted twice."""
        start, before = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            inside = sum(self.seconds.values()) - before
            self.seconds[stage] += time.perf_counter() - start - inside

    def take(self) -> dict[str, float]:
        """All seconds, and begin anew."""
        found = {stage: round(seconds, 6) for stage, seconds in self.seconds.items()}
        self.seconds = dict.fromkeys(STAGES, 0.0)
        return found


class EngineLostError(BaseException):
    """No engine was reached, call after call; no `Exception`, so that nobody takes it for the failure of some rows."""


class TimedEngine:
    """An engine whose answers are timed, and that is given up when it is not there any more.

    Args:
        engine: what answers.
        stages: where its seconds go.
        moving: told how many requests were answered.
        patience: calls in a row without a connection after which it is given up; None never gives up.
    """

    def __init__(
        self, engine: Engine, stages: Stages, moving: Callable[[int], None], patience: int | None = None
    ) -> None:
        self.engine, self.stages, self.moving, self.patience = engine, stages, moving, patience
        self._lost = 0
        self.batch_size = engine.batch_size

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return self.engine.describe()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return self.engine.count(texts)

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last tokens."""
        return self.engine.cut(text, tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers, timed.

        Raises:
            EngineLostError: there was no connection for the last time that patience allows.
        """
        try:
            with self.stages.time("ask"):
                answers = self.engine.answer(requests)
        except ConnectionError as error:
            self._lost += 1
            if self.patience is not None and self._lost >= self.patience:
                raise EngineLostError(str(error)) from error
            raise
        self._lost = 0
        self.moving(len(answers))
        return answers

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class TimedChecks:
    """Checks whose verdicts are timed.

    Args:
        checks: what judges.
        stages: where their seconds go.
    """

    def __init__(self, checks: Checks, stages: Stages) -> None:
        self.checks, self.stages = checks, stages

    def judge(self, row: CaptionRow, answer: Answer) -> Verdict:
        """The verdict, timed."""
        start = time.perf_counter()
        verdict = self.checks.judge(row, answer)
        self.stages.seconds["judge"] += time.perf_counter() - start
        return verdict
