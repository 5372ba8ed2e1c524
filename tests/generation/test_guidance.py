"""Guidance: the published formula, and the same probabilities from logits of a slice."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.generation.guidance import guide, guide_log_probabilities
from multimodal_zoo.generation.policies import FREE, allow
from multimodal_zoo.generation.sampling import Sampling


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 7.5, -1.0])
def test_the_formula(scale) -> None:
    conditional, unconditional = torch.randn(2, 3, 50)
    expected = scale * (conditional - unconditional) + unconditional
    assert_close(guide(conditional, unconditional, scale), expected, atol=1e-5, rtol=1e-5)
    whole = scale * conditional.log_softmax(-1) + (1 - scale) * unconditional.log_softmax(-1)
    assert_close(guide_log_probabilities(conditional, unconditional, scale), whole, atol=1e-5, rtol=1e-5)
    assert_close(guide_log_probabilities(conditional, None, 1.0), conditional.log_softmax(-1))


@pytest.mark.parametrize("scale", [0.5, 3.0, 6.0])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_k=30), Sampling(temperature=0.6, top_k=100, top_p=0.7), Sampling(top_p=0.9)]
)
def test_a_slice_of_the_logits_has_the_probabilities_of_the_whole(scale, sampling) -> None:
    rows, both = slice(300, 800), 4 * torch.randn(2, 6, 1000)
    whole = allow(guide_log_probabilities(*both, scale), rows, torch.full((6,), FREE))
    expected = sampling.probabilities(whole)
    assert_close(sampling.probabilities(guide(*both[..., rows], scale)), expected[:, rows], atol=2e-6, rtol=3e-5)
    assert expected[:, :300].sum() == expected[:, 800:].sum() == 0
