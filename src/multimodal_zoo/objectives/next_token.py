"""Next-token prediction over text and visual tokens (Emu3, arXiv 2409.18869, section 2.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.batch import TokenBatch
from multimodal_zoo.objectives.linear_cross_entropy import RowLosses, linear_cross_entropy
from multimodal_zoo.registry import OBJECTIVES

#: What the weighted sum is divided by: the sum of the weights, or the number of tokens that count.
NORMALISERS = ("weights", "count")


class Supervised(NamedTuple):
    """The predictions that count.

    Attributes:
        hidden: (n, width), the states that predict.
        targets: (n,), long, the tokens that came.
        weights: (n,), float32, how much each counts.
        rows: (n,), long, the row of the batch that each belongs to.
    """

    hidden: Tensor
    targets: Tensor
    weights: Tensor
    rows: Tensor


def supervised(hidden: Tensor, ids: Tensor, weights: Tensor) -> Supervised:
    """The states before each token of nonzero weight, so that only they reach the head.

    Args:
        hidden: (batch, tokens, width).
        ids: (batch, tokens).
        weights: (batch, tokens), of the prediction of each token; those of the first place have no prediction.
    """
    rows, places = weights[:, 1:].nonzero(as_tuple=True)
    return Supervised(hidden[rows, places], ids[rows, places + 1], weights[rows, places + 1].float(), rows)


def predicted(model: nn.Module, batch: TokenBatch, held: int, kept: int = 0) -> tuple[Supervised, RowLosses]:
    """What a causal model predicts of a batch: the tokens that count, and the cross-entropy of each.

    Args:
        model: called with `batch.inputs()`; its `decoder` has a `head_weight`.
        batch: the sequences.
        held: logits that are held at a time.
        kept: logits that wait for the backward pass, see `linear_cross_entropy`.
    """
    return predicted_from(model, model(**batch.inputs()), batch, held, kept)


def predicted_from(
    model: nn.Module, hidden: Tensor, batch: TokenBatch, held: int, kept: int = 0
) -> tuple[Supervised, RowLosses]:
    """The same, of hidden states (batch, tokens, width) that are there already."""
    found = supervised(hidden, batch.ids, batch.weights)
    return found, linear_cross_entropy(found.hidden, model.decoder.head_weight, None, found.targets, held, kept)


@OBJECTIVES.register_module(name="next_token")
class NextToken(nn.Module):
    """Weighted cross-entropy of the next token; the weights are the batch's own, 0.5 for vision in pretraining.

    The paper does not say what the weighted sum is divided by, so both readings are offered. Either way the divisor is
    that of all processes together, and the module that trains weighs accumulated batches by it: two processes, or two
    accumulated batches, give the loss and the gradients of one large batch.

    Args:
        normalise: a name of `NORMALISERS`.
        held_logits: how many logits exist at a time; changes memory and speed, not the result.
        kept_logits: how many more wait for the backward pass, which then need not compute them again, in a step that
            makes the head's gradient anew.

    Raises:
        ValueError: a normaliser that does not exist.
    """

    def __init__(self, normalise: str = "weights", held_logits: int = 2**23, kept_logits: int = 0) -> None:
        super().__init__()
        if normalise not in NORMALISERS:
            raise ValueError(f"objective.normalise is {normalise!r}; it takes {', '.join(NORMALISERS)}")
        self.normalise, self.held_logits, self.kept_logits = normalise, held_logits, kept_logits

    def check(self, model: nn.Module) -> None:
        """Refuse a model that predicts no tokens.

        Raises:
            ValueError: with what it lacks.
        """
        check_causal(model, "next_token")

    def forward(self, model: nn.Module, batch: TokenBatch) -> dict[str, Tensor]:
        """Loss of this process's tokens.

        Returns:
            "loss", to back-propagate, whose mean over processes is that of the whole batch; "loss_weight", what all
            processes' sums were divided by; "text_loss" and "vision_loss", plain means over the tokens of each kind
            that count (0 where there are none); "accuracy", the share of the tokens that the head puts first;
            "vision_share", the visual ones among the tokens that count. All are of all processes, but for "loss".
        """
        return self.measured(model, model(**batch.inputs()), batch)

    def measured(self, model: nn.Module, hidden: Tensor, batch: TokenBatch) -> dict[str, Tensor]:
        """What `forward` returns, of hidden states (batch, tokens, width) that are there already."""
        found, (losses, hits) = predicted_from(model, hidden, batch, self.held_logits, self.kept_logits)
        visual = visual_targets(model, found.targets)
        counted = found.weights if self.normalise == "weights" else torch.ones_like(found.weights)
        detached = losses.detach()
        sums = torch.stack(
            [
                counted.sum(),
                visual.sum(),
                (~visual).sum(),
                (detached * visual).sum(),
                (detached * ~visual).sum(),
                hits.sum(),
            ]
        )
        total, vision, text, vision_loss, text_loss, right = summed(sums)
        loss = (found.weights.to(losses.dtype) * losses).sum() * world_size() / total.clamp_min(1e-8)
        tokens = (vision + text).clamp_min(1)
        return {
            "loss": loss,
            "loss_weight": total,
            "text_loss": text_loss / text.clamp_min(1),
            "vision_loss": vision_loss / vision.clamp_min(1),
            "accuracy": right / tokens,
            "vision_share": vision / tokens,
        }


def check_causal(model: nn.Module, name: str) -> None:
    """Refuse a model without a causal decoder.

    Args:
        model: what trains.
        name: of the objective, for the message.

    Raises:
        ValueError: with what it lacks.
    """
    if not hasattr(getattr(model, "decoder", None), "head_weight"):
        raise ValueError(
            f"objective {name} needs a model with a causal decoder, not {type(model).__name__}: choose "
            "model=emu3_tiny, say"
        )


def visual_targets(model: nn.Module, targets: Tensor) -> Tensor:
    """Which targets are visual tokens, bool; none of them where the model does not say (`ids`)."""
    ids = getattr(model, "ids", None)
    return torch.zeros_like(targets, dtype=torch.bool) if ids is None else ids.is_visual(targets)
