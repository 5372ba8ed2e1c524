"""T5's relative positions: buckets by a loop and by transformers, the bias of pairs, bad sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from transformers.models.t5.modeling_t5 import T5Attention

from multimodal_zoo.nn.masks import Bias, Causal
from multimodal_zoo.nn.relative_positions import RelativeBias, bucket_of


def slowly(distance: int, buckets: int, far: int) -> int:
    """The published rule for one distance."""
    exact = buckets // 2
    if distance < exact:
        return max(distance, 0)
    return min(buckets - 1, exact + int(math.log(distance / exact) / math.log(far / exact) * (buckets - exact)))


@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (4, 5), (7, 20), (2, 3), (32, 64), (9, 1000)])
def test_buckets_are_those_of_the_rule_and_of_transformers(buckets: int, far: int) -> None:
    distance = torch.arange(-5, 2 * far)
    found = bucket_of(distance, buckets, far)
    assert found.dtype == torch.int64
    theirs = T5Attention._relative_position_bucket(-distance, False, buckets, far)
    assert torch.equal(found, theirs)
    # whole powers of the ratio fall on an edge, where rounding decides: transformers' float32 is the reference there
    expected = torch.tensor([slowly(int(one), buckets, far) for one in distance])
    assert (found != expected).float().mean() < 0.02
    assert found.min() == 0
    assert found.max() == buckets - 1
    assert (found.diff()[5:] >= 0).all()


def test_the_published_figures() -> None:
    """Distances below 16 one by one; 127 and beyond are the last of 32."""
    assert bucket_of(torch.tensor([0, 15, 16, 31, 127, 128, 5000]), 32, 128).tolist() == [0, 15, 16, 21, 31, 31, 31]


def test_each_pair_gets_the_value_of_its_bucket() -> None:
    bias = RelativeBias(heads=3, buckets=4, max_distance=6)
    found = bias(7)
    assert found.shape == (1, 3, 7, 7)
    for query in range(7):
        for key in range(query + 1):
            assert torch.equal(found[0, :, query, key], bias.weight[slowly(query - key, 4, 6)])
    assert bias(1).shape == (1, 3, 1, 1)


def test_a_value_learns_from_all_pairs_of_its_bucket() -> None:
    """The mask hides keys ahead: of n queries, the value of distance 0 counts n times."""
    bias = RelativeBias(heads=2, buckets=4, max_distance=9)
    mask = Causal() & Bias(bias(5))
    allowed, added = mask.allowed(5, 5, torch.device("cpu")), mask.bias()
    assert allowed is not None
    assert added is not None
    added.masked_fill(~allowed, 0.0).sum().backward()
    counts = torch.bincount(torch.tensor([slowly(q - k, 4, 9) for q in range(5) for k in range(q + 1)]), minlength=4)
    assert_close(bias.weight.grad, counts.float()[:, None].expand(4, 2))


def test_the_first_values_and_other_types() -> None:
    torch.manual_seed(0)
    bias = RelativeBias(heads=64, buckets=32, std=0.3)
    assert_close(bias.weight.std().item(), 0.3, atol=0.02, rtol=0)
    assert bias.double()(3).dtype == torch.float64
    with torch.device("meta"):
        assert RelativeBias(heads=2)(4).shape == (1, 2, 4, 4)


@pytest.mark.parametrize(("buckets", "far"), [(1, 5), (0, 5), (8, 4), (8, 3)])
def test_sizes_without_a_rule_are_refused(buckets: int, far: int) -> None:
    with pytest.raises(ValueError, match=rf"buckets={buckets} and max_distance={far}; expected two buckets or more"):
        RelativeBias(heads=2, buckets=buckets, max_distance=far)
