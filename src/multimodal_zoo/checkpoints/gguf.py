"""Reading tensors of GGUF files, the container of llama.cpp, as float32: numpy alone, one block of a model at a time.

Weights lie in groups of 32 that share a scale (Q8_0), or a scale and a minimum (Q4_1). What they stand for is computed
in float32 as llama.cpp does, so that the result is the same bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CorruptCheckpoint, UnknownCheckpoint
from multimodal_zoo.files import reading
from multimodal_zoo.gguf_header import GgufHeader, GgufTensor, read_header

Raw = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
#: Weights that share a scale.
GROUP = 32


@dataclass(frozen=True)
class Kind:
    """How weights are stored.

    Attributes:
        name: as llama.cpp calls it.
        weights: how many a piece holds.
        size: bytes of a piece.
        floats: from pieces `(n, size)` to weights `(n, weights)`.
    """

    name: str
    weights: int
    size: int
    floats: Callable[[Raw], Floats]


def _half(columns: Raw) -> Floats:
    return columns.view(np.float16).astype(np.float32)


def _q4_1(pieces: Raw) -> Floats:
    """`scale q + minimum`: two halves, then 16 bytes whose low halves are the first 16 weights."""
    packed = pieces[:, 4:]
    weights = np.empty((len(pieces), GROUP), np.float32)
    weights[:, : GROUP // 2], weights[:, GROUP // 2 :] = packed & 15, packed >> 4
    weights *= _half(pieces[:, :2])
    weights += _half(pieces[:, 2:4])
    return weights


def _q8_0(pieces: Raw) -> Floats:
    """`scale q`: one half, then 32 signed bytes."""
    weights = pieces[:, 2:].view(np.int8).astype(np.float32)
    weights *= _half(pieces[:, :2])
    return weights


def _f32(pieces: Raw) -> Floats:
    return pieces.view(np.float32).copy()


#: Number of a type in the file -> how it is read.
KINDS = {
    0: Kind("F32", 1, 4, _f32),
    1: Kind("F16", 1, 2, _half),
    3: Kind("Q4_1", GROUP, 20, _q4_1),
    8: Kind("Q8_0", GROUP, 34, _q8_0),
}
#: Types that other files have, for errors.
_UNREAD = {
    2: "Q4_0", 6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K",
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4",
}  # fmt: skip


def gguf_header(path: Path) -> GgufHeader:
    """The header of a file, with this room's errors.

    Raises:
        CorruptCheckpoint: no GGUF file, or a damaged one.
    """
    try:
        return read_header(path)
    except ValueError as error:
        raise CorruptCheckpoint(str(error)) from error


def gguf_shapes(path: Path) -> dict[str, Tensor]:
    """Names and shapes, on the meta device; all are float32 once read.

    Raises:
        CorruptCheckpoint: see `gguf_header`.
    """
    tensors = gguf_header(path).tensors
    with reading(path, "whole GGUF file", kind=CorruptCheckpoint):  # sizes may be beyond what torch counts with
        return {name: torch.empty(one.shape, dtype=torch.float32, device="meta") for name, one in tensors.items()}


def gguf_shards(path: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors by name, those of one block of the model at a time, so that no process holds two copies of all.

    Queries and keys of LLaMA's family are stored for rotation in planes of neighbours; they are given back for the
    half-split planes that everybody else's files are for.

    Raises:
        CorruptCheckpoint: no GGUF file, or a damaged one.
        UnknownCheckpoint: a type of weights that is not read.
    """
    header = gguf_header(path)
    for name, one in header.tensors.items():  # complain before any work is done
        _check(path, name, one)
    content = np.memmap(path, np.uint8, "r")
    for _, names in groupby(header.tensors, key=_block):
        with reading(path, "whole GGUF file", kind=CorruptCheckpoint):
            block = {name: torch.from_numpy(_weights(content, header, name)) for name in names}
        yield block


def _block(name: str) -> str:
    """What a tensor is read together with: `blk.7` and all that is in it, else itself alone."""
    return ".".join(name.split(".")[:2])


def _check(path: Path, name: str, tensor: GgufTensor) -> None:
    kind = KINDS.get(tensor.kind)
    if kind is None:
        known = ", ".join(one.name for one in KINDS.values())
        raise UnknownCheckpoint(
            f"{path}: {name} is stored as {_UNREAD.get(tensor.kind, f'type {tensor.kind}')}; read are {known}"
        )
    if not tensor.shape or tensor.shape[-1] % kind.weights:
        raise CorruptCheckpoint(f"{path}: {name} {list(tensor.shape)} has no whole groups of {kind.weights} weights")
    if tensor.start + _bytes(tensor) > path.stat().st_size:
        raise CorruptCheckpoint(f"{path}: the file ends before {name} does; download it again")


def _bytes(tensor: GgufTensor) -> int:
    kind = KINDS[tensor.kind]
    return math.prod(tensor.shape) // kind.weights * kind.size


def _weights(content: Raw, header: GgufHeader, name: str) -> Floats:
    tensor = header.tensors[name]
    kind = KINDS[tensor.kind]
    raw = content[tensor.start : tensor.start + _bytes(tensor)]
    weights = kind.floats(raw.reshape(-1, kind.size)).reshape(tensor.shape)
    heads = _rotated_heads(header, name)
    return weights if heads is None else _half_split(weights, heads)


def _rotated_heads(header: GgufHeader, name: str) -> int | None:
    """The heads of a matrix or bias whose rows are in another order, or None for all others."""
    if header.architecture != "llama" or not name.startswith("blk."):
        return None
    heads = header.size("attention.head_count")
    part = name.split(".")[2]
    return {"attn_q": heads, "attn_k": header.size("attention.head_count_kv", heads)}.get(part)


def _half_split(weights: Floats, heads: int) -> Floats:
    """Rows of each head from neighbours (x0, y0, x1, y1, ...) to halves (x0, x1, ..., y0, y1, ...)."""
    pairs = weights.reshape(heads, -1, 2, *weights.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weights.shape)
