"""The preference objective against whole logits in double precision, with a reference model and without."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from causal_samples import documents, gradients, rows, tiny
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.objectives import preference
from multimodal_zoo.objectives.batch import PreferenceBatch
from multimodal_zoo.objectives.preference import PreferenceObjective, Reference, joined, likelihoods

BETA, WEIGHT = 0.3, 0.7
LENGTHS = ([9, 6, 12], [7, 6, 4])


def pairs(reference: Tensor | None = None, only: slice = slice(None)) -> PreferenceBatch:
    """Three pairs of unlike lengths."""
    sides = [documents(lengths, seed)[only] for seed, lengths in enumerate(LENGTHS, start=1)]
    chosen, rejected = (rows([[one] for one in side]) for side in sides)
    return PreferenceBatch(chosen, rejected, reference)


def summed(model: Emu3) -> tuple[Tensor, Tensor]:
    """Log-probability (3, 2) of every row, and mean cross-entropy (3,) of the chosen ones, from whole logits."""
    sums, means = [], []
    for seed, lengths in enumerate(LENGTHS, start=1):
        for ids, weights in documents(lengths, seed):
            logits = F.linear(model.decoder(ids[None]), model.decoder.head_weight)[0, :-1]
            counted = F.cross_entropy(logits, ids[1:], reduction="none")[weights[1:] > 0]
            sums.append(-counted.sum())
            means.append(counted.mean())
    return torch.stack(sums).view(2, 3).T, torch.stack(means[:3])


def directly(model: Emu3, other: Emu3) -> dict[str, Tensor]:
    own, cross_entropy = summed(model)
    rewards = BETA * (own - summed(other)[0].detach())
    loss = -torch.log(torch.sigmoid(rewards[:, 0] - rewards[:, 1]))
    return {
        "loss": (loss + WEIGHT * cross_entropy).mean(),
        "preference_loss": loss.mean(),
        "next_token_loss": cross_entropy.mean(),
        "margin": (rewards[:, 0] - rewards[:, 1]).mean(),
        "accuracy": (rewards[:, 0] > rewards[:, 1]).double().mean(),
        "chosen_reward": rewards[:, 0].mean(),
        "rejected_reward": rewards[:, 1].mean(),
        "loss_weight": torch.tensor(3.0),
    }


@pytest.mark.parametrize("held", [13, 2**23])
@pytest.mark.parametrize("known", [False, True])
def test_loss_and_gradients_are_those_of_whole_logits(held: int, known: bool) -> None:
    model, other = tiny(seed=0).double(), tiny(seed=5).double()
    expected = directly(model, other)
    theirs = gradients(model, expected["loss"])
    batch = pairs(summed(other)[0].detach() if known else None)
    objective = PreferenceObjective(BETA, WEIGHT, held, None if known else other)
    found = objective(model, batch)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert_close(found[key].detach().double(), value.detach().double(), atol=1e-6, rtol=1e-6, msg=key)
    for key, gradient in gradients(model, found["loss"]).items():
        assert_close(gradient, theirs[key], atol=1e-9, rtol=1e-6, msg=key)
    assert all(parameter.grad is None for parameter in other.parameters())


def test_at_the_reference_itself_nothing_is_preferred() -> None:
    model = tiny()
    found = PreferenceObjective(BETA, 0.0, reference=tiny())(model, pairs())
    assert_close(found["loss"], torch.tensor(2.0).log())
    assert found["margin"] == found["chosen_reward"] == found["accuracy"] == 0


def test_two_processes_give_the_mean_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs on one process and one on the other, as data parallelism averages them."""
    model, other = tiny().double(), tiny(seed=5).double()
    objective = PreferenceObjective(BETA, WEIGHT, reference=other)
    expected = gradients(model, objective(model, pairs())["loss"])
    monkeypatch.setattr(preference, "world_size", lambda: 2)
    parts = []
    for only in (slice(0, 2), slice(2, 3)):
        size = len(pairs(only=only))
        monkeypatch.setattr(preference, "summed", lambda sums, size=size: sums.detach() * 3 / size)
        parts.append(gradients(model, objective(model, pairs(only=only))["loss"]))
    for name, gradient in expected.items():
        assert_close((parts[0][name] + parts[1][name]) / 2, gradient, atol=1e-9, rtol=1e-6, msg=name)


def test_padding_and_rows_without_anything_that_counts() -> None:
    model = tiny()
    both = joined(pairs())
    assert both.ids.shape == (6, 12)
    assert (both.documents[3:, 7:] == -1).all()
    alone = torch.cat([likelihoods(model, side, 64).sums for side in (pairs().chosen, pairs().rejected)])
    assert_close(likelihoods(model, both, 64).sums, alone, atol=1e-5, rtol=1e-6)
    empty = pairs()
    empty.chosen.weights.zero_(), empty.rejected.weights.zero_()
    found = PreferenceObjective(BETA, WEIGHT, reference=tiny())(model, empty)
    assert_close(found["loss"], torch.tensor(2.0).log())
    found["loss"].backward()


def test_the_reference_stays_out_of_sight_and_follows() -> None:
    model = tiny(dropout=0.5).train()
    objective = PreferenceObjective(BETA, WEIGHT, reference=model).train()
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert isinstance(objective.reference, Reference)
    assert not objective.reference.model.training
    objective.double()
    assert all(parameter.dtype == torch.float64 for parameter in objective.reference.parameters())


def test_what_does_not_suit_is_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"objective\.beta is 0 and objective\.next_token_weight 1"):
        PreferenceObjective(0, 1)
    with pytest.raises(ValueError, match=r"set reference\.weights, or store them in the data"):
        PreferenceObjective(BETA, WEIGHT)(model, pairs())
    with pytest.raises(ValueError, match="set reference=null"):
        PreferenceObjective(BETA, WEIGHT, reference=tiny())(model, pairs(torch.zeros(3, 2)))
    with pytest.raises(ValueError, match=r"must be \(3, 2\), not \(3,\)"):
        pairs(torch.zeros(3))
    with pytest.raises(ValueError, match="dpo needs a model with a causal decoder, not Linear"):
        PreferenceObjective(BETA, WEIGHT).check(nn.Linear(2, 2))
    PreferenceObjective(BETA, WEIGHT).check(model)
    assert pairs().keys == ["0", "1", "2"]
