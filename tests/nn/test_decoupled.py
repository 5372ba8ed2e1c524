"""Blocks with weights of their own for pictures, against both sets of weights on all tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.decoders.causal_decoder import CausalDecoder
from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.decoupled import DECOUPLED, DecoupledBlock
from multimodal_zoo.nn.masks import Causal, Document
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.nn.route import Route
from multimodal_zoo.registry import build

SIZES = {
    "model_type": "qwen2", "vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 64,
}  # fmt: skip
ALL = tuple(DECOUPLED)
MIXED = torch.tensor([[0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 0, 1]], dtype=torch.bool)


def node(parts: Sequence[str] = ALL, checkpoint: str = "none", **more: Any) -> dict[str, Any]:
    found = node_from_hf({**SIZES, **more})
    found["blocks"]["checkpoint"] = checkpoint
    found["blocks"]["block"] = {"type": "decoupled_block", "block": found["blocks"]["block"], "parts": list(parts)}
    return found


def decoder(parts: Sequence[str] = ALL, checkpoint: str = "none", **more: Any) -> CausalDecoder:
    """A decoder whose two kinds of weights differ."""
    model = build(node(parts, checkpoint, **more), path="model")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "bias" in name:
                weight.add_(torch.randn_like(weight) * 0.2)
            elif ".vision." in name:
                weight.normal_(std=0.3)
    return model


def block_and_rotation(parts: Sequence[str], dtype: torch.dtype = torch.float64) -> tuple[DecoupledBlock, Rotation]:
    model = decoder(parts)
    return model.blocks.layers[0].to(dtype), model.rotary(torch.arange(MIXED.shape[1]))


def blended(block: DecoupledBlock, tokens: Tensor, vision: Tensor, rotation: Rotation) -> Tensor:
    """Both sets of weights on all tokens."""

    def chosen(name: str, call: Any) -> Any:
        text = call(getattr(block.text, name))
        if name not in block.vision:
            return text
        own = call(block.vision[name])
        pairs = zip(text, own, strict=True) if isinstance(text, tuple) else [(text, own)]
        found = []
        for first, second in pairs:
            flags = vision[:, None, :, None] if first.dim() == 4 else vision[..., None]
            found.append(torch.where(flags, second, first))
        return tuple(found) if isinstance(text, tuple) else found[0]

    normed = chosen("norm_1", lambda part: part(tokens))
    query, key, value = chosen("attention", lambda part: part.qkv(normed))
    mixed = attend(rotation(query), rotation(key), value, mask=Causal()).transpose(1, 2).flatten(2)
    tokens = tokens + chosen("attention", lambda part: part.out(mixed))
    normed = chosen("norm_2", lambda part: part(tokens))
    return tokens + chosen("mlp", lambda part: part(normed))


@pytest.mark.parametrize("parts", [ALL, ("mlp",), ("norm",), ("attention", "mlp"), ()])
@pytest.mark.parametrize("vision", [MIXED, MIXED & False, MIXED | True], ids=["mixed", "text", "pictures"])
def test_each_token_takes_its_own_weights_forward_and_backward(parts: tuple[str, ...], vision: Tensor) -> None:
    block, rotation = block_and_rotation(parts)
    tokens = torch.randn(*vision.shape, 16, dtype=torch.float64, requires_grad=True)
    inputs = [tokens, *block.parameters()]
    results = (
        block(tokens, mask=Causal(), rotation=rotation, route=Route.of(vision)),
        blended(block, tokens, vision, rotation),
    )
    assert_close(*results)
    found, expected = (torch.autograd.grad(one.square().sum(), inputs, materialize_grads=True) for one in results)
    assert_close(found, expected)


def test_without_a_route_all_is_text() -> None:
    block, rotation = block_and_rotation(ALL)
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    found = block(tokens, mask=Causal(), rotation=rotation)
    assert torch.equal(found, block.text(tokens, mask=Causal(), rotation=rotation))
    assert_close(found, block(tokens, mask=Causal(), rotation=rotation, route=Route.of(MIXED & False)))


def test_branches_drop_with_a_route_and_without_one() -> None:
    block, rotation = block_and_rotation(ALL)
    block.drop_path.rate = 1 - 1e-12  # nothing is ever kept
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    for route in (None, Route.of(MIXED & False)):
        assert torch.equal(block.train()(tokens, mask=Causal(), rotation=rotation, route=route), tokens)


def test_weights_for_pictures_begin_as_those_for_text() -> None:
    model = build(node(), path="model")
    block = model.blocks.layers[1]
    tokens = torch.randn(2, 7, 16)
    block.copy_text_weights()
    for name, part in block.vision.items():
        own, text = dict(part.named_parameters()), dict(getattr(block.text, name).named_parameters())
        assert all(torch.equal(own[one], text[one]) and own[one] is not text[one] for one in text)
    assert_close(block(tokens, mask=Causal(), route=Route.of(MIXED)), block(tokens, mask=Causal()))


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = dict(build(node(("norm", "mlp")), path="model").named_parameters())
    own = {name.split(".vision.")[1] for name in names if ".vision." in name}
    assert own == {"norm_1.weight", "norm_2.weight", "mlp.gate.weight", "mlp.up.weight", "mlp.down.weight"}
    assert {name.replace(".vision.", ".text.") for name in names if ".vision." in name} <= names.keys()
    assert all(weight.is_meta for weight in names.values())


@pytest.mark.parametrize("checkpoint", ["block", "around_attention"])
def test_recomputing_changes_nothing(checkpoint: str) -> None:
    plain = decoder().train()
    other = build(node(checkpoint=checkpoint), path="model").train()
    other.load_state_dict(plain.state_dict())
    ids = torch.randint(30, MIXED.shape)
    for model in (plain, other):
        model(ids, vision=MIXED).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert_close(a.grad, b.grad)


def test_states_at_places_are_those_of_all() -> None:
    model = decoder().eval()
    ids, places = torch.randint(30, MIXED.shape), torch.tensor([[6, 2, 0], [1, 1, 5]])
    whole = model(ids, vision=MIXED)
    found = model(ids, vision=MIXED, places=places)
    assert_close(found, whole.gather(1, places[..., None].expand(-1, -1, 16)))


def test_a_cache_holds_what_both_kinds_gave() -> None:
    model = decoder().eval()
    ids = torch.randint(30, MIXED.shape)
    vision = MIXED.clone()
    vision[:, 4:] = False
    whole, cache = model(ids, vision=vision), model.cache(2, 7)
    first = model(ids[:, :3], vision=vision[:, :3], cache=cache)
    second = model(ids[:, 3:4], vision=vision[:, 3:4], cache=cache)  # a prompt read in two pieces
    rest = [model(ids[:, place : place + 1], cache=cache) for place in range(4, 7)]
    assert_close(torch.cat((first, second, *rest), 1), whole)


def test_documents_of_a_row_do_not_see_each_other() -> None:
    model = decoder().eval()
    ids, documents = torch.randint(30, (1, 7)), torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    found = model(ids, vision=MIXED[1:], positions=positions, mask=Document(documents))
    assert_close(found[:, :4], model(ids[:, :4], vision=MIXED[1:, :4]))
    assert_close(found[:, 4:], model(ids[:, 4:], vision=MIXED[1:, 4:]))


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_what_is_not_finite_stays_in_its_branch(kind: str) -> None:
    """The blend multiplies the unused branch by zero, which is not zero here."""
    model = decoder().train()
    ids, vision = torch.randint(30, (2, 7)), torch.zeros(2, 7, dtype=torch.bool)
    vision[1] = True
    own, other = (1, 0) if kind == "vision" else (0, 1)
    with torch.no_grad():
        for name, weight in model.blocks.named_parameters():
            if f".{kind}." in name:
                weight.fill_(float("inf"))
    hidden = model(ids, vision=vision)
    assert bool(hidden[other].isfinite().all())
    assert not bool(hidden[own].isfinite().any())
    hidden[other].sum().backward()
    for name, weight in model.blocks.named_parameters():
        if f".{kind}." not in name:
            assert weight.grad is not None, name
            assert bool(weight.grad.isfinite().all()), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 2e-2)])
def test_other_types(dtype: torch.dtype, tolerance: float) -> None:
    model = decoder().eval()
    ids = torch.randint(30, MIXED.shape)
    expected = model(ids, vision=MIXED)
    found = model.to(dtype)(ids, vision=MIXED)
    assert found.dtype == dtype
    assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


def test_one_graph_for_any_number_of_picture_tokens() -> None:
    """A route is made outside of the graph; within it the number of tokens of each kind is open."""
    model = decoder().train()
    block, rotation = model.blocks.layers[0], model.rotary(torch.arange(19))
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    counts: list[int] = []
    compiled = torch.compile(block, backend=counter, fullgraph=True, dynamic=True)
    for pictures in (13, 22, 31):
        vision = (torch.randperm(38) < pictures).reshape(2, 19)
        tokens, route = torch.randn(2, 19, 16, requires_grad=True), Route.of(vision)
        results = [module(tokens, mask=Causal(), rotation=rotation, route=route) for module in (compiled, block)]
        assert_close(*results)
        gradients = [torch.autograd.grad(one.square().sum(), [tokens, *block.parameters()]) for one in results]
        assert_close(*gradients)
        counts.append(counter.frame_count)
    assert counts == [counts[0]] * 3


def test_a_whole_decoder_compiles_once_too() -> None:
    """But for the number of text tokens, which is read between two graphs."""
    model = decoder().eval()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, dynamic=True)
    counts = []
    for pictures in (13, 22):
        ids, vision = torch.randint(30, (2, 19)), (torch.randperm(38) < pictures).reshape(2, 19)
        assert_close(compiled(ids, vision=vision), model(ids, vision=vision))
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]


def test_what_cannot_be_decoupled_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names \['heads'\]; it takes norm, attention, mlp"):
        build(node(("norm", "heads")), path="model")
    scaled = node()
    scaled["blocks"]["block"]["block"]["layer_scale"] = {"type": "branch_dropout", "rate": 0.1}
    with pytest.raises(ValueError, match="layer_scale=null"):
        build(scaled, path="model")
