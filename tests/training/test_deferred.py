"""A model that is drawn later has the values of one that is drawn at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from multimodal_zoo import zoo
from multimodal_zoo.training.deferred import deferred_model


@pytest.mark.parametrize(
    ("variant", "overrides"),
    [
        ("clip_tiny", []),
        ("eva_clip_tiny", []),
        ("clip_tiny", ["encoder@model.image=clip_vit_tiny", "+model.image.blocks.init={type:scaled_init}"]),
    ],
)
def test_every_value_is_the_same(variant: str, overrides: list[str]) -> None:
    config = zoo.declaration(variant, overrides)
    whole = zoo.build_model(config, seed=3)
    before = torch.get_rng_state()
    model, start = deferred_model(lambda: zoo.build_model(config, seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    matrices = 0
    for name, tensor in (*whole.named_parameters(), *whole.named_buffers()):
        place = dict((*model.named_parameters(), *model.named_buffers()))[name]
        assert place.is_meta == (tensor.ndim > 1), name
        assert place.shape == tensor.shape
        assert torch.equal(start(name), tensor), name
        matrices += tensor.ndim > 1
    assert matrices > 10
    assert torch.equal(torch.get_rng_state(), before)


class Odd(nn.Module):
    """Draws, scales, copies and overwrites in ways that a constructor may."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 40)
        self.first.weight.data[3:9].mul_(2.0)
        self.first.weight.data[:, 2].normal_(std=7.0)
        self.second = copy.deepcopy(self.first)
        with torch.no_grad():
            self.first.weight.t().add_(1.0)
            self.second.weight[:5].copy_(self.first.weight[5:10])
        self.third = nn.Parameter(torch.empty(4, 30).uniform_(-1, 1))
        self.register_buffer("table", torch.arange(12.0).view(3, 4))


def test_slices_copies_and_views() -> None:
    torch.manual_seed(5)
    whole = Odd()
    after = torch.rand(1)
    torch.manual_seed(5)
    model, start = deferred_model(Odd)
    assert torch.equal(torch.rand(1), after)  # the generator stands where an ordinary build leaves it
    for name, tensor in whole.state_dict().items():
        assert torch.equal(start(name), tensor), name
    assert model.first.weight.is_meta
    assert not model.table.is_meta


@pytest.mark.parametrize("fill", [lambda t: t.div_(t.norm()), nn.init.trunc_normal_, nn.init.orthogonal_])
def test_a_constructor_that_reads_its_weights_is_refused(fill: Callable[[torch.Tensor], object]) -> None:
    with torch.no_grad(), pytest.raises(NotImplementedError, match="reads a weight while the model is built"):
        deferred_model(lambda: [layer := nn.Linear(4, 4), fill(layer.weight)][0])


def test_without_drawing_nothing_is_noted() -> None:
    model, _ = deferred_model(lambda: nn.Linear(3, 3), draw=False)
    assert model.weight.is_meta
    assert not model.bias.is_meta
