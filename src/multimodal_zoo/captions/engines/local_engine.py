"""What engines that run a model in their own process have in common: ids, batches by length, memory and time."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.stopping import before_stop, require_layout, require_least
from multimodal_zoo.captions.engines.texts import StopWords, Texts, prompt_ids, without_last

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")


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

    layout: str = "plain"
    beams: int = 1
    length_penalty: float = 1.0
    max_new_tokens: int = 80
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_layout(self.layout)
        require_least(1, beams=self.beams, max_new_tokens=self.max_new_tokens)

    def as_json(self) -> dict[str, Any]:
        """For the manifest of a run."""
        names = ("layout", "beams", "length_penalty", "max_new_tokens")
        return {**{name: getattr(self, name) for name in names}, "stop": list(self.stop)}


class LocalEngine:
    """An engine around a model in this process; it is read when the first text is counted or answered.

    Prompts of similar lengths go into one batch. A batch that does not fit into memory is halved, and no later one is
    larger than what fitted. Rows that are asked again, because their likeliest answer was refused, are drawn, each by a
    seed made of its prompt and attempt.

    Args:
        load: reads the model.
        facts: what decides the answers besides the decoding, as plain JSON.
        decoding: how answers are written.
        batch_size: requests that are answered at once, at most.
        timeout: seconds that a batch may take, looked at before each new token; None for any.

    Raises:
        ValueError: no request at once, or no time.
    """

    def __init__(
        self,
        load: Callable[[], Ready],
        facts: dict[str, Any],
        decoding: Decoding,
        batch_size: int,
        timeout: float | None = None,
    ) -> None:
        require_least(1, batch_size=batch_size)
        if timeout is not None and timeout <= 0:
            raise ValueError(f"fusion_engine.timeout is {timeout}; it must be positive, or null for none")
        self.load, self.facts, self.decoding = load, facts, decoding
        self.batch_size, self.timeout = batch_size, timeout
        self._fits, self._closed = batch_size, False
        self._ready: Ready | None = None
        self._stop: StopWords | None = None

    def describe(self) -> dict[str, Any]:
        """What decides the answers; the model is not read for it."""
        return {**self.facts, **self.decoding.as_json()}

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
        waiting, most = [], ready.positions - self.decoding.max_new_tokens
        for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
            if 0 < len(rows[number]) <= most:
                waiting.append(number)
            else:
                answers[number] = Answer("", error=f"a prompt of {len(rows[number])} tokens; expected 1 to {most}")
        while waiting:
            batch, waiting = waiting[: self._fits], waiting[self._fits :]
            seeds = [seed_of(requests[number]) for number in batch] if again else None
            found = self._written([rows[number] for number in batch], seeds)
            if found is None and len(batch) > 1:
                self._fits, waiting = (len(batch) + 1) // 2, batch + waiting
                logger.warning("no memory for %d prompts at once; going on with %d", len(batch), self._fits)
                continue
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
            raise RuntimeError(f"{self.facts.get('engine', 'this engine')} is closed")
        if self._ready is None:
            self._ready = self.load()
            self._stop = StopWords(self._ready.texts, self.decoding.stop) if self.decoding.stop else None
        return self._ready

    def _written(self, rows: Sequence[list[int]], seeds: Sequence[int] | None) -> list[Continuation] | None:
        """Continuations of a batch; None where there is no memory for it."""
        ready = self.ready()
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        ending = Ending(self.decoding.max_new_tokens, ready.texts.ends, self._stop, deadline)
        try:
            return ready.write(rows, ending, seeds)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        free_memory()  # here the error, and with it all that it holds on to, is gone
        return None

    def _answer(self, written: Continuation) -> Answer:
        text = self.ready().texts.text(written.ids)
        cut = before_stop(text, self.decoding.stop)
        return Answer(text if cut is None else cut, written.ended, len(written.ids))


def seed_of(request: Request) -> int:
    """What the answer to a row that is asked again is drawn by: it depends on its prompt and attempt alone."""
    digest = hashlib.sha256(f"{request.attempt}\0{request.prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big")


def device_of(device: str) -> str:
    """The torch device that `fusion_engine.device` means: auto is a GPU where there is one.

    Raises:
        ValueError: a device that torch does not know, or that is not here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"fusion_engine.device is {device!r}; expected auto, cpu, cuda or cuda:NUMBER") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"fusion_engine.device is {device!r}, and torch finds no GPU here")
    return device


def dtype_of(dtype: str, device: str) -> str:
    """The type of weights that `fusion_engine.dtype` means: auto is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ValueError: another type.
    """
    if dtype == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise ValueError(f"fusion_engine.dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return dtype


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the processor or of an accelerator, is used up."""
    import torch

    said = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in said)


def free_memory() -> None:
    """Give what an accelerator's allocator keeps for later back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
