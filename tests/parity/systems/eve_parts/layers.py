"""EVE v2's cases of one decoder layer with weights of their own for pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.eve_parts.shared import DECODER_KEYS, decoder, gradients, norms, v2_naming
from torch import Tensor, nn

from multimodal_zoo.nn.decoupled import DecoupledBlock
from multimodal_zoo.nn.masks import Causal
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.nn.route import Route
from multimodal_zoo.registry import build

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"grad_norms"}
PREFIX = "decoder.blocks.layers.0."
KEYS = DECODER_KEYS | {"add_moe", "moe_part"}


def _block(case: Case) -> nn.Module:
    def make() -> nn.Module:
        node = decoder(take_known(case.config, KEYS, "config"))
        assert node["blocks"]["depth"] == 1
        block = build(node["blocks"]["block"], path="block")
        state = v2_naming(case.config).load(case.state)
        block.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in state.items()})
        return block.eval()

    return case.once("block", make)


def _rotation(case: Case, tokens: int) -> Rotation:
    return build(decoder(case.config)["rotary"], path="rotary")(torch.arange(tokens))


def _flags(mask: Tensor) -> Tensor:
    assert ((mask == 0) | (mask == 1)).all()
    return mask[..., 0] == 1


def _run(case: Case, states: Tensor, vision: Tensor, places: Tensor | None = None) -> Tensor:
    block = _block(case)
    given: dict[str, Any] = {"mask": Causal(), "rotation": _rotation(case, states.shape[1]), "places": places}
    if isinstance(block, DecoupledBlock):
        given["route"] = Route.of(vision)
    return block(states, **given)


def _parts(block: nn.Module, name: str) -> list[nn.Module]:
    """The modules of a name, of text and of pictures."""
    if not isinstance(block, DecoupledBlock):
        return [block.get_submodule(name)]
    first, _, rest = name.partition(".")
    own = [block.vision[first].get_submodule(rest)] if first in block.vision else []
    return [block.text.get_submodule(name), *own]


@torch.no_grad()
def forward(request: Request) -> Outcome:
    """The layer, its first norm and its attention: tokens of both kinds at once, and every token asked for by name."""
    states, mask = request.case.take(request.call)
    vision, block, seen = _flags(mask), _block(request.case), {}
    hooks = []
    for name in ("norm_1", "attention.out"):
        seen[name] = kept = []
        for one in _parts(block, name):
            hooks.append(one.register_forward_hook(lambda _part, _given, out, kept=kept: kept.append(out)))
    whole = _run(request.case, states, vision)
    for hook in hooks:
        hook.remove()
    merged = {name: kept[0] if len(kept) == 1 else Route.of(vision).merge(*kept) for name, kept in seen.items()}
    places = torch.arange(states.shape[1]).expand(len(states), -1)
    return {
        "output": (whole, _run(request.case, states, vision, places)),
        "normed_input": merged["norm_1"],
        "attention_output": merged["attention.out"],
    }


def backward(request: Request) -> Outcome:
    """Gradients of the states and of all weights."""
    states, mask = request.case.take(request.call)
    block = _block(request.case)
    block.zero_grad()
    loss = _run(request.case, states.requires_grad_(), _flags(mask)).square().mean()
    loss.backward()
    found = gradients(block, v2_naming(request.case.config), PREFIX)
    return {"loss": loss[None], "grad_hidden_states": states.grad, **norms(request.call, found)}


@torch.no_grad()
def single(request: Request) -> Outcome:
    """One token, as in decoding: text, with and without saying so."""
    (states,) = request.case.take(request.call)
    silent = _block(request.case)(states, mask=Causal(), rotation=_rotation(request.case, 1))
    said = _run(request.case, states, torch.zeros(states.shape[:2], dtype=torch.bool))
    return {request.call.outputs[0]: (silent, said)}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"Qwen2DecoderLayer\.forward")(forward)
    system.call(r"backward of mean\(output \*\* 2\)")(backward)
    system.call(r"Qwen2DecoderLayer\.forward with a single position \(position id 0, no cache\)")(single)
