"""Image-text retrieval: recall at 1, 5 and 10 in both directions, exactly and by concept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.encoders.matching import matching_of
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.ranking import (
    PairScores,
    best,
    given,
    inner_products,
    interval,
    rank_summary,
    ranks,
    recall_at,
)
from multimodal_zoo.evaluation.result import Cell, Picture, Result, Table
from multimodal_zoo.evaluation.samples import (
    Samples,
    attribution_of,
    describe,
    evenly,
    numbered,
    pick_images,
    read,
    skipped,
    text_embeddings,
)
from multimodal_zoo.evaluation.views import resized
from multimodal_zoo.registry import EVALUATORS

DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}


def both_ways(model: nn.Module, images: Tensor, texts: Tensor, device: torch.device) -> dict[str, PairScores]:
    """How well each text fits each image and each image each text, as the model compares them.

    Args:
        model: its `matching` decides; without one the cosine of embeddings.
        images: (images, ...) normalised features on the CPU.
        texts: (texts, ...) normalised features on the CPU.
        device: where tokens are compared; vectors stay on the CPU.
    """
    matching = matching_of(model)
    if matching.vectors:
        return {"image_to_text": inner_products(images, texts), "text_to_image": inner_products(texts, images)}
    with torch.inference_mode():
        of_images, of_texts = matching.scores(images.to(device), texts.to(device))
    return {"image_to_text": given(of_images.cpu()), "text_to_image": given(of_texts.cpu())}


def ranks_both_ways(
    scores: dict[str, PairScores], image_of_text: Tensor, labels: Tensor | None = None
) -> dict[str, Tensor]:
    """Rank of the first hit of each query, in both directions.

    Args:
        scores: what `both_ways` returns; an image may have several texts.
        image_of_text: (texts,) the image of each text.
        labels: (images,) numbers; images of one number count as the same. None: each image is its own.

    Returns:
        `image_to_text` (images,) and `text_to_image` (texts,), 0 for a hit in first place. An image query hits when
        any of its texts is among the first k, as in CLIP_benchmark.
    """
    labels = torch.arange(scores["image_to_text"].queries) if labels is None else labels
    text_labels = labels[image_of_text]
    return {
        "image_to_text": ranks(scores["image_to_text"], labels, text_labels),
        "text_to_image": ranks(scores["text_to_image"], text_labels, labels),
    }


def retrieval_metrics(ranks: dict[str, Tensor], places: Sequence[int], infix: str = "") -> dict[str, float]:
    """Recalls per direction (`image_to_text_R@1`, ...), their means over both (`R@1`) and over all (`mean_recall`).

    Args:
        ranks: what `ranks_both_ways` returns.
        places: the k of R@k.
        infix: goes between direction and figure: `concept_` gives `image_to_text_concept_R@1`.
    """
    recalls = {direction: recall_at(r, places) for direction, r in ranks.items()}
    metrics = {f"{d}_{infix}{name}": value for d, found in recalls.items() for name, value in found.items()}
    both = {f"{infix}R@{k}": sum(r[f"R@{k}"] for r in recalls.values()) / len(recalls) for k in places}
    return {**both, **metrics, f"{infix}mean_recall": sum(both.values()) / len(both)}


@EVALUATORS.register_module(name="retrieval")
class Retrieval:
    """Find the text of an image among all texts, and the image of a text among all images.

    Args:
        dataset: documents of one image and its texts.
        concept: a metadata key; documents of equal value also count as found in the figures `concept_*`
            (man, woman and person variants of one emoji look alike). None scores exact matches only.
        places: the k of R@k.
        batch_size: images, and texts, per forward pass.
        examples: queries of each direction on the picture; 0 draws none.
        resize: `shorter_crop`, `squash` or `pad`; None for the processor's own.
    """

    def __init__(
        self,
        dataset: Any,
        concept: str | None = None,
        places: Sequence[int] = (1, 5, 10),
        batch_size: int = 64,
        examples: int = 6,
        resize: str | None = None,
    ) -> None:
        if not places or min(places) < 1:
            raise ValueError(f"places: R@k needs at least one k, each 1 or more, got {list(places)}")
        self.dataset = dataset
        self.concept = concept
        self.places = tuple(places)
        self.batch_size = batch_size
        self.examples = examples
        self.resize = resize

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model.

        Raises:
            ValueError: an empty dataset, an image without a text, embeddings that are NaN.
        """
        if self.resize is not None:
            processor = resized(processor, self.resize)
        samples = read(model, processor, self.dataset, batch_size=self.batch_size, device=device)
        texts = text_embeddings(model, processor, samples.texts, batch_size=self.batch_size, device=device)
        scores = both_ways(model, normalize(samples.images, dim=-1), normalize(texts, dim=-1), device)
        exact = ranks_both_ways(scores, samples.image_of_text)
        metrics = retrieval_metrics(exact, self.places)
        for direction, found in exact.items():
            metrics.update({f"{direction}_{name}": value for name, value in rank_summary(found).items()})
        tables = [self._table("exact match", exact)]
        concepts = None
        if self.concept is not None:
            concepts = numbered(samples.column(self.concept, self.dataset))
            by_concept = ranks_both_ways(scores, samples.image_of_text, concepts)
            metrics.update(retrieval_metrics(by_concept, self.places, "concept_"))
            tables.append(self._table(f"hit if the {self.concept} agrees", by_concept))
        return Result(
            name="retrieval",
            metrics=metrics,
            tables=tables,
            figures=self._figures(samples, scores, concepts),
            details={
                "dataset": describe(self.dataset),
                "images": len(samples.images),
                "texts": len(texts),
                "published_images": list(getattr(self.dataset, "sizes", ())),
                "resize": self.resize or "",
                "chance_R@1": 1 / len(samples.images),
                "skipped": skipped(self.dataset),
                "attribution": attribution_of(self.dataset),
            },
            headline=tuple(f"{d}_R@{k}" for d in DIRECTIONS for k in self.places[:2]),
        )

    def _table(self, title: str, ranks: dict[str, Tensor]) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for direction, found in ranks.items():
            low, high = interval(recall_at(found, [self.places[0]])[f"R@{self.places[0]}"], len(found))
            recalls = recall_at(found, self.places).values()
            summary = rank_summary(found)
            bounds = f"{low:.3f}-{high:.3f}"
            rows.append((DIRECTIONS[direction], len(found), *recalls, bounds, summary["median_rank"]))
        first = f"R@{self.places[0]}, 95 % interval"
        return Table(title, ("direction", "queries", *(f"R@{k}" for k in self.places), first, "median rank"), rows)

    def _figures(self, samples: Samples, scores: dict[str, PairScores], concepts: Tensor | None) -> dict[str, Picture]:
        if not self.examples:
            return {}
        labels = torch.arange(len(samples.images)) if concepts is None else concepts
        asked = torch.tensor(evenly(len(samples.texts), self.examples))
        _, found_images = best(scores["text_to_image"].take(asked), 5)
        shown = samples.image_of_text[asked]
        _, found_texts = best(scores["image_to_text"].take(shown), 5)
        owners = samples.image_of_text[found_texts]
        gallery = pick_images(self.dataset, {*found_images.flatten().tolist(), *shown.tolist()})

        def grades(owner: Tensor, query: Tensor) -> list[list[str]]:
            """How each found item relates to its query."""
            exact, related = owner == query[:, None], labels[owner] == labels[query][:, None]
            named = {(True, True): "hit", (False, True): "related", (False, False): "miss"}
            return [
                [named[pair] for pair in zip(e, r, strict=True)]
                for e, r in zip(exact.tolist(), related.tolist(), strict=True)
            ]

        by_text = pictures.text_queries(
            [samples.texts[number] for number in asked.tolist()],
            [[gallery[number] for number in row] for row in found_images.tolist()],
            grades(found_images, shown),
        )
        by_image = pictures.image_queries(
            [gallery[number] for number in shown.tolist()],
            [[samples.texts[number] for number in row] for row in found_texts.tolist()],
            grades(owners, shown),
        )
        key = "green: the right one" + ("" if concepts is None else f", amber: another of the same {self.concept}")
        return {
            "text_to_image": Picture(by_text, f"Query text and its five nearest pictures ({key})"),
            "image_to_text": Picture(by_image, f"Query picture and its five nearest texts ({key})"),
        }
