"""The contract of captioners: pictures in, one sentence about each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.hardware import Portions

if TYPE_CHECKING:
    from PIL.Image import Image

#: Rows that get a synthetic caption: those without one, or all with a picture.
WHEN = ("missing", "always")
#: Captions of some pictures.
Write = Callable[["Sequence[Image]"], list[str]]


class Captioner(Protocol):
    """What writes synthetic captions; made once in each process, used for many batches.

    Attributes:
        batch_size: pictures that it likes to get at once.
        when: `missing` for rows without a synthetic caption, `always` for all with a picture.
    """

    batch_size: int
    when: str

    def caption(self, images: Sequence[Image]) -> list[str]:
        """One caption for each picture (RGB, any sizes), in their order; it does not depend on the others.

        White space in it does not count: whoever asks folds it.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What decides its captions (model, hash, decoding, `when`), as plain JSON, for the manifest of a run."""
        ...

    def close(self) -> None:
        """Give the model's memory back; a captioner closed twice stays closed."""
        ...


class LocalCaptioner:
    """A captioner around a model in this process; the model is read when the first picture comes.

    A batch that does not fit into memory is halved, and no later one is larger than what fitted.

    Args:
        load: reads the model; the result writes about pictures.
        facts: what decides the captions, as plain JSON.
        batch_size: pictures that are written about at once, at most.
        when: one of `WHEN`.

    Raises:
        ValueError: no picture at once, or another `when`.
    """

    def __init__(
        self,
        load: Callable[[], Write],
        facts: dict[str, Any],
        batch_size: int,
        when: str,
    ) -> None:
        require_least("captioner", 1, batch_size=batch_size)
        if when not in WHEN:
            raise ValueError(f"captioner.when is {when!r}; expected one of {', '.join(WHEN)}")
        self.load, self.facts, self.batch_size, self.when = load, facts, batch_size, when
        self._write: Write | None = None
        self._portions, self._closed = Portions(batch_size), False

    def describe(self) -> dict[str, Any]:
        """What decides the captions; the model is not read for it."""
        return {**self.facts, "when": self.when}

    def caption(self, images: Sequence[Image]) -> list[str]:
        """See `Captioner`.

        Raises:
            RuntimeError: the captioner is closed.
            ImportError, FileNotFoundError, ValueError: the model cannot be read.
            MemoryError: not even one picture fits into memory.
        """
        if self._closed:
            raise RuntimeError("captioner: it is closed")
        if self._write is None:
            self._write = self.load()
        found: list[str] = []
        for _, texts in self._portions.done(images, self._write):
            if texts is None:
                raise MemoryError("captioner: no memory for a single picture; take a smaller model")
            found += texts
        return found

    def close(self) -> None:
        """See `Captioner`."""
        self._write, self._closed = None, True
