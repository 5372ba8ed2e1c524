"""Pictures of what a model does, drawn again and again while it trains."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.skips import usable
from multimodal_zoo.evaluation.samples import documents_of, evenly, size_of
from multimodal_zoo.files import write_bytes
from multimodal_zoo.training.ema import find_ema
from multimodal_zoo.training.sharding import inside
from multimodal_zoo.training.steps import StepEnds

log = logging.getLogger(__name__)


def validation_documents(trainer: lightning.Trainer, count: int) -> list[Document]:
    """At most `count` documents, evenly spread over the validation data: the same in every run of a recipe.

    Of a stream they are the first ones; without validation data there are none.
    """
    reader = getattr(getattr(trainer, "datamodule", None), "validation", None)
    if reader is None:
        log.info("no validation data: no sample sheet")
        return []
    size = size_of(reader)
    if size and hasattr(reader, "__getitem__"):
        return list(usable(reader, evenly(size, count)))
    return list(islice(documents_of(reader), count))


class Sheet(Callback):
    """Writes `samples/step_<n>.png`, with the averaged weights where there is an average, and shows it to the loggers.

    Args:
        every_n_steps: 0 draws at the end only.
        send: hands a picture to a logger that shows pictures.
    """

    def __init__(self, every_n_steps: int, send: Callable[[Any, bytes, int], None]) -> None:
        self.every_n_steps = every_n_steps
        self._send = send
        self._drawn = -1
        self._ends = StepEnds()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A resumed step is drawn already."""
        self._ends.begin(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw when it is time."""
        if self._ends.over(trainer) and self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the final state."""
        self.draw(trainer, pl_module)

    def draw(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the sheet of the current step; every rank must call it, rank 0 writes."""
        step = trainer.global_step
        if step == self._drawn:
            return
        self._drawn = step
        average = find_ema(trainer)
        with average.applied(pl_module) if average else nullcontext():
            finish = inside(pl_module.model, lambda *_: self.prepare(trainer, pl_module), None)  # type: ignore[arg-type]
        if finish is None or not trainer.is_global_zero:
            return
        png = finish()
        write_bytes(Path(trainer.default_root_dir) / "samples" / f"step_{step:08d}.png", png)
        for logger in trainer.loggers:
            self._send(logger, png, step)

    @abstractmethod
    def prepare(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> Callable[[], bytes] | None:
        """What the model says, computed on every rank, and how the first makes a PNG of it; None without data."""
