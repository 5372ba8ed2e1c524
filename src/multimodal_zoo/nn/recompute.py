"""Cheap results that the backward pass computes again instead of keeping."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as checkpoint_call


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
    if not watched or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return run(*inputs)
    return checkpoint_call(run, *inputs, use_reentrant=False, preserve_rng_state=False, determinism_check="none")
