"""Zero-shot classification: how well pictures and videos find their class vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.data.transforms import choose
from multimodal_zoo.encoders.matching import matching_of
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.ranking import given, interval, ranks, recall_at
from multimodal_zoo.evaluation.result import Picture, Result, Table
from multimodal_zoo.evaluation.samples import Samples, attribution_of, describe, read, skipped
from multimodal_zoo.evaluation.views import read_views
from multimodal_zoo.evaluation.workspace import Workspace, share
from multimodal_zoo.registry import EVALUATORS


def confusion(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Counts of (true class, predicted class): (classes, classes)."""
    return torch.bincount(target * classes + predicted, minlength=classes * classes).view(classes, classes)


def accuracies(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Top-1, top-5 and the mean recall over the classes that occur; of equal scores the earlier class comes first.

    Args:
        logits: (images, classes).
        target: (images,) class numbers.

    Returns:
        fractions `top1`, `top5` (with fewer than five classes: the share among them all) and `mean_per_class`.
    """
    classes = logits.shape[1]
    hits = recall_at(ranks(given(logits), target, torch.arange(classes, device=target.device)), (1, 5))
    counts = confusion(logits.argmax(dim=1), target, classes)
    support = counts.sum(dim=1)
    recalls = counts.diagonal().double() / support.clamp(min=1)
    return {
        "top1": hits["R@1"],
        "top5": hits["R@5"],
        "mean_per_class": recalls[support > 0].mean().item(),
    }


@EVALUATORS.register_module(name="zero_shot_classification")
class ZeroShotClassification:
    """Classify pictures or videos by the nearest class vector: top-1, top-5, mean recall per class, confusion matrix.

    With several `resizes`, each is measured (`squash_top1`, ...) and the figures without a prefix are those of the
    better one, as EVA-CLIP's tables have them.

    Args:
        dataset: documents with a class.
        classes: a part that gives class names and vectors (`class_prompts`, `dataset_prompts`, `class_texts`).
        label: the metadata key of the class: its name, or its number in the order of the classes.
        batch_size: pictures, and texts, per forward pass.
        resizes: ways of resizing (`shorter_crop`, `squash`, `pad`); None for the processor's own.
        judged_by: the figure that decides which way is better: `top1`, or `top1_top5` (the mean of both, for Kinetics).
    """

    def __init__(
        self,
        dataset: Any,
        classes: Any,
        label: str,
        batch_size: int = 64,
        resizes: Sequence[str] | None = None,
        judged_by: str = "top1",
    ) -> None:
        choose(judged_by, dict.fromkeys(("top1", "top5", "top1_top5", "mean_per_class")), "judged_by")
        self.dataset = dataset
        self.classes = classes
        self.label = label
        self.batch_size = batch_size
        self.resizes = list(resizes or ())
        self.judged_by = judged_by

    def share(self, workspace: Workspace) -> None:
        """Keep class vectors there."""
        share(self.classes, workspace)

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model.

        Raises:
            ValueError: an empty dataset, a document without a class or of an unknown class, embeddings that are NaN.
        """
        names, vectors = self.classes.vectors(model, processor, self.dataset, self.batch_size, device)
        scorer = streamed_scores(model, vectors, device)
        views = self._read(model, processor, device, scorer)
        target = class_numbers(next(iter(views.values())).column(self.label, self.dataset), names, self.label)
        measured: dict[str, dict[str, float]] = {}
        counts: dict[str, Tensor] = {}
        for view, samples in views.items():
            scores = samples.images  # no temperature: it would change no ranking
            if scorer is None:
                scores = normalize(scores, dim=-1) @ vectors.T
            found = accuracies(scores, target)
            measured[view] = {**found, "top1_top5": (found["top1"] + found["top5"]) / 2}
            counts[view] = confusion(scores.argmax(dim=1), target, len(names))
        best = max(measured, key=lambda view: measured[view][self.judged_by])  # the first of equals
        return self._result(names, len(target), measured, best, counts[best])

    def _read(
        self, model: nn.Module, processor: Any, device: torch.device, encode: Callable[[Tensor], Tensor] | None
    ) -> dict[str, Samples]:
        sizes: dict[str, Any] = {"batch_size": self.batch_size, "device": device, "encode": encode}
        if self.resizes:
            return read_views(model, processor, self.dataset, self.resizes, **sizes)
        return {"": read(model, processor, self.dataset, **sizes)}

    def _result(
        self, names: Sequence[str], images: int, measured: dict[str, dict[str, float]], best: str, counts: Tensor
    ) -> Result:
        metrics = dict(measured[best])
        views = [f"{view}_{self.judged_by}" for view in self.resizes]
        tables = [accuracy_table(metrics, images, len(names)), class_table(counts, names)]
        if self.resizes:
            for view, found in measured.items():
                metrics.update({f"{view}_{name}": value for name, value in found.items()})
            tables.insert(1, resize_table(measured))
        caption = "Confusion matrix, rows: truth" + (f" ({best})" if best else "")
        return Result(
            name="zero_shot_classification",
            metrics=metrics,
            tables=tables,
            figures={"confusion": Picture(pictures.confusion_matrix(counts, names), caption)},
            details={
                "dataset": describe(self.dataset),
                "images": images,
                "published_images": list(getattr(self.dataset, "sizes", ())),
                "classes": len(names),
                "resize": best,
                "majority_class": counts.sum(dim=1).max().item() / images,
                "prompts": getattr(self.classes, "origin", "") or getattr(self.dataset, "prompts", ""),
                "skipped": skipped(self.dataset),
                "attribution": attribution_of(self.dataset),
            },
            headline=tuple(dict.fromkeys((self.judged_by, "mean_per_class", *views))),
        )


def streamed_scores(model: nn.Module, vectors: Tensor, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """For a model that compares tokens: pixels -> scores of the classes (batch, classes), so that no tokens are kept.

    Args:
        model: the model, on `device`.
        vectors: (classes, context, width) class matrices.
        device: where they are compared.

    Returns:
        None for a model whose embeddings are vectors: those are kept, and compared at once.
    """
    matching = matching_of(model)
    if matching.vectors:
        return None
    classes = vectors.to(device)

    def score(pixels: Tensor) -> Tensor:
        """Scores of one batch."""
        return matching.image_scores(normalize(matching.encode_image(model, pixels).float(), dim=-1), classes)

    return score


def class_numbers(labels: Sequence[Any], names: Sequence[str], key: str) -> Tensor:
    """Class names or numbers as numbers: (labels,).

    Raises:
        ValueError: a name or number that is no class.
    """
    number = {name: place for place, name in enumerate(names)}
    places = [label if isinstance(label, int) else number.get(str(label), -1) for label in labels]
    unknown = {str(label) for label, place in zip(labels, places, strict=True) if not 0 <= place < len(names)}
    if unknown:
        shown = ", ".join(sorted(unknown)[:5])
        raise ValueError(
            f"label {key!r}: {len(unknown)} values are no class: {shown}; classes: {', '.join(names[:10])}"
        )
    return torch.tensor(places, dtype=torch.long)


def accuracy_table(metrics: Mapping[str, float], images: int, classes: int) -> Table:
    """The figures with the 95 % interval of top-1."""
    low, high = interval(metrics["top1"], images)
    columns = ("images", "classes", "top-1", "95 % interval", "top-5", "mean per class")
    row = (images, classes, metrics["top1"], f"{low:.3f}-{high:.3f}", metrics["top5"], metrics["mean_per_class"])
    return Table("accuracy", columns, [row])


def resize_table(measured: Mapping[str, Mapping[str, float]]) -> Table:
    """The figures of each way of resizing, one per row."""
    columns = ("resize", "top-1", "top-5", "mean per class")
    rows = [(view, found["top1"], found["top5"], found["mean_per_class"]) for view, found in measured.items()]
    return Table("by image transform", columns, rows)


def class_table(counts: Tensor, names: Sequence[str]) -> Table:
    """Recall and precision of each class that occurs, the best recall first (at most 20 best and 20 worst)."""
    rows: list[tuple[str | float | int, ...]] = []
    for place, name in enumerate(names):
        support, found = int(counts[place].sum()), int(counts[:, place].sum())
        hits = int(counts[place, place])
        if support:
            rows.append((name, support, hits / support, hits / found if found else 0.0))
    rows.sort(key=lambda row: (-float(row[2]), str(row[0])))
    shown = rows if len(rows) <= 40 else [*rows[:20], *rows[-20:]]
    title = "by class" if len(rows) == len(shown) else f"by class: the best and the worst 20 of {len(rows)}"
    return Table(title, ("class", "images", "recall", "precision"), shown)
