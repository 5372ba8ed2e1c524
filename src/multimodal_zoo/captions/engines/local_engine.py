"""What engines that run a model in their own process have in common: settings, ids, batches by length, time."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.model_files import fingerprint
from multimodal_zoo.captions.engines.stopping import before_stop, require_layout, stops_of
from multimodal_zoo.captions.engines.texts import StopWords, Texts, prompt_ids, without_last
from multimodal_zoo.captions.hardware import Portions, device_of, dtype_of


class Ready(NamedTuple):
    """A model in memory.

    Attributes:
        texts: its tokenizer.
        write: continuations of prompts, none of them empty; with seeds, one for each, they are drawn.
        positions: most tokens of a prompt and its continuation.
    """

    texts: Texts
    write: Callable[[Sequence[list[int]], Ending, Sequence[int] | None], list[Continuation]]
    positions: int


@dataclass(frozen=True)
class Decoding:
    """How answers are written.

    Attributes:
        layout: `plain`, the answer continues the prompt; or `chat`, the prompt is what a user says.
        beams: 1 takes the likeliest token at every step, more search.
        length_penalty: of the search; see `BeamRules`.
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer and are no part of it.

    Raises:
        ValueError: a value that cannot be, with its key.
    """

    layout: str
    beams: int
    length_penalty: float
    max_new_tokens: int
    stop: tuple[str, ...]

    def __post_init__(self) -> None:
        require_layout(self.layout)
        require_least("fusion_engine", 1, beams=self.beams, max_new_tokens=self.max_new_tokens)

    def as_json(self) -> dict[str, Any]:
        """For the manifest of a run."""
        names = ("layout", "beams", "length_penalty", "max_new_tokens")
        return {**{name: getattr(self, name) for name in names}, "stop": list(self.stop)}


class LocalEngine(ABC):
    """An engine around a model in this process; it is read when the first text is counted or answered.

    Prompts of similar lengths go into one batch. A batch that does not fit into memory is halved, and no later one is
    larger than what fitted. Rows that are asked again, because their likeliest answer was refused, are drawn, each by a
    seed made of its prompt and attempt.

    Args:
        model: what the library that runs it finds it by; see the engines.
        layout: `plain`, the answer continues the prompt; or `chat`, the prompt is what a user says.
        beams: 1 for the likeliest token at every step; the published script searches with 3.
        length_penalty: sums of log-probabilities of beams are divided by the length to this power.
        max_new_tokens: most tokens of an answer; published: 80.
        stop: strings that end an answer and are no part of it.
        batch_size: prompts that are answered at once; halved where memory does not suffice.
        timeout: seconds that a batch may take, looked at before each new token; None for any.
        device: a torch device, or auto: a GPU where there is one.
        dtype: of the weights, or auto: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        FileNotFoundError, ValueError: no such model, or a value that cannot be.
    """

    #: The type of the engine, for its manifest and for errors.
    name: ClassVar[str]

    def __init__(
        self,
        model: str,
        *,
        layout: str = "plain",
        beams: int = 1,
        length_penalty: float = 1.0,
        max_new_tokens: int = 80,
        stop: Sequence[str] = (),
        batch_size: int = 64,
        timeout: float | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        require_least("fusion_engine", 1, batch_size=batch_size)
        if timeout is not None and timeout <= 0:
            raise ValueError(f"fusion_engine.timeout is {timeout}; it must be positive, or null for none")
        self.model, self.batch_size, self.timeout = model, batch_size, timeout
        self.decoding = Decoding(layout, beams, length_penalty, max_new_tokens, stops_of(stop))
        self.device = device_of(device, "fusion_engine")
        self.dtype = dtype_of(dtype, self.device, "fusion_engine")
        self.fingerprint = fingerprint(self._files())
        self._portions, self._closed = Portions(batch_size), False
        self._ready: Ready | None = None
        self._stop: StopWords | None = None

    @abstractmethod
    def _files(self) -> Iterable[Path]:
        """The files that the model is read from."""

    @abstractmethod
    def _loaded(self) -> Ready:
        """Read the model."""

    def describe(self) -> dict[str, Any]:
        """What decides the answers; the model is not read for it."""
        facts = {"engine": self.name, "model": self.model, "fingerprint": self.fingerprint, "dtype": self.dtype}
        return {**facts, **self.decoding.as_json()}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; strings of special tokens count as ordinary text."""
        known = self.ready().texts
        return [len(known.ids(text, special=False)) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last tokens."""
        return without_last(self.ready().texts, text, tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request; one that is too long for the model, or for the memory, has an error.

        Raises:
            TimeoutError: a batch took too long.
            RuntimeError: the engine is closed.
        """
        self.ready()
        answers = [Answer("")] * len(requests)
        for again in (False, True):
            alike = [number for number, one in enumerate(requests) if (one.attempt > 0) is again]
            for number, answer in zip(alike, self._answers([requests[number] for number in alike], again), strict=True):
                answers[number] = answer
        return answers

    def _answers(self, requests: Sequence[Request], again: bool) -> list[Answer]:
        """Answers to requests that are all made for the first time, or all again."""
        ready, answers = self.ready(), [Answer("")] * len(requests)
        rows = [prompt_ids(ready.texts, one, self.decoding.layout == "chat") for one in requests]
        fitting, most = [], ready.positions - self.decoding.max_new_tokens
        for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
            if 0 < len(rows[number]) <= most:
                fitting.append(number)
            else:
                answers[number] = Answer("", error=f"a prompt of {len(rows[number])} tokens; expected 1 to {most}")

        def written(batch: Sequence[int]) -> list[Continuation]:
            """Continuations of the rows of some numbers."""
            seeds = [seed_of(requests[number]) for number in batch] if again else None
            return self._written([rows[number] for number in batch], seeds)

        for batch, found in self._portions.done(fitting, written):
            for place, number in enumerate(batch):
                none = Answer("", error=f"no memory for a prompt of {len(rows[number])} tokens")
                answers[number] = none if found is None else self._answer(found[place])
        return answers

    def close(self) -> None:
        """Give the model's memory back."""
        self._ready, self._closed = None, True

    def ready(self) -> Ready:
        """The model, read when it is needed first.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError(f"{self.name} is closed")
        if self._ready is None:
            self._ready = self._loaded()
            self._stop = StopWords(self._ready.texts, self.decoding.stop) if self.decoding.stop else None
        return self._ready

    def _written(self, rows: Sequence[list[int]], seeds: Sequence[int] | None) -> list[Continuation]:
        """Continuations of a batch."""
        ready = self.ready()
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        return ready.write(rows, Ending(self.decoding.max_new_tokens, ready.texts.ends, self._stop, deadline), seeds)

    def _answer(self, written: Continuation) -> Answer:
        text = self.ready().texts.text(written.ids)
        cut = before_stop(text, self.decoding.stop)
        return Answer(text if cut is None else cut, written.ended, len(written.ids))


def seed_of(request: Request) -> int:
    """What the answer to a row that is asked again is drawn by: it depends on its prompt and attempt alone."""
    digest = hashlib.sha256(f"{request.attempt}\0{request.prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big")
