"""A sheet of fixed validation pictures with the captions that the model finds for them, drawn again and again."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.evaluation.samples import evenly
from multimodal_zoo.nn.modes import evaluation_mode
from multimodal_zoo.training.sheets import Sheet, validation_documents

#: A picture and its caption.
Pair = tuple[Any, str]


class SampleSheet(Sheet):
    """Writes `samples/step_<n>.png`: pictures that are not trained on, each with its best captions of a gallery.

    Args:
        every_n_steps: 0 draws at the end only.
        pictures: rows of the sheet.
        captions: best captions shown for each picture.
        gallery: validation pairs whose captions compete, the pictures' own among them.
    """

    def __init__(self, every_n_steps: int = 500, pictures: int = 8, captions: int = 3, gallery: int = 64) -> None:
        super().__init__(every_n_steps, send_sheet)
        self.pictures = pictures
        self.captions = captions
        self.gallery = gallery
        self._pairs: list[Pair] | None = None

    def prepare(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> Callable[[], bytes] | None:
        """Compare pictures with captions."""
        pairs = self._choose(trainer)
        model = pl_module.model
        processor = getattr(model, "processor", None)
        if not pairs or processor is None:
            return None
        scores = similarities(model, processor, pairs, self.pictures, pl_module.device)  # type: ignore[arg-type]
        return lambda: self._picture(scores, pairs)

    def _choose(self, trainer: lightning.Trainer) -> list[Pair]:
        if self._pairs is None:
            self._pairs = [(one.image, one.text) for one in validation_documents(trainer, self.gallery)]
        return self._pairs

    def _picture(self, scores: Tensor, pairs: list[Pair]) -> bytes:
        from multimodal_zoo.evaluation.pictures import image_queries

        shown, texts = spread(pairs, self.pictures), captions_of(pairs)
        best = scores.topk(min(self.captions, len(texts)), dim=1).indices.tolist()
        found = [[texts[column] for column in columns] for columns in best]
        grades = [["hit" if t == own else "miss" for t in row] for (_, own), row in zip(shown, found, strict=True)]
        return image_queries([image for image, _ in shown], found, grades)


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` pairs, evenly spread."""
    return [pairs[number] for number in evenly(len(pairs), count)]


def captions_of(pairs: Sequence[Pair]) -> list[str]:
    """The distinct captions, in order."""
    return list(dict.fromkeys(text for _, text in pairs))


@torch.no_grad()
def similarities(
    model: nn.Module, processor: Any, pairs: Sequence[Pair], pictures: int, device: torch.device
) -> Tensor:
    """How well the distinct captions fit a sheet's pictures, as the model compares them: (pictures, captions)."""
    from multimodal_zoo.encoders.matching import matching_of

    with evaluation_mode(model):
        images = processor.images([image for image, _ in spread(pairs, pictures)]).to(device)
        ids = processor.texts(captions_of(pairs)).to(device)
        matching = matching_of(model)
        image, text = matching.encode_image(model, images), matching.encode_text(model, ids)
        return matching.image_scores(normalize(image, dim=-1), normalize(text, dim=-1)).float().cpu()


def send_sheet(logger: Any, png: bytes, step: int) -> None:
    """Hand a picture to the loggers that show pictures."""
    if isinstance(logger, TensorBoardLogger):
        import numpy as np
        from PIL import Image

        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        logger.experiment.add_image("samples", pixels, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        from PIL import Image

        logger.log_image("samples", [Image.open(io.BytesIO(png))], step=step)
