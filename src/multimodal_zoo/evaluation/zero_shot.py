"""Zero-shot classification: class vectors from texts, and how well images find their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.ranking import interval
from multimodal_zoo.evaluation.result import Picture, Result, Table
from multimodal_zoo.evaluation.samples import (
    attribution_of,
    describe,
    documents_of,
    read,
    size_of,
    skipped,
    text_embeddings,
    texts_of,
)
from multimodal_zoo.registry import EVALUATORS


def build_classifier(
    model: nn.Module,
    processor: Any,
    class_names: Sequence[str],
    templates: Sequence[str],
    batch_size: int,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Class vectors from prompts (CLIP, section 3.1.4): embed, normalise, average over templates, normalise.

    Args:
        model: has `encode_text`.
        processor: has `texts` and a tokenizer.
        class_names: put into the templates as they are.
        templates: sentences with `{c}` (or `{}`) where the name goes.
        batch_size: prompts per forward pass.
        device: where the model lies; None asks its parameters.

    Returns:
        (classes, width) float32 on the CPU, normalised.

    Raises:
        ValueError: no class, no template, or a template without a place for the name.
    """
    if not class_names or not templates:
        raise ValueError(f"a classifier needs classes and templates, got {len(class_names)} and {len(templates)}")
    unfit = [template for template in templates if "{c}" not in template and "{}" not in template]
    if unfit:
        raise ValueError(f"template {unfit[0]!r} has no place for the class name; write {{c}} there")
    prompts = [[t.replace("{c}", name).replace("{}", name) for t in templates] for name in class_names]
    return class_means(model, processor, prompts, batch_size, device=device)


def class_means(
    model: nn.Module,
    processor: Any,
    texts: Sequence[Sequence[str]],
    batch_size: int,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Class vectors from lists of texts: the normalised mean of the normalised embeddings of each list.

    All texts are embedded together, sorted by length, and each distinct one once.

    Args:
        model: has `encode_text`.
        processor: has `texts` and a tokenizer.
        texts: the texts of each class, at least one each.
        batch_size: texts per forward pass.
        device: where the model lies; None asks its parameters.

    Returns:
        (classes, width) float32 on the CPU, normalised.

    Raises:
        ValueError: a class without a text.
    """
    empty = [number for number, members in enumerate(texts) if not members]
    if empty:
        raise ValueError(f"classes {empty[:5]} have no text to make a class vector from")
    device = device or next(model.parameters()).device
    flat = [text for members in texts for text in members]
    embeddings = normalize(text_embeddings(model, processor, flat, batch_size=batch_size, device=device), dim=-1)
    means = [part.mean(dim=0) for part in embeddings.split([len(members) for members in texts])]
    return normalize(torch.stack(means), dim=-1)


def confusion(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Counts of (true class, predicted class): (classes, classes)."""
    return torch.bincount(target * classes + predicted, minlength=classes * classes).view(classes, classes)


def accuracies(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Top-1, top-5 and the mean recall over the classes that occur.

    Args:
        logits: (images, classes).
        target: (images,) class numbers.

    Returns:
        fractions `top1`, `top5` (with fewer than five classes: the share among them all) and `mean_per_class`.
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == target[:, None]
    counts = confusion(best[:, 0], target, logits.shape[1])
    support = counts.sum(dim=1)
    recalls = counts.diagonal().double() / support.clamp(min=1)
    return {
        "top1": hits[:, 0].double().mean().item(),
        "top5": hits.any(dim=1).double().mean().item(),
        "mean_per_class": recalls[support > 0].mean().item(),
    }


@EVALUATORS.register_module(name="class_prompts")
class ClassPrompts:
    """Classes by name and prompt templates, written in the configuration.

    Args:
        names: one name per class, in the order of the class numbers.
        templates: sentences with `{c}` where the name goes.
    """

    def __init__(self, names: list[str], templates: list[str]) -> None:
        self.names = names
        self.templates = templates

    def vectors(
        self, model: nn.Module, processor: Any, dataset: Any, batch_size: int, device: torch.device
    ) -> tuple[list[str], Tensor]:
        """Class names and their vectors (classes, width)."""
        del dataset
        return self.names, build_classifier(model, processor, self.names, self.templates, batch_size, device=device)


@EVALUATORS.register_module(name="dataset_prompts")
class DatasetPrompts:
    """Classes and templates that the evaluated dataset brings along (`classnames`, `templates`)."""

    def vectors(
        self, model: nn.Module, processor: Any, dataset: Any, batch_size: int, device: torch.device
    ) -> tuple[list[str], Tensor]:
        """Class names and their vectors (classes, width).

        Raises:
            ValueError: the dataset has no class names or templates.
        """
        names, templates = getattr(dataset, "classnames", None), getattr(dataset, "templates", None)
        if not names or not templates:
            raise ValueError(
                f"classes: {describe(dataset)} brings no class names and templates; "
                "use type: class_prompts with names and templates"
            )
        return list(names), build_classifier(model, processor, names, templates, batch_size, device=device)


@EVALUATORS.register_module(name="class_texts")
class ClassTexts:
    """Classes made from example texts: the texts of all documents of a class in another dataset.

    For a model trained from scratch, whose captions hardly contain the words of the class names.

    Args:
        source: documents with texts; the images are not looked at.
        label: the metadata key that names the class.
    """

    def __init__(self, source: Any, label: str) -> None:
        self.source = source
        self.label = label

    def vectors(
        self, model: nn.Module, processor: Any, dataset: Any, batch_size: int, device: torch.device
    ) -> tuple[list[str], Tensor]:
        """Class names, sorted, and their vectors (classes, width)."""
        del dataset
        texts: dict[str, list[str]] = {}
        for document in documents_of(self.source):
            texts.setdefault(str(document.meta.get(self.label)), []).extend(texts_of(document))
        names = sorted(texts)
        members = [list(dict.fromkeys(texts[name])) for name in names]
        return names, class_means(model, processor, members, batch_size, device=device)


@EVALUATORS.register_module(name="zero_shot_classification")
class ZeroShotClassification:
    """Classify images by the nearest class vector: top-1, top-5, mean recall per class and the confusion matrix.

    Args:
        dataset: image documents with a class.
        classes: a part that gives class names and vectors (`class_prompts`, `dataset_prompts`, `class_texts`).
        label: the metadata key of the class: its name, or its number in the order of the classes.
        batch_size: images, and texts, per forward pass.
    """

    def __init__(self, dataset: Any, classes: Any, label: str, batch_size: int = 64) -> None:
        self.dataset = dataset
        self.classes = classes
        self.label = label
        self.batch_size = batch_size

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model.

        Raises:
            ValueError: an empty dataset, a document without a class or of an unknown class, embeddings that are NaN.
        """
        names, vectors = self.classes.vectors(model, processor, self.dataset, self.batch_size, device)
        samples = read(model, processor, self.dataset, batch_size=self.batch_size, device=device)
        target = class_numbers(samples.column(self.label, self.dataset), names, self.label)
        logits = 100.0 * normalize(samples.images, dim=-1) @ vectors.T  # the published protocol's fixed scale
        metrics = accuracies(logits, target)
        counts = confusion(logits.argmax(dim=1), target, len(names))
        return Result(
            name="zero_shot_classification",
            metrics=metrics,
            tables=[accuracy_table(metrics, len(target), len(names)), class_table(counts, names)],
            figures={"confusion": Picture(pictures.confusion_matrix(counts, names), "Confusion matrix, rows: truth")},
            details={
                "dataset": describe(self.dataset),
                "images": size_of(self.dataset) or len(target),
                "classes": len(names),
                "majority_class": counts.sum(dim=1).max().item() / len(target),
                "skipped": skipped(self.dataset),
                "attribution": attribution_of(self.dataset),
            },
            headline=("top1", "mean_per_class"),
        )


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
