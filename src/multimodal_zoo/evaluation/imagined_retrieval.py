"""Visual embeddings that a model generates from texts, among those of the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.evaluation.features import Counter, batched, evaluating, finite
from multimodal_zoo.evaluation.ranking import inner_products, rank_summary, ranks, recall_at
from multimodal_zoo.evaluation.result import Cell, Result, Table
from multimodal_zoo.evaluation.samples import attribution_of, describe, numbered, size_of, skipped, usable_documents
from multimodal_zoo.evaluation.shots import Shots, in_context
from multimodal_zoo.inference.visual_drawing import VisualPainter
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.registry import EVALUATORS

#: The k of R@k.
PLACES = (1, 5)
#: How generated and true embeddings are compared.
KINDS = {"cosine": "cosine", "centred": "cosine, each side less its mean"}


def imagined(model: Emu, processor: Any, documents: Sequence[Document]) -> Tensor:
    """Visual embeddings behind documents and `[IMG]`, float32 (documents, tokens, visual_width) on the CPU.

    Args:
        model: in evaluation mode.
        processor: its processor.
        documents: what each picture is of: texts, or examples and a text.
    """
    return VisualPainter(model, processor, special=False).imagined(documents).float().cpu()


def encoded(model: Emu, images: CountedImages) -> Tensor:
    """Visual embeddings of pictures, one behind the other, where and how the model computes."""
    like = next(model.image_encoder.parameters())
    dtype = like.dtype if like.is_floating_point() else images.pixels.dtype
    return model.encode(CountedImages(images.pixels.to(like.device, dtype), images.counts))


@EVALUATORS.register_module(name="imagined_retrieval")
class ImaginedRetrieval:
    """Generate the visual embeddings of each text, and look for its picture among all by the cosine.

    All embeddings of a picture make one vector. Embeddings share a large mean, so that plain cosines are all near one;
    the figures `centred_*` are without each side's mean.

    Args:
        dataset: documents of one picture and one text; its pictures are the gallery. Pictures of equal texts count as
            right for each other.
        batch_size: texts or pictures at a time.
        shots: examples in front of each text, shown as text, then picture; None for none.
        ending: put behind each text, as in training.

    Raises:
        ValueError: a batch size below 1.
    """

    def __init__(self, dataset: Any, batch_size: int = 32, shots: Shots | None = None, ending: str = "") -> None:
        if batch_size < 1:
            raise ValueError(f"imagined_retrieval.batch_size is {batch_size}; expected 1 or more")
        self.dataset, self.batch_size, self.shots, self.ending = dataset, batch_size, shots, ending

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model that generates visual embeddings.

        Raises:
            TypeError: another model.
            ValueError: an empty dataset, or embeddings that are not finite.
        """
        if not isinstance(model, Emu) or not hasattr(processor, "drawing_prompt"):
            raise TypeError(f"imagined_retrieval needs an Emu and its processor, got {type(model).__name__}")
        documents = usable_documents(self.dataset)
        if self.shots is not None:
            self.shots.ready(model, device)
        made, true = [], []
        with evaluating(model), Counter("pictures", size_of(self.dataset)) as counter:
            for batch in batched(documents, self.batch_size):
                made.append(imagined(model, processor, self._asked(batch)))
                pixels = processor.images([one.image for one in batch])
                counts = (processor.image_tokens,) * len(batch)
                true.append(encoded(model, CountedImages(pixels, counts)).float().cpu().unflatten(0, (len(batch), -1)))
                counter.advance(len(batch))
        generated = finite(torch.cat(made).flatten(1), "generated")
        return self._result([one.text for one in documents], generated, finite(torch.cat(true).flatten(1), "image"))

    def _asked(self, documents: Sequence[Document]) -> list[Document]:
        asked = [Document([Text(one.text + self.ending)], one.meta) for one in documents]
        if self.shots is None or not self.shots.count:
            return asked
        found = []
        for some, one in zip(self.shots.chosen(documents), asked, strict=True):
            turned = [Document([*reversed(example.segments)]) for example in some]  # the text, then its picture
            found.append(in_context(turned, one))
        return found

    def _result(self, texts: Sequence[str], made: Tensor, true: Tensor) -> Result:
        labels = numbered(texts)
        sides = {"cosine": (made, true), "centred": (made - made.mean(0), true - true.mean(0))}
        metrics: dict[str, float] = {}
        rows: list[tuple[Cell, ...]] = []
        for kind, (one, other) in sides.items():
            queries, gallery = normalize(one, dim=-1), normalize(other, dim=-1)
            places = ranks(inner_products(queries, gallery), labels, labels)
            found = {**recall_at(places, PLACES), **rank_summary(places)}
            found["similarity"] = (queries * gallery).sum(dim=1).mean().item()
            metrics |= {f"{kind}_{name}": value for name, value in found.items()}
            rows.append((KINDS[kind], *found.values()))
        count = len(texts)
        chance = [min(1.0, k / count) for k in PLACES]
        rows.append(("chance", *chance, (count + 1) / 2, (count + 1) / 2, "-"))
        head = ("compared by", *(f"R@{k}" for k in PLACES), "mean rank", "median rank", "with the own picture")
        metrics["embedding_error"] = (made - true).square().mean().item()
        metrics["true_variance"] = true.var(0, unbiased=False).mean().item()
        table = Table(f"the own picture among {count} by the generated embeddings", head, rows)
        details = {
            "dataset": describe(self.dataset),
            "pictures": count,
            "texts": len(set(texts)),
            "shots": None if self.shots is None else f"{self.shots.count}, {self.shots.name}",
            "skipped": skipped(self.dataset),
            "attribution": attribution_of(self.dataset),
        }
        return Result("imagined_retrieval", metrics, [table], {}, details, ("centred_R@1", "centred_R@5"))
