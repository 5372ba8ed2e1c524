"""Codebooks: the nearest entry, its gradient, moving averages, and one codebook for several processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.tokenizers import quantizers
from multimodal_zoo.tokenizers.quantizers import EmaQuantizer, VectorQuantizer, nearest_codes


def test_nearest_is_the_smallest_distance_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codebook = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(17, 4, dtype=torch.float64)
    expected = torch.cdist(vectors.view(-1, 4), codebook).argmin(1).view(2, 3, 5)
    assert torch.equal(nearest_codes(vectors, codebook), expected)
    monkeypatch.setattr(quantizers, "CACHED", 40)
    assert torch.equal(nearest_codes(vectors, codebook), expected)
    monkeypatch.setattr(quantizers, "CACHED", 1)
    assert torch.equal(nearest_codes(vectors, codebook), expected)


def test_the_lowest_of_equals() -> None:
    codebook = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 2.0]])
    assert nearest_codes(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), codebook).tolist() == [0, 1]


def test_straight_through() -> None:
    quantizer = VectorQuantizer(8, 3)
    torch.nn.init.normal_(quantizer.codebook)
    vectors = torch.randn(4, 5, 3, requires_grad=True)
    found = quantizer(vectors)
    assert_close(found.vectors, quantizer.codebook[found.codes])
    weights = torch.randn(4, 5, 3)
    (found.vectors * weights).sum().backward(retain_graph=True)
    assert_close(vectors.grad, weights)  # as if nothing had been replaced
    assert quantizer.codebook.grad is None


def test_the_two_terms_draw_one_side_each() -> None:
    quantizer = VectorQuantizer(8, 3)
    torch.nn.init.normal_(quantizer.codebook)
    vectors = torch.randn(10, 3, requires_grad=True)
    found = quantizer(vectors)
    entries = quantizer.codebook[found.codes].detach()
    to_vectors = torch.autograd.grad(found.commitment, vectors, retain_graph=True)[0]
    assert_close(to_vectors, 2 * (vectors.detach() - entries) / 30)
    assert torch.autograd.grad(found.commitment, quantizer.codebook, retain_graph=True, allow_unused=True)[0] is None
    (to_entries,) = torch.autograd.grad(found.codebook, quantizer.codebook, retain_graph=True)
    expected = torch.zeros(8, 3).index_add_(0, found.codes, 2 * (entries - vectors.detach()) / 30)
    assert_close(to_entries, expected)
    assert torch.autograd.grad(found.codebook, vectors, allow_unused=True)[0] is None


def _moved(quantizer: EmaQuantizer, steps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Counts and sums by their definition, one vector at a time."""
    counts, sums = torch.zeros(quantizer.codebook_size), torch.zeros(quantizer.codebook_size, quantizer.width)
    entries = quantizer.codebook.clone()
    for vectors in steps:
        counts, sums = counts * quantizer.decay, sums * quantizer.decay
        for vector in vectors:
            code = int((entries - vector).square().sum(1).argmin())
            counts[code] += 1 - quantizer.decay
            sums[code] += (1 - quantizer.decay) * vector
        entries = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1e-30)[:, None], entries)
    return counts, entries


def test_entries_are_moving_averages() -> None:
    quantizer = EmaQuantizer(6, 2, decay=0.8, revive_below=0.0)
    quantizer.codebook.normal_()
    steps = [torch.randn(9, 2) for _ in range(3)]
    counts, entries = _moved(quantizer, steps)
    for vectors in steps:
        found = quantizer(vectors.requires_grad_())
        assert float(found.codebook) == 0
    assert_close(quantizer.counts, counts)
    assert_close(quantizer.codebook, entries)
    found.commitment.backward()
    assert steps[-1].grad is not None
    assert not list(quantizer.parameters())


def test_evaluation_moves_nothing() -> None:
    quantizer = EmaQuantizer(6, 2).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(9, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


def test_idle_entries_come_back() -> None:
    torch.manual_seed(0)
    quantizer = EmaQuantizer(64, 2, decay=0.5, revive_below=0.1)
    quantizer.codebook.fill_(100.0)  # of equals the first is chosen: 63 are idle
    for _ in range(4):
        found = quantizer(torch.randn(512, 2))
    assert len(found.codes.unique()) > 48
    still = EmaQuantizer(64, 2, decay=0.5, revive_below=0.0)
    still.codebook.fill_(100.0)
    for _ in range(4):
        found = still(torch.randn(512, 2))
    assert len(found.codes.unique()) == 1


def test_bad_values() -> None:
    with pytest.raises(ValueError, match=r"quantizer.decay is 1.0"):
        EmaQuantizer(4, 2, decay=1.0)
    with pytest.raises(ValueError, match="from 0 to 9"):
        VectorQuantizer(4, 2).look_up(torch.tensor([0, 9]))


def learnt(made: dict[str, EmaQuantizer], steps: list[Tensor]) -> dict[str, dict[str, Tensor]]:
    """What quantisers of one process hold after its part of some steps."""
    torch.manual_seed(dist.get_rank())  # what revives entries must not depend on it
    for quantizer in made.values():
        for part in steps:
            quantizer(part.chunk(2)[dist.get_rank()])
    return {name: dict(quantizer.state_dict()) for name, quantizer in made.items()}


@pytest.mark.multiprocess
def test_two_processes_keep_one_codebook() -> None:
    torch.manual_seed(0)
    made = {"plain": EmaQuantizer(6, 2, 0.7, revive_below=0.0), "reviving": EmaQuantizer(6, 2, 0.7, revive_below=2.0)}
    steps = [torch.randn(16, 2) for _ in range(3)]
    first, second = forked(2, learnt, made, steps)
    for name in made:
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])
    for vectors in steps:
        made["plain"](vectors)
    assert_close(first["plain"], dict(made["plain"].state_dict()))
