"""Feature caching: gradient, randomness and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from multimodal_zoo.objectives.chunks import encode_in_chunks


def mixing_loss(features: Tensor) -> Tensor:
    return (features @ features.T).softmax(1).diagonal().sum()


@pytest.mark.parametrize("chunk", [1, 3, 5, 8])
def test_gradient_is_that_of_the_unsplit_batch(chunk: int) -> None:
    encoder = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4)).double()
    inputs = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    wanted = [inputs, *encoder.parameters()]
    whole = torch.autograd.grad(mixing_loss(encoder(inputs)), wanted)
    split = torch.autograd.grad(mixing_loss(encode_in_chunks(encoder, inputs, chunk)), wanted)
    for mine, expected in zip(split, whole, strict=True):
        assert_close(mine, expected)


def test_random_layers_draw_the_same_numbers_in_backward() -> None:
    encoder = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5))
    inputs = torch.randn(6, 4)
    torch.manual_seed(3)
    mixing_loss(encode_in_chunks(encoder, inputs, 2)).backward()
    chunked = [parameter.grad.clone() for parameter in encoder.parameters()]
    after = torch.rand(1)
    encoder.zero_grad()
    torch.manual_seed(3)
    mixing_loss(torch.cat([encoder(part) for part in inputs.split(2)])).backward()
    for mine, parameter in zip(chunked, encoder.parameters(), strict=True):
        assert_close(mine, parameter.grad)
    assert torch.equal(after, torch.rand(1)), "backward must not advance the generator"


def test_forward_keeps_features_only() -> None:
    """What autograd holds between forward and backward is the inputs, the features and the weights."""
    encoder = nn.Sequential(nn.Linear(4, 512), nn.GELU(), nn.Linear(512, 4))
    inputs = torch.randn(32, 4)

    def kept(chunk: int | None) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            features = encoder(inputs) if chunk is None else encode_in_chunks(encoder, inputs, chunk)
        assert features.requires_grad
        return sum(sizes.values())

    assert kept(None) > 32 * 512
    assert kept(4) <= inputs.numel()


def test_encodes_without_gradient() -> None:
    encoder = nn.Linear(4, 2)
    inputs = torch.randn(5, 4)
    with torch.no_grad():
        features = encode_in_chunks(encoder, inputs, 2)
    assert not features.requires_grad
    assert_close(features, encoder(inputs).detach())


def test_refuses_an_empty_chunk() -> None:
    with pytest.raises(ValueError, match="chunk is 0"):
        encode_in_chunks(nn.Linear(4, 2), torch.ones(3, 4), 0)
