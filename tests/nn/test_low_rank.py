"""Low-rank adapters beside the layers of a decoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from multimodal_zoo.nn.low_rank import adapted, merge_adapters, without_adapters
from multimodal_zoo.registry import build
from multimodal_zoo.training.deferred import deferred_model
from multimodal_zoo.zoo import declaration

LAYERS = ["attention.qkv.query", "attention.out", "mlp.up"]


def decoder(dropout: float = 0.0, layers: list[str] = LAYERS):
    torch.manual_seed(0)
    node = declaration("emu_tiny")["decoder"]
    node["blocks"]["adapter"] = {"type": "low_rank", "rank": 3, "alpha": 6, "dropout": dropout, "layers": layers}
    return build(node, path="decoder").eval()


def stirred(model):
    torch.manual_seed(1)
    for layer in adapted(model).values():
        torch.nn.init.normal_(layer.adapter.up, std=0.1)
    return model


IDS = torch.arange(12).view(2, 6)


def test_adapters_begin_as_nothing_and_leave_the_first_weights_alone():
    torch.manual_seed(0)
    plain = build(declaration("emu_tiny")["decoder"], path="decoder").eval()
    found = decoder()
    blocks = plain.blocks.state_dict()
    assert all(torch.equal(found.blocks.state_dict()[name], value) for name, value in blocks.items())
    with without_adapters(found):
        found.load_state_dict(plain.state_dict())
    assert torch.equal(found(IDS), plain(IDS))
    assert len(adapted(found)) == 3 * found.blocks.depth


def test_a_layer_is_its_matrix_plus_the_scaled_product():
    model = stirred(decoder())
    layer = model.blocks.layers[1].mlp.up
    x = torch.randn(5, layer.in_features)
    whole = layer.weight + 2 * layer.adapter.up @ layer.adapter.down
    torch.testing.assert_close(layer(x), x @ whole.t())


def test_merged_layers_give_the_same_and_are_plain():
    model = stirred(decoder())
    expected = model(IDS)
    with without_adapters(model):
        assert not torch.allclose(model(IDS), expected)
        assert not any(".adapter." in name for name in model.state_dict())
    assert torch.equal(model(IDS), expected)
    assert merge_adapters(model) == 3 * model.blocks.depth
    torch.testing.assert_close(model(IDS), expected, atol=1e-5, rtol=1e-5)
    assert not any(".adapter." in name for name in model.state_dict())


def test_only_adapters_may_learn_and_drop_what_they_read():
    model = stirred(decoder(dropout=0.5)).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".adapter." in name)
    model(IDS).sum().backward()
    learning = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert len(learning) == 2 * 3 * model.blocks.depth
    assert not torch.equal(model(IDS), model(IDS))


def test_saved_and_loaded_adapters_are_the_same():
    model, other = stirred(decoder()), decoder()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(IDS), other(IDS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["attention.value"]}, "a block's linear layers are attention.qkv.query"),
        ({"rank": 0}, "adapter.rank is 0"),
        ({"layers": []}, "adapter.layers"),
        ({"dropout": 1.5}, "adapter.dropout"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    node = declaration("emu_tiny")["decoder"]
    given = {"type": "low_rank", "rank": 3, "alpha": 6, "dropout": 0.0, "layers": LAYERS, **options}
    node["blocks"]["adapter"] = given
    with pytest.raises(ValueError, match=message):
        build(node, path="decoder")


def test_a_deferred_decoder_begins_with_the_same_values():
    """What draws weights late (sharded runs) draws those of an ordinary build: adapters take nothing from the dice."""

    def made():
        return nn.ModuleList([decoder(), nn.Linear(4, 4)])

    whole = made().state_dict()
    model, start = deferred_model(made)
    assert model.state_dict().keys() == whole.keys()
    assert all(torch.equal(start(name), tensor) for name, tensor in whole.items())
