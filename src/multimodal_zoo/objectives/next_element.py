"""Emu's unified objective (arXiv 2307.05222): cross-entropy of words, regression of visual embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.decoders.emu import Emu


class Regressed(NamedTuple):
    """Predictions of visual embeddings.

    Attributes:
        predictions: (n, visual_width).
        targets: (n, visual_width), what stood there; no gradient.
        weights: (n,), float32, how much each counts.
    """

    predictions: Tensor
    targets: Tensor
    weights: Tensor


def regressed(model: Emu, batch: VisualTokenBatch, states: Tensor, visual: Tensor | None, hidden: Tensor) -> Regressed:
    """What the regression head predicts at the places that count, and what stood there.

    Args:
        model: the heads.
        batch: says which places count.
        states: (batch, tokens, width), what the decoder read.
        visual: (places, visual_width), the visual embeddings among it.
        hidden: (batch, tokens, width), what the decoder gave.

    Raises:
        ValueError: a word as a target (Emu's closing token) where words and visual embeddings differ in width.
    """
    rows, places = batch.regression[:, 1:].nonzero(as_tuple=True)
    weights = batch.regression[rows, places + 1].float()
    predictions = model.regression_head(hidden[rows, places])
    if model.input_projection is None:
        return Regressed(predictions, states.detach()[rows, places + 1], weights)
    seen = batch.vision[rows, places + 1]
    if may_look(seen) and not bool(seen.all()):
        raise ValueError(
            f"{int((~seen).sum())} words are targets of the regression, and model.visual_width is "
            f"{model.visual_width}, not the decoder's {model.decoder.width}: set processor.closing to false"
        )
    order = batch.vision.flatten().cumsum(0).view_as(batch.ids) - 1
    known = predictions.new_zeros(0, model.visual_width) if visual is None else visual.detach()
    return Regressed(predictions, known[order[rows, places + 1]], weights)


@OBJECTIVES.register_module(name="next_element")
class NextElement(nn.Module):
    """Cross-entropy of the next word plus mean squared error of the next visual embedding.

    Targets of the regression take no gradient; as inputs, visual embeddings do. Where they are learned (Emu) they could
    all become one: `target_deviation` shows it. Accumulated batches are weighed by their words, the regression too; by
    their visual embeddings where no words are learnt (Emu2-Gen). One sum of gradients has one divisor, so that with
    both losses this is exact where batches have equal numbers of embeddings for each word, as packed batches about do.

    Args:
        objective: the cross-entropy.
        weight: of the regression; not published, 1 in the released labels' reading. 0 leaves it out.
    """

    def __init__(self, objective: NextToken, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"objective.weight is {weight}; expected 0 or more")
        self.objective, self.weight = objective, weight

    def check(self, model: nn.Module) -> None:
        """Refuse a model that predicts no visual embeddings.

        Raises:
            ValueError: with the key to change.
        """
        self.objective.check(model)
        if not hasattr(model, "regression_head"):
            raise ValueError(
                f"objective next_element needs a model with a regression_head, not {type(model).__name__}: choose "
                "model=emu_tiny, say"
            )

    def forward(self, model: Emu, batch: VisualTokenBatch) -> dict[str, Tensor]:
        """Loss of this process's part of the batch.

        Returns:
            what the cross-entropy gives of words, its "loss" increased by the regression and its "loss_weight" the
            regression's where no words are learnt; "language_loss" and "regression_loss", means over all processes;
            "target_deviation", the deviation of the regression's targets over places, averaged over their elements.
        """
        visual = model.seen(batch.ids, batch.images, batch.visual)
        states = model.embed(batch.ids, batch.vision, visual)
        hidden = model.decoded(states, batch.positions, batch.documents)
        found = self.objective.measured(model, hidden, batch)
        pairs = regressed(model, batch, states, visual, hidden)
        exact = torch.promote_types(pairs.predictions.dtype, torch.float32)
        errors = (pairs.predictions.to(exact) - pairs.targets.to(exact)).square().mean(-1)
        total = summed(pairs.weights.sum()).clamp_min(1e-8)
        regression = (pairs.weights * errors).sum() * world_size() / total
        everywhere = summed(torch.stack([found["loss"], regression])) / world_size()
        words = {name: value for name, value in found.items() if not name.startswith("vision_")}  # no visual tokens
        return {
            **words,
            "loss": found["loss"] + self.weight * regression,
            "loss_weight": torch.where(found["loss_weight"] > 0, found["loss_weight"], total),
            "language_loss": everywhere[0],
            "regression_loss": everywhere[1],
            "target_deviation": _deviation(pairs.targets),
        }


def _deviation(targets: Tensor) -> Tensor:
    """Over the places of all processes, averaged over elements; 0 of no places."""
    exact = targets.double()
    sums = torch.cat([exact.new_full((1,), len(exact)), exact.sum(0), exact.square().sum(0)])
    count, first, second = summed(sums).split([1, targets.shape[-1], targets.shape[-1]])
    count = count.clamp_min(1)
    return (second / count - (first / count).square()).clamp_min(0).sqrt().mean().float()
