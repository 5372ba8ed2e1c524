"""Learning from pairs of drawings of which one is preferred (DPO, arXiv 2305.18290; Emu3, arXiv 2409.18869)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.beside import WithFrozen
from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.batch import PreferenceBatch, TokenBatch
from multimodal_zoo.objectives.next_token import check_causal, predicted
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.decoders.emu3 import Emu3


class Likelihoods(NamedTuple):
    """How likely a model finds sequences.

    Attributes:
        sums: (rows,), log-probability of each row's tokens that count, given all before them; in double precision,
            since two sums of thousands of terms are to be compared.
        counts: (rows,), long, how many these are.
    """

    sums: Tensor
    counts: Tensor


def likelihoods(model: nn.Module, batch: TokenBatch, held: int) -> Likelihoods:
    """Log-probabilities of a batch's rows; the logits of a few tokens exist at a time.

    Args:
        model: a causal model; see `next_token.predicted`.
        batch: the sequences; tokens of nonzero weight count, each as much.
        held: logits that are held at a time.
    """
    found, (losses, _) = predicted(model, batch, held)
    sums = losses.new_zeros(len(batch), dtype=torch.float64).index_add(0, found.rows, -losses.double())
    return Likelihoods(sums, torch.bincount(found.rows, minlength=len(batch)))


def joined(batch: PreferenceBatch) -> TokenBatch:
    """Both sides as one batch, the preferred rows first, filled up on the right to the longer side."""
    width = max(batch.chosen.ids.shape[1], batch.rejected.ids.shape[1])
    fields = {}
    for name, filling in (("ids", 0), ("weights", 0.0), ("documents", -1), ("positions", 0)):
        sides = [getattr(side, name) for side in (batch.chosen, batch.rejected)]
        fields[name] = torch.cat([F.pad(side, (0, width - side.shape[1]), value=filling) for side in sides])
    return TokenBatch(**fields, keys=[*batch.chosen.keys, *batch.rejected.keys])


class Reference(nn.Module):
    """A frozen model that rewards are counted from.

    Args:
        model: a causal model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, batch: PreferenceBatch, held: int) -> Tensor:
        """Log-probabilities (pairs, 2) of the preferred and of the other rows, as constants; `held` as above."""
        return likelihoods(self.model, joined(batch), held).sums.view(2, -1).T


def preference_loss(rewards: Tensor) -> Tensor:
    """DPO's loss of each pair: -log sigmoid(chosen - rejected) (arXiv 2305.18290, eq. 7).

    Args:
        rewards: (pairs, 2), beta times how much likelier than the reference the model finds each side.
    """
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1])


@OBJECTIVES.register_module(name="dpo")
class PreferenceObjective(WithFrozen):
    """DPO plus next-token prediction of what is preferred, as Emu3 is tuned (arXiv 2409.18869, section 2.5).

    Of a pair, `-log sigmoid(beta ((c - c_ref) - (r - r_ref))) + next_token_weight * CE(chosen)`: log-probabilities c
    and r are summed over the tokens of nonzero weight (visual ones), the cross-entropy is the mean over those of the
    chosen side. The loss is the mean over the pairs of all processes. The paper gives no settings.

    The reference is no submodule; see `WithFrozen`. There is none where the data hold its log-probabilities.

    Args:
        beta: how strongly the model is held to the reference.
        next_token_weight: weight of the cross-entropy; 0 for DPO alone.
        held_logits: how many logits exist at a time; changes memory and speed, not the result.
        reference: the frozen model; the recipe's node `reference` makes it.

    Raises:
        ValueError: a beta that is not positive, or a negative weight.
    """

    def __init__(
        self, beta: float, next_token_weight: float, held_logits: int = 2**23, reference: nn.Module | None = None
    ) -> None:
        super().__init__(None if reference is None else Reference(reference))
        if beta <= 0 or next_token_weight < 0:
            raise ValueError(
                f"objective.beta is {beta} and objective.next_token_weight {next_token_weight}; expected more than 0, "
                "and at least 0"
            )
        self.beta, self.next_token_weight, self.held_logits = beta, next_token_weight, held_logits

    @property
    def reference(self) -> Reference | None:
        """The frozen model, or None."""
        return self.beside

    def check(self, model: nn.Module) -> None:
        """Refuse a model that predicts no tokens.

        Raises:
            ValueError: with what it lacks.
        """
        check_causal(model, "dpo")

    def forward(self, model: Emu3, batch: PreferenceBatch) -> dict[str, Tensor]:
        """Loss of this process's pairs.

        Returns:
            "loss", to back-propagate, whose mean over processes is that of all pairs; "loss_weight", the number of
            pairs; and means over pairs: "preference_loss", "next_token_loss", "accuracy" (the share whose preferred
            side has the higher reward), "margin", "chosen_reward", "rejected_reward". All are of all processes, but
            for "loss".

        Raises:
            ValueError: no reference, or two.
        """
        reference = self._reference(batch)
        sums, counts = likelihoods(model, joined(batch), self.held_logits)
        rewards = self.beta * (sums.view(2, -1).T - reference)
        preference = preference_loss(rewards)
        pairs = len(batch)
        next_token = -sums[:pairs] / counts[:pairs].clamp_min(1)
        losses = preference + self.next_token_weight * next_token
        chosen, rejected = rewards.detach().T
        told = (preference, next_token, (chosen > rejected).double(), chosen - rejected, chosen, rejected)
        means = summed(torch.stack([losses.new_tensor(float(pairs)), *(one.detach().sum() for one in told)]))
        total = means[0]
        names = ("preference_loss", "next_token_loss", "accuracy", "margin", "chosen_reward", "rejected_reward")
        values = dict(zip(names, (means[1:] / total).float(), strict=True))
        return {"loss": (losses.sum() * world_size() / total).float(), "loss_weight": total.float(), **values}

    def _reference(self, batch: PreferenceBatch) -> Tensor:
        if self.reference is None:
            if batch.reference is None:
                raise ValueError(
                    "the reference's log-probabilities are missing: set reference.weights, or store them in the data "
                    "(reference in the table of preference_pairs)"
                )
            return batch.reference
        if batch.reference is not None:
            raise ValueError(
                "the data hold the reference's log-probabilities, and the recipe has a reference model: set "
                "reference=null, or take data without them"
            )
        return self.reference(batch, self.held_logits)
