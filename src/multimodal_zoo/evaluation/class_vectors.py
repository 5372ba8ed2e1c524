"""Class vectors: from names and templates, or from example texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.data.prompt_lists import fill, prompt_list
from multimodal_zoo.encoders.matching import Matching, matching_of
from multimodal_zoo.evaluation.features import grouped
from multimodal_zoo.evaluation.samples import describe, documents_of, text_embeddings, texts_of
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.registry import EVALUATORS

#: Texts whose tokens are held at once.
TEXTS_AT_ONCE = 1024


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
        (classes, width) float32 on the CPU, normalised; or matrices, see `class_means`.

    Raises:
        ValueError: no class, no template, or a template without a place for the name.
    """
    if not class_names or not templates:
        raise ValueError(f"a classifier needs classes and templates, got {len(class_names)} and {len(templates)}")
    unfit = [template for template in templates if "{c}" not in template and "{}" not in template]
    if unfit:
        raise ValueError(f"template {unfit[0]!r} has no place for the class name; write {{c}} there")
    prompts = [fill(templates, name) for name in class_names]
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

    All texts are embedded together, sorted by length, and each distinct one once. A model that compares tokens gets
    matrices instead: the mean of normalised tokens place by place, divided by its Frobenius norm (FILIP's published
    evaluation); its prompts are embedded some classes at a time, for those of ImageNet would take 6 GiB.

    Args:
        model: has `encode_text`.
        processor: has `texts` and a tokenizer.
        texts: the texts of each class, at least one each.
        batch_size: texts per forward pass.
        device: where the model lies; None asks its parameters.

    Returns:
        (classes, width), or (classes, context, width) for a model that compares tokens, float32 on the CPU, of norm 1.

    Raises:
        ValueError: a class without a text.
    """
    empty = [number for number, members in enumerate(texts) if not members]
    if empty:
        raise ValueError(f"classes {empty[:5]} have no text to make a class vector from")
    device = device or next(model.parameters()).device
    matching = matching_of(model)
    means = []
    for group in [texts] if matching.vectors else grouped(texts, TEXTS_AT_ONCE):
        flat = [text for members in group for text in members]
        features = text_embeddings(model, processor, flat, batch_size=batch_size, device=device)
        means.append(normalised_means(matching, features, [len(members) for members in group]))
    return torch.cat(means)


def normalised_means(matching: Matching, features: Tensor, counts: Sequence[int]) -> Tensor:
    """From features of prompts to class vectors (or matrices).

    Args:
        matching: how the model compares.
        features: (prompts, ...), those of a class together; each vector along the last axis is normalised.
        counts: prompts of each class.

    Returns:
        (classes, ...), the mean of each class divided by the norm of the whole.
    """
    means = torch.stack([matching.class_mean(part) for part in normalize(features, dim=-1).split(list(counts))])
    return normalize(means.flatten(1), dim=-1).view_as(means)


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
        self.workspace: Workspace | None = None

    def share(self, workspace: Workspace) -> None:
        """Keep class vectors there."""
        self.workspace = workspace

    def vectors(
        self, model: nn.Module, processor: Any, dataset: Any, batch_size: int, device: torch.device
    ) -> tuple[list[str], Tensor]:
        """Class names and their vectors (classes, width)."""
        del dataset
        kept = self.workspace or Workspace(None, "")
        return self.names, kept.class_vectors(
            self.names,
            self.templates,
            lambda names: build_classifier(model, processor, names, self.templates, batch_size, device=device),
        )


@EVALUATORS.register_module(name="dataset_prompts")
class DatasetPrompts:
    """Classes and templates that the evaluated dataset brings along (`classnames`, `templates`).

    Args:
        templates: a list of `data.prompt_lists` by name (`simple`, `prompt6`, `prompt8`, `prompt80`), or sentences, in
            place of the dataset's.
    """

    def __init__(self, templates: str | Sequence[str] | None = None) -> None:
        self.templates = list(prompt_list(templates) if isinstance(templates, str) else templates or ())
        chosen = templates if isinstance(templates, str) else f"{len(self.templates)} of the configuration"
        self.origin = f"names: the data set's; templates: {chosen}" if self.templates else ""
        self.workspace: Workspace | None = None

    def share(self, workspace: Workspace) -> None:
        """Keep class vectors there."""
        self.workspace = workspace

    def vectors(
        self, model: nn.Module, processor: Any, dataset: Any, batch_size: int, device: torch.device
    ) -> tuple[list[str], Tensor]:
        """Class names and their vectors (classes, width).

        Raises:
            ValueError: the dataset has no class names or templates.
        """
        names, templates = getattr(dataset, "classnames", None), self.templates or getattr(dataset, "templates", None)
        if not names or not templates:
            raise ValueError(
                f"classes: {describe(dataset)} brings no class names and templates; "
                "use type: class_prompts with names and templates"
            )
        prompts = ClassPrompts(list(names), list(templates))
        prompts.workspace = self.workspace
        return prompts.vectors(model, processor, dataset, batch_size, device)


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
