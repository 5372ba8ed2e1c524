"""Emu3's cases: samples of supervised fine-tuning, from codes and texts to padded ids and labels."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.emu3_parts.texts import tokenizer
from torch import Tensor

from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.size_rule import Emu3ImageTransform, SizeRule
from multimodal_zoo.data.token_batches import padded_batch
from multimodal_zoo.data.token_layouts import TextToImageLayout
from multimodal_zoo.data.token_sequences import TokenWeights, sequences
from multimodal_zoo.objectives.batch import TokenBatch

#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
#: Label of a token that is not learnt.
UNLEARNT = -100
VISION, ALL = TokenWeights(0, 1, 0, 0, 0), TokenWeights(1, 1, 1, 1, 1)


def _processor(case: Case) -> Emu3Processor:
    images = Emu3ImageTransform(SizeRule(8, 64, 64, 5), [0.5] * 3, [0.5] * 3)  # no picture is looked at
    texts = tokenizer(case, case.config["tokenizer"], case.config["codebook_size"])
    return Emu3Processor(images, texts, 64, "{image}{text}")


def _batch(request: Request, weights: TokenWeights, null_prompts: float = 0.0) -> TokenBatch:
    case, ours = request.case, _processor(request.case)
    sizes = take_known(
        case.config["tokenizer"],
        ("vocabulary", "vision_tokens", "special_start_id", "model_max_length", "padding_side"),
        "config.tokenizer",
    )
    assert sizes["padding_side"] == "right"
    documents = [
        Document([Text(text), Codes(codes.numpy())])
        for text, codes in zip(case.fields["texts"], case.take(request.call), strict=True)
    ]
    layout = TextToImageLayout(TextCaption(), null_prompts, end=False)
    samples = sequences(documents, ours, layout, weights, Random(0))
    return padded_batch(samples, ours.ids.pad, sizes["model_max_length"])


def _labels(batch: TokenBatch) -> Tensor:
    return torch.where(batch.weights > 0, batch.ids, UNLEARNT)


def vision_only(request: Request) -> Outcome:
    """Visual tokens are learnt."""
    batch, (ids, mask, labels) = _batch(request, VISION), request.call.outputs
    return {ids: batch.ids, mask: (batch.documents >= 0).long(), labels: _labels(batch)}


def null_prompts(request: Request) -> Outcome:
    """The texts are left out."""
    batch, (ids, labels) = _batch(request, VISION, null_prompts=1.0), request.call.outputs
    return {ids: batch.ids, labels: _labels(batch)}


def everything(request: Request) -> Outcome:
    """The reference learns its ids as they stand: padding, which we never do, and the first, which nothing predicts."""
    batch, (labels,) = _batch(request, ALL), request.call.outputs
    ours = _labels(batch)
    strange = ours == UNLEARNT
    assert torch.equal(strange, (batch.positions == 0) | (batch.documents < 0))
    return {labels: torch.where(strange, batch.ids, ours)}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"dataset\[i\] with loss on vision tokens only")(vision_only)
    system.call(r"dataset\[i\] with null_prompt_prob = 1")(null_prompts)
    system.call(r"dataset\[i\] with apply_loss_on_only_vision = False")(everything)
