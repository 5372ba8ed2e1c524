"""A sheet of pictures that a model draws for fixed validation texts, and what it writes about the true ones."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from multimodal_zoo.data.captions import CaptionSampler, TextCaption
from multimodal_zoo.data.documents import Codes, Document
from multimodal_zoo.training.samples import send_sheet
from multimodal_zoo.training.sheets import Sheet, validation_documents


class DrawingSheet(Sheet):
    """Writes `samples/step_<n>.png`: validation texts, a drawing for each, the true picture, and the model's own words.

    The true picture is what the visual tokenizer makes of its codes, the best that could be drawn.

    Args:
        every_n_steps: 0 draws at the end only.
        pictures: rows of the sheet.
        prompt: makes the prompt of a document; None takes its text.
        guidance: scale of classifier-free guidance; None takes the published one.
        seed: of the drawings, the same in each sheet.
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        pictures: int = 8,
        prompt: CaptionSampler | None = None,
        guidance: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps, send_sheet)
        self.pictures = pictures
        self.prompt = prompt or TextCaption()
        self.guidance = guidance
        self.seed = seed
        self._documents: list[Document] | None = None

    def prepare(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> Callable[[], bytes] | None:
        """Draw and name; every rank takes part, since the model may be sharded."""
        documents = self._choose(trainer)
        if not documents:
            return None
        png = self.sheet(pl_module.model, documents)  # type: ignore[arg-type]
        return lambda: png

    def sheet(self, model: nn.Module, documents: list[Document]) -> bytes:
        """The sheet of some documents with codes and texts, as PNG."""
        from multimodal_zoo.evaluation.drawing_sheet import drawing_sheet
        from multimodal_zoo.evaluation.features import evaluating
        from multimodal_zoo.inference.chat import answer
        from multimodal_zoo.inference.text_to_image import draw

        prompts = [self.prompt(document, Random(self.seed)) for document in documents]
        asked = [Document([segment for segment in document.segments if isinstance(segment, Codes)], document.meta)
                 for document in documents]  # fmt: skip
        with evaluating(model):
            drawn = draw(model, prompts, guidance=self.guidance, seed=self.seed)
            said = answer(model, asked, max_new_tokens=24)
            true = [self._decoded(model, document.segments[0].codes) for document in asked]  # type: ignore[union-attr]
        columns = {
            "drawn": [(one.image, "") for one in drawn],
            "true picture, as it is named": list(zip(true, said, strict=True)),
        }
        return drawing_sheet(prompts, columns)

    @staticmethod
    def _decoded(model: Any, codes: np.ndarray) -> Any:
        device = next(model.parameters()).device
        batch = torch.from_numpy(np.asarray(codes, dtype=np.int64))[None]
        return model.processor.pictures(model.decode(batch.to(device)).float().cpu())[0]

    def _choose(self, trainer: lightning.Trainer) -> list[Document]:
        if self._documents is None:
            self._documents = validation_documents(trainer, self.pictures)
        return self._documents
