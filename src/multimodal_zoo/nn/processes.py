"""Collectives over the processes of a data-parallel run; without a process group each is the identity.

`torch.distributed.nn` has some of them too, but its default arguments keep the group alive, and gloo's threads with it,
until the interpreter ends: processes then died in their last moment.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes of constants of one shape, the same on each; the given tensor is left as it is."""
    total = tensor.detach()
    if world_size() > 1:
        total = total.contiguous().clone()
        dist.all_reduce(total)
    return total


def summed_with_gradient(tensor: Tensor) -> Tensor:
    """The sum over processes; in backward each process gets what all processes send to the sum."""
    return tensor if world_size() == 1 else _Sum.apply(tensor)


class _Sum(torch.autograd.Function):
    """All-reduce whose backward adds up the incoming gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return summed(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient summed over processes."""
        return summed(gradient)


def from_first(tensor: Tensor) -> Tensor:
    """The first process's constants, on each; the given tensor is left as it is."""
    found = tensor.detach()
    if world_size() > 1:
        found = found.contiguous().clone()
        dist.broadcast(found, 0)
    return found


def each_one(own: Any) -> list[Any]:
    """What every process holds, in rank order; anything that can be pickled."""
    if world_size() == 1:
        return [own]
    everywhere: list[Any] = [None] * world_size()
    dist.all_gather_object(everywhere, own)
    return everywhere


def gather(tensor: Tensor) -> Tensor:
    """Every process's rows, in rank order, as constants.

    Args:
        tensor: (batch, ...), of the same shape on every process.

    Returns:
        (processes * batch, ...).

    Raises:
        ValueError: the processes hold different numbers of rows.
    """
    if world_size() == 1:
        return tensor
    sizes = _all_gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
    if len(set(sizes)) != 1:  # they would exchange garbage or wait for ever
        raise ValueError(f"every process needs the same number of pairs, not {sizes}; drop the last, short batch")
    return _all_gather(tensor)


def _all_gather(tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Every process's rows, in rank order; in backward each process gets what all processes send to its rows.

    The gradient is the sum over processes, not their mean: with a loss that is a mean over a process's own rows, and
    parameter gradients averaged over processes (as DistributedDataParallel does), the result is the gradient of the
    mean over the whole batch in one process.

    Args:
        tensor: (batch, ...), of the same shape on every process.

    Returns:
        (processes * batch, ...); `tensor` itself when there is one process.

    Raises:
        ValueError: the processes hold different numbers of rows.
    """
    return tensor if world_size() == 1 else _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """All-gather whose backward adds up the incoming gradients and returns the own rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return gather(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Own rows of the gradient summed over processes."""
        return summed(gradient)[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def swap_blocks(tensor: Tensor) -> Tensor:
    """Transpose a matrix of which each process holds its rows.

    Args:
        tensor: (batch, processes * batch), of the same shape on every process: row i of process p is about p's sample
            i, its columns about the samples of all processes in rank order.

    Returns:
        (batch, processes * batch): what all processes have in the columns of this process's samples, as rows. In
        backward the gradients go the same way back.
    """
    return tensor.T if world_size() == 1 else _SwapBlocks.apply(tensor)


class _SwapBlocks(torch.autograd.Function):
    """Each process sends every other one the columns that belong to it; its own inverse."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _swapped(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient on its way back to the rows that it belongs to."""
        return _swapped(gradient)


def _swapped(tensor: Tensor) -> Tensor:
    blocks = tensor.unflatten(1, (world_size(), -1)).permute(1, 2, 0).contiguous()  # (owner, its samples, own samples)
    received = torch.empty_like(blocks)
    dist.all_to_all_single(received, blocks)
    return received.transpose(0, 1).flatten(1)
