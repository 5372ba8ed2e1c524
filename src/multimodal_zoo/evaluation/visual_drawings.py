"""Pictures that a visual decoder draws: from pictures' own embeddings, and from those that names give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.evaluation.drawing_sheet import drawing_sheet
from multimodal_zoo.evaluation.features import Counter, batched, evaluating, finite
from multimodal_zoo.evaluation.imagined_retrieval import encoded, imagined
from multimodal_zoo.evaluation.ranking import inner_products, rank_summary, ranks, recall_at
from multimodal_zoo.evaluation.reconstruction import psnr
from multimodal_zoo.evaluation.result import Cell, Picture, Result, Table
from multimodal_zoo.evaluation.samples import attribution_of, describe, evenly, numbered, size_of, usable_documents
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.registry import EVALUATORS

#: The k of R@k.
PLACES = (1, 5)
#: Ways of drawing, by the name of their figures.
WAYS = {"autoencoded": "from the picture's embeddings", "imagined": "from its name"}


@EVALUATORS.register_module(name="visual_drawings")
class VisualDrawings:
    """Draw each picture of a dataset again, once from its own visual embeddings and once from its name alone.

    A drawing is judged by the model's own eyes: its visual embeddings, each side less its mean, are compared with those
    of all pictures by the cosine, and the right picture should be the likest. `psnr` compares pixels, in decibels.

    Args:
        dataset: documents of one picture and one text.
        batch_size: drawings at a time.
        ending: put behind each text, as in training.
        steps: of denoising; None takes the decoder's.
        guidance: scale of guidance away from an empty picture, or from no text; None takes the decoder's.
        shown: rows on the sheet.
        seed: of the first drawing, the others have those behind it.

    Raises:
        ValueError: a batch size below 1 or a negative number of rows.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 50,
        ending: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        shown: int = 10,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or shown < 0:
            raise ValueError(f"visual_drawings: batch_size is {batch_size} and shown {shown}; expected 1 and 0 or more")
        self.dataset, self.batch_size, self.ending = dataset, batch_size, ending
        self.steps, self.guidance, self.shown, self.seed = steps, guidance, shown, seed

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Draw, and compare.

        Raises:
            TypeError: another model than an Emu, or one without a visual decoder.
            ValueError: an empty dataset, or embeddings that are not finite.
        """
        if not isinstance(model, Emu) or model.visual_decoder is None:
            raise TypeError(
                f"visual_drawings needs an Emu with a visual decoder (model.visual_decoder), got {type(model).__name__}"
            )
        documents = usable_documents(self.dataset)
        pixels = processor.images([one.image for one in documents])
        drawn: dict[str, list[Tensor]] = {way: [] for way in WAYS}
        with evaluating(model), torch.no_grad(), Counter("drawings", size_of(self.dataset)) as counter:
            nothing = self._seen(model, processor, torch.zeros_like(pixels[:1]))
            silence = imagined(model, processor, [Document([])])
            for numbers in batched(range(len(documents)), self.batch_size):
                some = pixels[numbers[0] : numbers[-1] + 1]
                asked = [Document([Text(documents[number].text + self.ending)]) for number in numbers]
                seeds = [self.seed + number for number in numbers]
                own, made = self._seen(model, processor, some), imagined(model, processor, asked)
                drawn["autoencoded"].append(self._drawn(model, own, nothing, seeds))
                drawn["imagined"].append(self._drawn(model, made, silence, seeds))
                counter.advance(len(numbers))
            true = self._seen(model, processor, pixels)
            found = {way: torch.cat(some) for way, some in drawn.items()}
            again = {way: self._read(model, processor, some) for way, some in found.items()}
        return self._result(documents, _plain(processor, pixels), found, (true, again))

    def _drawn(self, model: Emu, condition: Tensor, nothing: Tensor, seeds: Sequence[int]) -> Tensor:
        decoder: Any = model.visual_decoder
        found: Tensor = decoder.decode(condition, nothing, steps=self.steps, guidance=self.guidance, seeds=seeds)
        return found.float().cpu()

    @staticmethod
    def _seen(model: Emu, processor: Any, pixels: Tensor) -> Tensor:
        counts = (processor.image_tokens,) * len(pixels)
        return encoded(model, CountedImages(pixels, counts)).float().cpu().unflatten(0, (len(pixels), -1))

    def _read(self, model: Emu, processor: Any, drawn: Tensor) -> Tensor:
        """Embeddings of drawings (rows, 3, side, side) between 0 and 1."""
        transform = processor.transform
        resized = interpolate(drawn, size=model.image_size, mode="bicubic", antialias=True).clamp(0, 1)
        shift, scale = torch.as_tensor(transform.mean).view(3, 1, 1), torch.as_tensor(transform.std).view(3, 1, 1)
        return self._seen(model, processor, (resized - shift) / scale)

    def _result(
        self,
        documents: Sequence[Document],
        pictures: Tensor,
        drawn: dict[str, Tensor],
        embeddings: tuple[Tensor, dict[str, Tensor]],
    ) -> Result:
        labels, count = numbered([one.text for one in documents]), len(documents)
        gallery = _centred(embeddings[0], "image")
        metrics: dict[str, float] = {}
        rows: list[tuple[Cell, ...]] = []
        for way, title in WAYS.items():
            places = ranks(inner_products(_centred(embeddings[1][way], way), gallery), labels, labels)
            smaller = interpolate(pictures, size=drawn[way].shape[-1], mode="bicubic", antialias=True).clamp(0, 1)
            decibels = float(psnr(drawn[way], smaller).mean())
            found = {**recall_at(places, PLACES), **rank_summary(places), "psnr": decibels}
            metrics |= {f"{way}_{name}": value for name, value in found.items()}
            rows.append((title, *found.values()))
        rows.append(("chance", *(min(1.0, k / count) for k in PLACES), (count + 1) / 2, (count + 1) / 2, "-"))
        head = ("drawn", *(f"R@{k}" for k in PLACES), "mean rank", "median rank", "PSNR")
        details = {
            "dataset": describe(self.dataset),
            "pictures": count,
            "attribution": attribution_of(self.dataset),
        }
        table = Table(f"the drawing's own picture among {count}, by visual embeddings", head, rows)
        headline = tuple(f"{way}_R@5" for way in WAYS)
        return Result("visual_drawings", metrics, [table], self._figures(documents, drawn), details, headline)

    def _figures(self, documents: Sequence[Document], drawn: dict[str, Tensor]) -> dict[str, Picture]:
        if not self.shown:
            return {}
        numbers = evenly(len(documents), self.shown)
        columns: dict[str, list[tuple[Any, str]]] = {"picture": [(documents[one].image, "") for one in numbers]}
        for way, title in WAYS.items():
            columns[title] = [(_array(drawn[way][one]), "") for one in numbers]
        png = drawing_sheet([documents[one].text for one in numbers], columns)
        return {"drawings": Picture(png, "Pictures, drawn from their visual embeddings, and drawn from their names")}


def _plain(processor: Any, pixels: Tensor) -> Tensor:
    """Pixels of the image encoder as they are between 0 and 1."""
    shift, scale = (torch.as_tensor(one).view(3, 1, 1) for one in (processor.transform.mean, processor.transform.std))
    return (pixels * scale + shift).clamp(0, 1)


def _centred(embeddings: Tensor, what: str) -> Tensor:
    flat = finite(embeddings.flatten(1), what)
    return normalize(flat - flat.mean(0), dim=-1)


def _array(picture: Tensor) -> Any:
    return (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
