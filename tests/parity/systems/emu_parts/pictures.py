"""Emu's and Emu2's cases of pictures alone: from pixels to embeddings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.emu_parts.shared import (
    former,
    grad_norms,
    is_first,
    linear,
    naming,
    part,
    pooled,
    queries,
    vision,
)
from torch import Tensor, nn

from multimodal_zoo.encoders.image_tokens import ImageTokens, image_tokens

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"grad_names", "n_query"}
FORMER_KEYS = ("n_causal", "vision_width", "output_dim", "t5_config")
FIRST_KEYS = ("embed_dim", "vision_cfg", "vladapter_cfg", "output_dim", "t5_config")
SECOND_KEYS = ("vision_cfg", "hidden_size")


def _parts(case: Case) -> nn.ModuleDict:
    """The parts that cases of pictures alone have, by the name of their place in a model."""
    config, first = case.config, is_first(case.config)
    take_known(config, FIRST_KEYS if first else SECOND_KEYS, "config")
    tower = vision(config["vision_cfg"], first)
    width = tower["width"]
    if first:
        nodes = {"connector": former(config["t5_config"], width, config["output_dim"], queries(config))}
    else:
        nodes = {
            "connector": pooled(width),
            "input_projection": linear(width, config["hidden_size"]),
            "regression_head": linear(config["hidden_size"], width),
        }
    state = case.state
    made = {
        name: part(one, naming(case), state, f"{name}.") for name, one in (("image_encoder", tower), *nodes.items())
    }
    return nn.ModuleDict(made)


def parts_of(case: Case) -> nn.ModuleDict:
    """The same, made once."""
    return case.once("parts", lambda: cast(Any, _parts(case)))


def _watched(places: Mapping[str, nn.Module], run: Callable[[], Any]) -> dict[str, Tensor]:
    """What parts of a module gave while something ran; of a name that ends with `<`, what they were given."""
    seen: dict[str, Tensor] = {}

    def given(name: str) -> Callable[..., None]:
        """Keep the first input."""
        return lambda one, args: seen.update({name: args[0]})

    def gave(name: str) -> Callable[..., None]:
        """Keep the output."""
        return lambda one, args, result: seen.update({name: result})

    hooks = [
        one.register_forward_pre_hook(given(name[:-1])) if name.endswith("<") else one.register_forward_hook(gave(name))
        for name, one in places.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def features(request: Request) -> Outcome:
    """All tokens of the last block, by the connector's way and by the encoder's own."""
    encoder = parts_of(request.case)["image_encoder"]
    (image,) = request.case.take(request.call)
    return {request.call.outputs[0]: (image_tokens(encoder, image).tokens, encoder.stream(image))}


@torch.no_grad()
def inner(request: Request) -> Outcome:
    """What stands inside of the image path, by the names of the outputs."""
    parts = parts_of(request.case)
    encoder, connector = cast(Any, parts["image_encoder"]), cast(Any, parts["connector"])
    (image,) = request.case.take(request.call)
    found = {"patch_embed": encoder.patches(image)[0]}
    for name in request.call.outputs:
        if taken := re.fullmatch(r"(?:vit_)?block_(\d+)", name):
            found[name] = encoder.intermediates(image, [int(taken[1])])[0]
    if is_first(request.case.config):
        places = {f"cformer_block_{number}": one for number, one in enumerate(connector.blocks)}
        places["ln_visual"] = connector.context_norm
        seen = image_tokens(encoder, image)
        found |= _watched(places, lambda: connector(seen, connector.queries))
    return {name: found[name] for name in request.call.outputs}


@torch.no_grad()
def embeddings(request: Request) -> Outcome:
    """Embeddings of pictures: all at once, and one by one."""
    parts = parts_of(request.case)
    (image,) = request.case.take(request.call)
    count = request.call.extra.get("n_query", queries(request.case.config))

    def encode(pixels: Tensor) -> Tensor:
        """By the connector."""
        return parts["connector"](image_tokens(parts["image_encoder"], pixels), count)

    return {request.call.outputs[0]: (encode(image), torch.cat([encode(one[None]) for one in image]))}


@torch.no_grad()
def projections(request: Request) -> Outcome:
    """Emu2's embeddings as the language model reads them, and that as the regression head reads it."""
    parts = parts_of(request.case)
    (image,) = request.case.take(request.call)
    seen = image_tokens(parts["image_encoder"], image)
    up = parts["input_projection"](parts["connector"](seen, queries(request.case.config)))
    return {"projected_up": up, "projected_down": parts["regression_head"](up)}


def _former(case: Case) -> Any:
    config = take_known(case.config, FORMER_KEYS, "config")
    made = former(config["t5_config"], config["vision_width"], config["output_dim"], config["n_causal"])
    made["context_norm"] = None
    return case.once("former", lambda: cast(Any, part(made, naming(case), case.state, "connector.")))


def _formed(case: Case, tokens: Tensor) -> Tensor:
    connector = _former(case)
    return connector(ImageTokens(tokens, (1, tokens.shape[1]), 0), connector.queries)


@torch.no_grad()
def former_output(request: Request) -> Outcome:
    """The Causal Former alone: all pictures at once, and one by one."""
    (tokens,) = request.case.take(request.call)
    single = torch.cat([_formed(request.case, one[None]) for one in tokens])
    return {request.call.outputs[0]: (_formed(request.case, tokens), single)}


@torch.no_grad()
def former_inner(request: Request) -> Outcome:
    """The residual stream inside of each block, and what the last norm gives."""
    connector = _former(request.case)
    (tokens,) = request.case.take(request.call)
    places = {"final_norm": connector.norm}
    for number, block in enumerate(connector.blocks):
        inside = (("self_attention", "<", block.norm_2), ("cross_attention", "<", block.norm_3), ("block", "", block))
        places |= {f"{name}_{number}{side}": one for name, side, one in inside}
    found = _watched(places, lambda: _formed(request.case, tokens))
    return {name: found[name] for name in request.call.outputs}


def relative(request: Request) -> Outcome:
    """Which bucket each pair is in, and what is added for it; of keys ahead every way is right, a mask hides them."""
    connector = _former(request.case)
    bucket, bias = connector.positions.buckets(connector.queries), connector.positions(connector.queries)
    return {"relative_bucket": bucket, "relative_bias": bias}


def former_backward(request: Request) -> Outcome:
    """Gradients of the mean square of what the Causal Former gives."""
    case, call = request.case, request.call
    connector = _former(case)
    connector.zero_grad()
    tokens = case.take(call)[0].requires_grad_()
    loss = _formed(case, tokens).square().mean()
    loss.backward()
    norms = grad_norms(case, connector, call.extra["grad_names"], "connector.")
    return {"loss": loss, "grad_norms": norms, "grad_img_embeds": cast(Tensor, tokens.grad)}


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"visual\.forward_features|visual\.forward \(all tokens\)")(features)
    system.call(
        r"intermediate: patch embedding, after (?:ViT )?block \d+(?:, after ln_visual, after Causal Former block \d+)?"
    )(inner)
    system.call(r"cformer\(ln_visual\(visual\.forward_features\(image\)\)\)|encode_image")(embeddings)
    system.call(r"project_up\(encode_image\(image\)\); project_down of that")(projections)
    system.call(r"CausalFormer\.forward")(former_output)
    system.call(r"intermediate: after the self-attention sub-layer, .*")(former_inner)
    system.call(r"relative position bucket \[query, key\] and the bias it gives .*")(relative)
    system.call(r"backward of mean\(causal_output\*\*2\)")(former_backward)
