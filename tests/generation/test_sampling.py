"""Choosing the next token: the published filters, and draws that follow the probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.generation.sampling import Sampling, at_step, inverse, row_numbers

SCORES = torch.tensor([[0.0, 3.0, 1.0, 3.0, -2.0, 2.0], [5.0, 1.0, 4.0, 0.0, 2.0, 3.0]])


def published(scores: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    """The filters of transformers, in its order."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    ids = torch.zeros(len(scores), 1, dtype=torch.long)
    filters = [TemperatureLogitsWarper(temperature)] if temperature != 1 else []
    filters += [TopKLogitsWarper(top_k)] if top_k else []
    filters += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    for one in filters:
        scores = one(ids, scores)
    return scores.softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 7, 40, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.2])
def test_probabilities_are_those_of_transformers(temperature, top_k, top_p) -> None:
    scores = 3 * torch.randn(4, 60)
    scores[2, 10:] = float("-inf")  # fewer ids than top-k
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    assert_close(sampling.probabilities(scores), published(scores, temperature, top_k, top_p))


def test_ties_at_the_last_place_are_all_kept() -> None:
    kept = Sampling(top_k=1).filtered(SCORES)
    assert kept.isfinite().tolist() == [
        [False, True, False, True, False, False],
        [True, False, False, False, False, False],
    ]
    by_share = Sampling(top_p=0.3).filtered(SCORES)[0]
    assert by_share.isfinite().nonzero().flatten().tolist() == [1, 3]
    both = Sampling(top_k=1, top_p=0.4).probabilities(SCORES)[0]  # one of the two would do
    assert_close(both, torch.tensor([0, 0.5, 0, 0.5, 0, 0]))


def test_draws_follow_the_probabilities() -> None:
    sampling, count = Sampling(temperature=0.7, top_k=4), 20000
    numbers = torch.rand(count, dtype=torch.float64)
    drawn = sampling.choose(SCORES[1:].expand(count, -1), numbers)
    expected = sampling.probabilities(SCORES)[1]
    found = torch.bincount(drawn, minlength=6) / count
    assert found[expected == 0].sum() == 0
    assert_close(found, expected, atol=4 * (0.25 / count) ** 0.5, rtol=0)


def test_a_number_means_the_same_id_in_a_slice_and_in_the_whole() -> None:
    inside = torch.rand(50, 9).softmax(-1)
    whole = torch.cat([torch.zeros(50, 4), inside, torch.zeros(50, 7)], dim=1)
    numbers = torch.rand(50, dtype=torch.float64)
    assert torch.equal(inverse(whole, numbers), inverse(inside, numbers) + 4)


def test_numbers_at_the_edges_meet_ids_that_can_be_drawn() -> None:
    shares = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).expand(4, -1)
    numbers = torch.tensor([0.0, 0.25, 1 - 2**-53, 0.2499999], dtype=torch.float64)
    assert inverse(shares, numbers).tolist() == [1, 3, 3, 1]
    unnormalised = torch.tensor([[0.3, 0.3, 0.0]])
    assert inverse(unnormalised, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [1]


def test_a_row_has_the_numbers_of_its_seed_alone() -> None:
    together = row_numbers([3, 8, 3], 50, "cpu")
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    for steps in (1, 7, 17, 33):  # however many there will be
        assert torch.equal(row_numbers([8], steps, "cpu")[0], together[1, :steps])
    state = torch.get_rng_state()
    row_numbers([1], 5, "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_greedy_takes_the_highest() -> None:
    assert Sampling(greedy=True).choose(SCORES[1:], None).tolist() == [0]
    with pytest.raises(ValueError, match="greedy=True"):
        Sampling().choose(SCORES, None)


def test_a_schedule_holds_its_last_number() -> None:
    assert [at_step([3.0, 2.0], step) for step in range(4)] == [3, 2, 2, 2]
    assert at_step(1.5, 9) == 1.5
    sampling = Sampling(temperature=[1.0, 0.5])
    assert_close(sampling.probabilities(SCORES, step=5), (SCORES * 2).softmax(-1))
    assert_close(sampling.probabilities(SCORES), SCORES.softmax(-1))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": [1.0, -1.0]}, "temperature is -1"),
        ({"temperature": []}, "temperature is empty"),
        ({"temperature": float("nan")}, "finite"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, word) -> None:
    with pytest.raises(ValueError, match=word):
        Sampling(**wrong)
