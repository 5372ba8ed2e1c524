"""EVA-CLIP's evaluation: classifiers from prompts, accuracies, and recall in both directions of retrieval."""

from __future__ import annotations

import re
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request
from harness.words import take_known
from systems.eva.models import model_of
from systems.eva.pictures_and_texts import SPECIAL
from torch import Tensor
from torch.nn.functional import normalize

from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.evaluation.class_vectors import build_classifier
from multimodal_zoo.evaluation.ranking import inner_products, rank_summary
from multimodal_zoo.evaluation.retrieval import ranks_both_ways, retrieval_metrics
from multimodal_zoo.evaluation.zero_shot import accuracies
from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer


def class_vectors(case: Case, batch_size: int = 16) -> Tensor:
    """Class vectors (classes, width) of the fields `classnames` and `templates`."""
    text = case.config["text_cfg"]
    tokenizer = ClipTokenizer(text.get("context_length", 77), text.get("vocab_size", 49408), special=SPECIAL)
    processor: Any = ImageTextProcessor(images=None, texts=tokenizer)  # type: ignore[arg-type]
    names, templates = case.fields["classnames"], case.fields["templates"]
    return build_classifier(model_of(case), processor, names, templates, batch_size)


def classifier(request: Request) -> Outcome:
    """The classifier (width, classes), which no batch size changes."""
    (output,) = request.call.outputs
    return {output: tuple(class_vectors(request.case, size).T for size in (1, 7, 64))}


def class_logits(case: Case, images: Tensor) -> Tensor:
    """The published protocol's logits, with a scale of 100 whatever the model has learned."""
    with torch.no_grad():
        return 100.0 * model_of(case).encode_image(images) @ case.once("classes", lambda: class_vectors(case)).T


def logits(request: Request) -> Outcome:
    """Logits (images, classes)."""
    (images,), (output,) = request.case.take(request.call), request.call.outputs
    return {output: class_logits(request.case, images)}


def accuracy(request: Request) -> Outcome:
    """Top-1 and top-5, as fractions."""
    (images, target), (output,) = request.case.take(request.call), request.call.outputs
    found = accuracies(class_logits(request.case, images), target)
    return {output: torch.tensor([found["top1"], found["top5"]])}


def ordered(note: str, found: dict[str, float]) -> Tensor:
    """Figures in the order in which a note lists them, `in this order: a, b, ...; ...`."""
    match = re.search(r"in this order: ([^;]*)", note)
    assert match is not None, f"the note {note!r} gives no order"
    names = [name.strip() for name in match[1].split(",")]
    missing = [name for name in names if name not in found]
    assert not missing, f"figures {missing} are not understood; known: {sorted(found)}"
    return torch.tensor([found[name] for name in names])


def places_in(note: str) -> list[int]:
    """The k of every R@k or recall@k of a note."""
    return sorted({int(k) for k in re.findall(r"(?:R|recall)@(\d+)", note)})


def ranks_of(images: Tensor, texts: Tensor, image_of_text: Tensor) -> dict[str, Tensor]:
    """Ranks of vectors in both directions."""
    scores = {"image_to_text": inner_products(images, texts), "text_to_image": inner_products(texts, images)}
    return ranks_both_ways(scores, image_of_text)


def one_to_one(request: Request) -> Outcome:
    """Ranks of pairs, row i of one side belonging to row i of the other."""
    (images, texts), (output,) = request.case.take(request.call), request.call.outputs
    ranks = ranks_of(images, texts, torch.arange(len(images)))
    found = retrieval_metrics(ranks, places_in(request.call.note))
    for direction, own in ranks.items():
        found.update({f"{direction}_{name}": value for name, value in rank_summary(own).items()})
    return {output: ordered(request.call.note, found)}


def recalls(request: Request) -> Outcome:
    """Recall with several captions for an image."""
    images, captions, image_of_caption = request.case.take(request.call)
    counts = take_known(request.case.config, {"captions_per_image"}, "config")["captions_per_image"]
    assert image_of_caption.bincount(minlength=len(images)).tolist() == counts
    ranks = ranks_of(normalize(images, dim=-1), normalize(captions, dim=-1), image_of_caption)
    found = retrieval_metrics(ranks, places_in(request.call.note))
    names = {"image_retrieval": "text_to_image", "text_retrieval": "image_to_text"}
    figures = {
        f"{theirs}_recall@{k}": found[f"{ours}_R@{k}"]
        for theirs, ours in names.items()
        for k in places_in(request.call.note)
    }
    (output,) = request.call.outputs
    return {output: ordered(request.call.note, figures)}
