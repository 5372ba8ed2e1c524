"""Deep stacks by a few of their blocks: the inner blocks of a stack are alike, so that one tells the cost of all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from multimodal_zoo.analysis.shadow import attached
from multimodal_zoo.nn.transformer import Transformer

#: Fewest inner blocks of a stack for which leaving some out is worth it.
FEWEST = 3


def inner_blocks(model: nn.Module) -> dict[str, int]:
    """The stacks whose blocks between the first and the last are alike, by name, and how many these are.

    A stack with differing or with few inner blocks is not among them.
    """
    found: dict[str, int] = {}
    for name, part in model.named_modules():
        if isinstance(part, Transformer) and len(inner := list(part.layers)[1:-1]) >= FEWEST:
            own = [id(p) for block in inner for p in block.parameters()]
            if len(own) == len(set(own)) and all(_facts(block) == _facts(inner[0]) for block in inner):
                found[name] = len(inner)
    return found


def thinned(model: nn.Module, kept: Mapping[str, int]) -> nn.Module:
    """A copy of a model with fewer inner blocks in some stacks; its tensors are the model's own.

    Args:
        model: is not touched.
        kept: how many inner blocks stay, by the stack's name.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shared |= attached(model)
    for name, count in kept.items():
        layers = model.get_submodule(name).layers
        shared[id(layers)] = nn.ModuleList([*layers[: 1 + count], layers[-1]])  # type: ignore[index, misc]
    thin = copy.deepcopy(model, shared)
    for name in kept:
        stack = thin.get_submodule(name)
        stack.depth = len(stack.layers)  # type: ignore[arg-type, assignment]
    return thin


def by_depth(model: nn.Module, measure: Callable[[nn.Module], int]) -> int:
    """What `measure` gives for a model, found on copies with one or two inner blocks in each stack.

    Exact for whatever every further inner block raises by the same amount, as operations.

    Args:
        model: on any device.
        measure: a cost of a model.
    """
    inner = inner_blocks(model)
    one = dict.fromkeys(inner, 1)
    least = measure(thinned(model, one)) if inner else measure(model)
    return least + sum(
        (count - 1) * (measure(thinned(model, {**one, name: 2})) - least) for name, count in inner.items()
    )


def _facts(block: nn.Module) -> list[tuple[Any, ...]]:
    """What decides the cost of a block; of rates only whether they are zero."""
    return [
        (
            type(part),
            [
                (k, v > 0 if isinstance(v, float) else v)
                for k, v in vars(part).items()
                if isinstance(v, (int, float, str))
            ],
            [(n, p.shape, p.dtype, p.requires_grad) for n, p in part.named_parameters(recurse=False)],
            [(n, b.shape, b.dtype) for n, b in part.named_buffers(recurse=False)],
        )
        for part in block.modules()
    ]
