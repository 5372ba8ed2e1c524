"""Accuracy among a few names, against all draws one by one."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from multimodal_zoo.evaluation.choices import first_among, shares
from multimodal_zoo.evaluation.ranking import interval


@pytest.mark.parametrize("choices", [1, 2, 4, 6])
def test_accuracy_is_the_mean_over_all_draws(choices: int) -> None:
    scores = torch.randn(5, 6, generator=torch.Generator().manual_seed(choices))
    ranks = (scores > scores[:, :1]).sum(1)  # the first name is right
    for row, found in zip(scores.tolist(), first_among(ranks, 6, choices).tolist(), strict=True):
        draws = list(combinations(row[1:], choices - 1))
        assert found == pytest.approx(sum(all(other < row[0] for other in draw) for draw in draws) / len(draws))


def test_shares_have_intervals() -> None:
    ranks = torch.tensor([0, 0, 3, 9])
    found = shares(ranks, 10, (10, 1))
    assert (found[10].value, found[1].value) == (0.5, 1.0)
    assert tuple(found[10][1:]) == interval(0.5, 4)
    assert str(found[10]) == "0.500 (0.150-0.850)"
    assert shares(ranks, 10, ()) == {}


@pytest.mark.parametrize("choices", [0, 11])
def test_impossible_numbers_are_refused(choices: int) -> None:
    with pytest.raises(ValueError, match=f"choices lists {choices}; expected 1 to 10"):
        first_among(torch.tensor([0]), 10, choices)
