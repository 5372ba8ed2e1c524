"""Sizes of weights for inference: whole, in half precision, and with the matrices of the blocks in 8 or 4 bits."""

from __future__ import annotations

from torch import nn

from multimodal_zoo.nn.projections import KeylessBiasProjection, PackedProjection
from multimodal_zoo.nn.repeated import blocks_of

#: Weights that share a scale and a zero point in 4 bits, and what the rows of a matrix must be a multiple of.
GROUP_SIZE, ROWS = 128, 16
_SCALE, _ZERO_POINT = 4, 1  # bytes of each row's float32 scale and 8-bit zero point, in 8 bits
_HALF = 2


def block_matrices(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a model's repeated blocks whose `weight` is a matrix that tokens are multiplied with, by name.

    Norms, biases, embeddings, positions, patches and the projections to the common space are not among them: they are
    small, or sensitive, or both. Nor are parts that a model wants whole (its `whole_parts`).
    """
    whole = tuple(f"{name}." for name in getattr(model, "whole_parts", ()))
    return {
        f"{block_name}.{name}".rstrip("."): part
        for block_name, block in blocks_of(model)
        if not (whole and block_name.startswith(whole))
        for name, part in block.named_modules()
        if not isinstance(part, nn.Embedding)
        and isinstance(weight := getattr(part, "weight", None), nn.Parameter)
        and weight.ndim == 2
    }


def in_four_bits(model: nn.Module) -> set[str]:
    """Which of `block_matrices` can be kept in 4 bits; where 4 bits are wanted, the others take 8.

    Groups must divide the width and packing wants a multiple of `ROWS` rows. In the last block of a stack, which may
    be asked for a few tokens only, packed projections read slices of their matrix, which packing forbids.
    """
    last = [stack[-1] for stack in model.modules() if isinstance(stack, nn.ModuleList) and len(stack)]
    sliced = {
        id(part)
        for block in last
        for part in block.modules()
        if isinstance(part, (PackedProjection, KeylessBiasProjection))
    }
    return {
        name
        for name, part in block_matrices(model).items()
        if not (part.weight.shape[1] % GROUP_SIZE or part.weight.shape[0] % ROWS or id(part) in sliced)
    }


def inference_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of weights and buffers by format; activations of inference come on top and are small.

    In `int8` each row of a block's matrix has a scale of its own; in `int4` each group of `GROUP_SIZE` weights has
    (`in_four_bits`). Everything else is in half precision there.
    """
    tensors = [*model.parameters(), *model.buffers()]
    whole = {
        size: sum(t.numel() * (size if t.is_floating_point() else t.element_size()) for t in tensors) for size in (4, 2)
    }
    matrices = {id(part.weight): (name, part.weight) for name, part in block_matrices(model).items()}
    four = in_four_bits(model)
    eight_bits = {name: w.numel() + w.shape[0] * (_SCALE + _ZERO_POINT) for name, w in matrices.values()}
    four_bits = {
        name: w.numel() // 2 + 2 * _HALF * w.numel() // GROUP_SIZE if name in four else eight_bits[name]
        for name, w in matrices.values()
    }
    rest = whole[2] - sum(_HALF * w.numel() for _, w in matrices.values())
    return {
        "float32": whole[4],
        "float16 / bfloat16": whole[2],
        "int8": rest + sum(eight_bits.values()),
        "int4": rest + sum(four_bits.values()),
    }
