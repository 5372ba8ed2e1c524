"""Building models without memory, and without the work that drawing weights nobody sees would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from multimodal_zoo.registry import build

#: Functions of torch.nn.init and in-place methods of tensors that draw first weights, or scale what was drawn.
DRAWS = (
    "div_", "mul_", "normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
    "xavier_normal_", "orthogonal_", "bernoulli_", "exponential_",
)  # fmt: skip


class _NoDraws(TorchFunctionMode):
    """Draws on the meta device do nothing: for the first of them torch imports its compiler, which takes seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            drawn = args[0] if args else kwargs.get("tensor")
            if isinstance(drawn, Tensor) and drawn.is_meta:
                return drawn
        return func(*args, **kwargs)


@contextmanager
def meta_device() -> Iterator[None]:
    """Create tensors on the meta device and draw nothing."""
    with torch.device("meta"), _NoDraws():
        yield


def module_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """A model node without what travels with the module and is no argument of it."""
    return {str(key): value for key, value in node.items() if key not in ("processor", "card")}


def build_on_meta(node: Mapping[str, Any]) -> nn.Module:
    """The module of a model node without memory: its shapes."""
    with meta_device():
        return build(module_node(node), path="model")  # type: ignore[no-any-return]
