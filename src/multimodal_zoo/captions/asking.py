"""Asking an engine for the fused captions of some rows, until each has one or a reason why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from multimodal_zoo.captions.checks import Verdict
from multimodal_zoo.captions.engine import Answer, Engine, Request
from multimodal_zoo.captions.prompts import Filled, FusionPrompt
from multimodal_zoo.captions.rows import FAILED, REJECTED, CaptionRow, FusedRow

logger = logging.getLogger(__name__)

#: The flag of rows whose captions imitate the prompt, with `fusion_prompt.imitations=refuse`.
IMITATION = "imitation"


class Judge(Protocol):
    """What looks at answers; `checks.Checks` is one."""

    def judge(self, row: CaptionRow, answer: Answer) -> Verdict:
        """The verdict on one answer to one row."""
        ...


@dataclass(slots=True)
class _Task:
    """One row on its way: its number, what is asked, tokens that its captions lost, what was said last."""

    number: int
    request: Request
    words_cut: int
    said: str | None = None


def ask(
    engine: Engine, prompt: FusionPrompt, rows: Sequence[CaptionRow], checks: Judge, retries: int = 2
) -> list[FusedRow]:
    """Every row once, in order, whatever the engine does.

    Requests are sorted by length and go out in batches of `engine.batch_size`. A batch that raises or is answered
    wrongly is halved until the row that it fails for is alone; while nothing is reachable (ConnectionError) it stays
    whole. A row that fails, or whose answer a filter wants anew, is asked `retries` times again, unless the answer is
    the same for the second time: then the engine does not draw. `FusedRow.attempts` and `Request.attempt` count these,
    not the batches that failed for a neighbour, so that an outage changes nothing in the result.

    An engine that never returns cannot be interrupted from here: those that wait for others have time limits of their
    own, and raise TimeoutError.

    Args:
        engine: what answers.
        prompt: what is asked.
        rows: in any order; those with a `problem` are not asked and come back as failed.
        checks: what judges answers.
        retries: how often a row is asked again.

    Raises:
        ValueError: `retries` below 0.
    """
    if retries < 0:
        raise ValueError(f"retries is {retries}; it must be at least 0")
    return _Asking(engine, prompt, rows, checks, retries).results()


class _Asking:
    """The state of one call of `ask`."""

    def __init__(
        self, engine: Engine, prompt: FusionPrompt, rows: Sequence[CaptionRow], checks: Judge, retries: int
    ) -> None:
        self.engine, self.prompt, self.rows, self.checks, self.retries = engine, prompt, rows, checks, retries
        self.done: list[FusedRow | None] = [None] * len(rows)
        self.again: list[_Task] = []

    def results(self) -> list[FusedRow]:
        """Ask until nothing is left."""
        tasks = self._tasks()
        while tasks:
            size = max(1, self.engine.batch_size)
            for start in range(0, len(tasks), size):
                self._batch(tasks[start : start + size])
            tasks, self.again = self.again, []
        return [one for one in self.done if one is not None]

    def _tasks(self) -> list[_Task]:
        """Filled and shortened prompts, those of similar length side by side; what cannot be asked is done."""
        filled: list[tuple[int, Filled]] = []
        for number, row in enumerate(self.rows):
            problem = row.problem
            if problem is None:
                one = self.prompt.prepare(row.raw, row.synthetic)
                if one.raw or one.synthetic:
                    filled.append((number, one))
                    continue
                problem = "no caption"
            self.done[number] = FusedRow(row, "", FAILED, problem, attempts=0)
        if self.prompt.imitations == "refuse":
            filled = [pair for pair in filled if not self._refused(*pair)]
        totals = [len(one.prompt) for _, one in filled]
        if self.prompt.limit is not None:
            filled, totals = self._fitted(filled)
        order = sorted(range(len(filled)), key=totals.__getitem__)
        return [_task(*filled[place]) for place in order]

    def _refused(self, number: int, filled: Filled) -> bool:
        found = next(filter(None, map(self.prompt.imitation, (filled.raw, *filled.synthetic))), None)
        if found is not None:
            self.done[number] = FusedRow(self.rows[number], "", REJECTED, IMITATION, (IMITATION,), attempts=0)
        return found is not None

    def _fitted(self, filled: list[tuple[int, Filled]]) -> tuple[list[tuple[int, Filled]], list[int]]:
        """The prompts within the limit, and their tokens; all are counted at once, as tokenizers like it."""
        counted: Sequence[int | None]
        try:
            counted = self.engine.count([one.prompt for _, one in filled])
        except Exception as error:
            logger.debug("counting tokens of %d prompts together failed: %s", len(filled), error)
            counted = [None] * len(filled)
        kept, totals = [], []
        for (number, one), known in zip(filled, counted, strict=True):
            try:
                total = self.engine.count([one.prompt])[0] if known is None else known
                fitted = self.prompt.fitted(one, total, self.engine.count, self.engine.cut)
            except Exception as error:
                self._fail(number, _said(error), 0)
                continue
            if not fitted.fits:
                self._fail(number, f"the prompt alone has more than fusion_prompt.limit={self.prompt.limit} tokens", 0)
                continue
            kept.append((number, fitted))
            totals.append(min(total, self.prompt.limit or total))
        return kept, totals

    def _batch(self, tasks: list[_Task]) -> None:
        """Have a batch answered; one that fails as a whole in halves."""
        waiting, unreachable = [tasks], 0
        while waiting:
            batch = waiting.pop()
            try:
                answers = self._answers(batch)
            except ConnectionError as error:
                unreachable += 1
                if unreachable <= self.retries:
                    waiting.append(batch)
                    continue
                for task in batch:
                    self._fail(task.number, _said(error), task.request.attempt + 1, task.words_cut)
            except Exception as error:
                if len(batch) > 1:
                    logger.debug("a batch of %d failed: %s", len(batch), error)
                    half = len(batch) // 2
                    waiting += [batch[half:], batch[:half]]
                else:
                    self._judged(batch[0], Answer("", error=_said(error)))
            else:
                for task, answer in zip(batch, answers, strict=True):
                    self._judged(task, answer)

    def _answers(self, batch: list[_Task]) -> Sequence[Answer]:
        answers = self.engine.answer([task.request for task in batch])
        if len(answers) != len(batch):
            raise RuntimeError(f"the engine gave {len(answers)} answers to {len(batch)} requests")
        return answers

    def _judged(self, task: _Task, answer: Answer) -> None:
        """Settle a row by its answer, or note it for another round."""
        row, attempt = self.rows[task.number], task.request.attempt
        try:
            verdict = self.checks.judge(row, answer)
            text = answer.text.strip()
        except Exception as error:  # an answer of a wrong type, or a filter that cannot read this one
            verdict, text = Verdict(FAILED, f"malformed answer: {_said(error)}", again=True), ""
        repeated = verdict.status == REJECTED and task.said == text
        if verdict.again and attempt < self.retries and not repeated:
            task.said = text if verdict.status == REJECTED else None
            task.request = replace(task.request, attempt=attempt + 1)
            self.again.append(task)
            return
        fused = "" if verdict.status == FAILED else text
        self.done[task.number] = FusedRow(
            row, fused, verdict.status, verdict.reason, verdict.flags, attempt + 1, task.words_cut
        )

    def _fail(self, number: int, reason: str, attempts: int, words_cut: int = 0) -> None:
        self.done[number] = FusedRow(self.rows[number], "", FAILED, reason, attempts=attempts, words_cut=words_cut)


def _task(number: int, filled: Filled) -> _Task:
    return _Task(number, Request(filled.prompt, filled.raw, filled.synthetic), filled.cut)


def _said(error: Exception) -> str:
    """An exception as the reason of a row, on one line of bounded length."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
