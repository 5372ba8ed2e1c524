"""Calls on DeCLIP's towers: embeddings that are not normalised, dense tokens, inner activations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from harness.run import Outcome, Request
from systems.declip_parts.models import model_of
from torch import Tensor, nn

from multimodal_zoo.nn.masks import Causal


def pixels(name: str, tensor: Tensor) -> Tensor:
    """An input as the tower gets it; one in bytes is scaled to -1 to 1, as the notes of such cases say."""
    return tensor if tensor.is_floating_point() else tensor / 127.5 - 1


@contextmanager
def outputs_of(parts: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What each of some modules gives while the block runs."""
    seen: dict[str, Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda module, inputs, out, name=name: seen.__setitem__(name, out))
        for name, part in parts.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def encode_image(request: Request) -> Outcome:
    """The image tower: everything that is asked for by name."""
    (name,), (images,) = request.call.inputs, request.case.take(request.call)
    model = model_of(request.case)
    if request.match["first"]:
        images = images[:1]
    resnet = hasattr(model.image, "stages")
    with torch.no_grad():
        found = (resnet_outputs if resnet else vit_outputs)(model, pixels(name, images))
    return {output: thinned(output, found) for output in request.call.outputs}


def thinned(output: str, found: Outcome) -> Tensor | tuple[Tensor, ...]:
    """An output by name; `_every_8th` keeps every 8th row and column, `_batch_of_one` drops the batch axis."""
    if every := re.fullmatch(r"(?P<what>\w+)_every_(?P<step>\d+)(?:th|nd|rd|st)", output):
        step = int(every["step"])
        return found[every["what"]][..., ::step, ::step]
    if output == "pooled_batch_of_one":
        return tuple(way[0] for way in found["pooled"])
    return found[output]


def vit_outputs(model: nn.Module, images: Tensor) -> Outcome:
    """Of a vision transformer."""
    tower = model.image
    with outputs_of({"patches": tower.patches, "ln_pre": tower.norm_in}) as seen:
        features = tower(images)
    blocks = tower.intermediates(images, range(tower.blocks.depth))
    pooled = tower.pooled(images)
    return {
        "pooled": (model.image_projection(features.pooled), model.image_projection(pooled)),
        "feature": (features.pooled, pooled),
        "dense": features.tokens,
        "after_patch_embed": seen["patches"][0],
        "after_ln_pre": seen["ln_pre"],
        **{f"after_block{number}": tokens for number, tokens in enumerate(blocks)},
    }


def resnet_outputs(model: nn.Module, images: Tensor) -> Outcome:
    """Of a ResNet; the projection is part of its pooling."""
    tower = model.image
    with outputs_of({"stem": tower.stem}) as seen:
        features = tower(images)
    maps = tower.feature_maps(images)
    return {
        "pooled": (model.image_projection(features.pooled), tower.pool(maps[-1])),
        "dense": (features.tokens, maps[-1].flatten(2).mT),
        "after_stem": seen["stem"],
        **{f"after_layer{number}": stage for number, stage in enumerate(maps, start=1)},
    }


def encode_text(request: Request) -> Outcome:
    """The text tower, and the logits of the masked-word head at every position."""
    (ids,) = request.case.take(request.call)
    model = model_of(request.case)
    tower = model.text
    with torch.no_grad():
        features, embedded = tower(ids), tower.embed(ids)
        blocks = tower.blocks.intermediates(embedded, range(tower.blocks.depth), mask=Causal())
        found = {
            "pooled": (model.text_projection(features.pooled), model.text_projection(tower.pooled(ids))),
            "dense": features.tokens,
            "after_embedding": embedded,
            **{f"after_block{number}": tokens for number, tokens in enumerate(blocks)},
        }
        if "masked_words" in model.heads:
            found["mlm_logits"] = model.heads["masked_words"](features.tokens)
    return {output: found[output] for output in request.call.outputs}
