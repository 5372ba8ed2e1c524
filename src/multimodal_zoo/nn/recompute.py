"""Cheap results that the backward pass computes again instead of keeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from torch.utils.checkpoint import checkpoint as checkpoint_call

from multimodal_zoo.nn.accumulate import plain_autograd

_ATEN = torch.ops.aten
#: Torch's fused attentions -> the argument that is their dropout.
FUSED_ATTENTION = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: 3,
    _ATEN._scaled_dot_product_flash_attention.default: 3,
    _ATEN._scaled_dot_product_efficient_attention.default: 5,
    _ATEN._scaled_dot_product_cudnn_attention.default: 5,
}


def recompute(run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`run(*inputs)`, of which only the inputs are kept for the backward pass.

    The backward pass repeats `run` up to the last tensor that it needs: a matrix product at the end is not repeated,
    so an activation function in front of one costs no more than itself.

    Args:
        run: draws no random numbers; may use parameters of the module that calls.
        *inputs: what it works on.
    """
    watched = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    # a compiler decides by itself what to keep; torch.func takes no hooks on what is kept
    if not watched or not plain_autograd():
        return run(*inputs)
    return checkpoint_call(run, *inputs, use_reentrant=False, preserve_rng_state=False, determinism_check="none")


def keep_attention() -> Any:
    """What torch's checkpoint takes as `context_fn` to keep results of fused attention and recompute all else.

    Attention with dropout is recomputed too: if it were not, the dropout after it would draw other numbers.
    """
    return create_selective_checkpoint_contexts(_kept)


def _kept(_: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    place = FUSED_ATTENTION.get(operation)
    if place is None:
        return CheckpointPolicy.PREFER_RECOMPUTE
    dropout = options.get("dropout_p", arguments[place] if len(arguments) > place else 0.0)
    return CheckpointPolicy.PREFER_RECOMPUTE if dropout else CheckpointPolicy.MUST_SAVE
