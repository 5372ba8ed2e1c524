"""The contract of fusion engines: prompts in, texts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Request:
    """What is asked of an engine for one row.

    Attributes:
        prompt: the filled prompt, whole.
        raw: the web caption as it stands in the prompt.
        synthetic: the synthetic captions as they stand in the prompt.
        attempt: 0, and 1, 2, ... for a row whose answer was not accepted; an engine that samples draws anew for each.
    """

    prompt: str
    raw: str
    synthetic: tuple[str, ...]
    attempt: int = 0


@dataclass(frozen=True)
class Answer:
    """What an engine says to one request.

    Attributes:
        text: the answer, not yet stripped or checked; empty if there is none.
        ended: whether the model ended by itself (False: it was cut at the limit of new tokens).
        tokens: new tokens, as far as the engine counts them.
        error: why there is no answer; None if there is one.
    """

    text: str
    ended: bool = True
    tokens: int = 0
    error: str | None = None


class Engine(Protocol):
    """What answers prompts; made once in each process, used for many batches."""

    #: Requests that it likes to get at once.
    batch_size: int

    def describe(self) -> dict[str, Any]:
        """What decides its answers (model, revision or hash, decoding), as plain JSON, for the manifest of a run."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out; words where the engine has no tokens."""
        ...

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last `tokens` tokens."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request, in their order; what one row cannot have is an `Answer` with `error`.

        Raises:
            TimeoutError, ConnectionError, RuntimeError: nothing could be answered; the caller retries with fewer.
        """
        ...

    def close(self) -> None:
        """Give memory, threads and connections back; an engine closed twice stays closed."""
        ...
