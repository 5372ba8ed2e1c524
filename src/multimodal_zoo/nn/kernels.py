"""The table of attention kernels: a strict choice by name, never a quiet fallback."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.nn.dropped import BLOCK, dropped_causal
from multimodal_zoo.nn.masks import At, Causal, Dense, Mask, dense
from multimodal_zoo.nn.packed import attend_runs, causal_documents, cumulative, packed_runs

#: Up to so many queries, those of a cached step, the heads of a group are queries of their one key head.
FEW_QUERIES = 8
#: `(query, key, value, mask, scale, dropout) -> result`, all `(batch, heads, tokens, head_dim)`.
Run = Callable[[Tensor, Tensor, Tensor, "Mask | None", float, float], Tensor]


class Kernel(NamedTuple):
    """One entry of the table.

    Attributes:
        run: computes the attention.
        missing: says why the kernel cannot run here and how to get it; empty when it can.
    """

    run: Run
    missing: Callable[[], str]


def _densify(mask: Mask | None, query: Tensor, key: Tensor) -> Dense:
    return Dense(None, None, None) if mask is None else dense(mask, query.shape[2], key.shape[2], query.device)


def _repeat_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Each key head serves `heads / kv_heads` consecutive query heads."""
    groups = query.shape[1] // key.shape[1]
    return (key, value) if groups == 1 else (key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1))


def _zero_empty(result: Tensor, alive: Tensor | None) -> Tensor:
    return result if alive is None else torch.where(alive, result, 0.0)


def _math(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, scale: float, dropout: float) -> Tensor:
    """The definition, softmax in float32 at least; what every other kernel is tested against."""
    key, value = _repeat_heads(query, key, value)
    shape = _densify(mask, query, key)
    exact = torch.promote_types(query.dtype, torch.float32)
    logits = (query @ key.transpose(-2, -1)).to(exact) * scale
    extra = shape.additive(exact)
    weights = (logits if extra is None else logits + extra).softmax(-1).to(value.dtype)
    return _zero_empty(F.dropout(weights, dropout) @ value, shape.alive)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, scale: float, dropout: float) -> Tensor:
    """The scaled_dot_product_attention of torch, which picks its own implementation per device."""
    queries, keys = query.shape[2], key.shape[2]
    triangle = isinstance(mask, Causal) and mask.offset == 0 and queries == keys
    if mask is None or (isinstance(mask, Causal) and mask.offset >= keys - 1):  # nothing is forbidden
        grouped = query.shape[1] != key.shape[1]
        if grouped and queries <= FEW_QUERIES:
            return _grouped(query, key, value, None, dropout, scale)
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale, enable_gqa=grouped)
    if triangle:
        return _triangle(query, key, value, scale, dropout)
    if (runs := packed_runs(mask, queries, keys)) is not None:
        return attend_runs(query, key, value, runs, scale, dropout, _triangle)
    shape = _densify(mask, query, key)
    extra = shape.allowed if shape.bias is None else shape.additive(query.dtype)
    if queries <= FEW_QUERIES and query.shape[1] != key.shape[1]:
        result = _grouped(query, key, value, extra, dropout, scale)
    else:
        key, value = _repeat_heads(query, key, value)  # with a dense mask torch's grouped path is the slow one
        result = F.scaled_dot_product_attention(query, key, value, attn_mask=extra, dropout_p=dropout, scale=scale)
    return _zero_empty(result, shape.alive)


def _triangle(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """Causal attention over as many keys as queries."""
    long = dropout > 0 and query.device.type == "cpu" and not torch.compiler.is_compiling() and query.shape[2] > BLOCK
    if long:  # torch would hold every weight
        return dropped_causal(query, *_repeat_heads(query, key, value), scale, dropout)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=grouped
    )


def _grouped(query: Tensor, key: Tensor, value: Tensor, extra: Tensor | None, dropout: float, scale: float) -> Tensor:
    """Few queries over many keys: the query heads of a key head stand as its queries, and no key is copied."""
    batch, heads, queries, _ = query.shape
    groups = heads // key.shape[1]
    if extra is not None:
        extra = extra[(None,) * (4 - extra.dim())]
        if extra.shape[1] > 1:
            extra = extra.unflatten(1, (-1, groups)).expand(-1, -1, -1, queries, -1).flatten(2, 3)
        elif extra.shape[2] > 1:
            extra = extra.repeat(1, 1, groups, 1)
    folded = query.reshape(batch, -1, groups * queries, query.shape[3])
    result = F.scaled_dot_product_attention(folded, key, value, attn_mask=extra, dropout_p=dropout, scale=scale)
    return result.reshape(batch, heads, queries, -1)


def _flash(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, scale: float, dropout: float) -> Tensor:
    """flash-attn; its causal triangle is aligned to the last key, which is what a KV cache needs."""
    from flash_attn import flash_attn_func

    if isinstance(mask, At) and query.shape[2] == 1:  # it knows no mask a row: ask at every place, keep the one
        everywhere = _flash(query.repeat(1, 1, key.shape[2], 1), key, value, mask.mask, scale, dropout)
        places = mask.places[:, None, :, None].expand(-1, query.shape[1], -1, value.shape[3])
        return everywhere.gather(2, places)
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"kernel 'flash' takes float16 or bfloat16, got {query.dtype}; use 'sdpa' or lower precision")
    documents = causal_documents(mask, query.shape[2], key.shape[2])
    if documents is not None and documents.runs is not None:
        return _flash_runs(query, key, value, cumulative(documents.runs, query.device), scale, dropout)
    triangle = isinstance(mask, Causal) and mask.offset == key.shape[2] - query.shape[2]
    if mask is not None and not triangle:
        raise ValueError(
            "kernel 'flash' takes no mask, Causal aligned to the last key or within documents, or a place of these, "
            f"not {type(mask).__name__}: guided drawing and answers in batches have padding; use 'sdpa'"
        )
    rows = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    return flash_attn_func(*rows, dropout_p=dropout, softmax_scale=scale, causal=triangle).transpose(1, 2)


def _flash_runs(
    query: Tensor, key: Tensor, value: Tensor, borders: tuple[Tensor, int], scale: float, dropout: float
) -> Tensor:
    """flash-attn over documents of any lengths that lie end to end."""
    from flash_attn import flash_attn_varlen_func

    batch, (starts, longest) = len(query), borders
    rows = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
    result = flash_attn_varlen_func(
        *rows, starts, starts, longest, longest, dropout_p=dropout, softmax_scale=scale, causal=True
    )
    return result.unflatten(0, (batch, -1)).transpose(1, 2)


def _xformers(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, scale: float, dropout: float) -> Tensor:
    """The memory_efficient_attention of xformers with an additive bias."""
    from xformers.ops import memory_efficient_attention

    shape = _densify(mask, query, key)
    key, value = _repeat_heads(query, key, value)
    extra = shape.additive(query.dtype)
    if extra is not None:  # the operator wants rows that start at multiples of 8
        batch, heads, queries = query.shape[:3]
        keys = key.shape[2]
        room = extra.new_empty(batch, heads, queries, -(-keys // 8) * 8)[..., :keys]
        extra = room.copy_(extra.expand(batch, heads, queries, keys))
    rows = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    result = memory_efficient_attention(*rows, attn_bias=extra, p=dropout, scale=scale).transpose(1, 2)
    return _zero_empty(result, shape.alive)


def _always() -> str:
    return ""


def _no_accelerator(name: str, package: str) -> str:
    return "" if torch.cuda.is_available() else f"kernel {name!r} needs {package} on a CUDA device, and there is none"


@cache
def _flash_missing() -> str:
    try:
        import flash_attn  # noqa: F401
    except ImportError as error:
        return f"kernel 'flash' needs flash-attn on CUDA (pip install flash-attn --no-build-isolation): {error}"
    return _no_accelerator("flash", "flash-attn")


@cache
def _xformers_missing() -> str:
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        return f"kernel 'xformers' needs xformers on CUDA (pip install 'multimodal_zoo[gpu]'): {error}"
    if reason := _no_accelerator("xformers", "xformers"):
        return reason
    probe = torch.zeros(1, 8, 1, 32, dtype=torch.float16, device="cuda")
    try:  # the package imports happily when its compiled operator does not fit this torch
        memory_efficient_attention(probe, probe, probe)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return f"kernel 'xformers' is installed but its operator does not run here: {str(error).splitlines()[0]}"
    return ""


KERNELS: dict[str, Kernel] = {
    "sdpa": Kernel(_sdpa, _always),
    "math": Kernel(_math, _always),
    "flash": Kernel(_flash, _flash_missing),
    "xformers": Kernel(_xformers, _xformers_missing),
}


def usable_kernels() -> list[str]:
    """Names of the kernels that can run on this machine."""
    return [name for name, kernel in KERNELS.items() if not kernel.missing()]


def check_kernel_name(name: str) -> str:
    """Return `name` if the table has it.

    Raises:
        LookupError: with the names that exist. Whether the kernel can run is asked when it is used, so that a model
            can be built on another machine than it runs on.
    """
    if name not in KERNELS:
        raise LookupError(f"no attention kernel named {name!r}; known: {', '.join(KERNELS)}")
    return name


def find_kernel(name: str) -> Run:
    """The function of a kernel that can run here.

    Raises:
        LookupError: an unknown kernel, or an absent one with how to install it and what is usable.
    """
    kernel = KERNELS[check_kernel_name(name)]
    if reason := kernel.missing():
        raise LookupError(f"{reason}; usable here: {', '.join(usable_kernels())}")
    return kernel.run
