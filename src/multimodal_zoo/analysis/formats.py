"""Sizes of weights for inference: whole, in half precision, and with the matrices of the blocks in 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from multimodal_zoo.analysis.shadow import blocks_of

#: Weights that share a scale and a zero point in 4 bits.
GROUP_SIZE = 128
_SCALE, _ZERO_POINT = 4, 1  # bytes of each row's float32 scale and 8-bit zero point, in 8 bits


@dataclass(frozen=True)
class Format:
    """How a model is kept for inference.

    Attributes:
        matrix: bytes of a matrix of a block.
        rest: bytes of a floating-point number of anything else.
    """

    matrix: Callable[[Tensor], int]
    rest: int


def _int8(weight: Tensor) -> int:
    return weight.numel() + weight.shape[0] * (_SCALE + _ZERO_POINT)


def _int4(weight: Tensor) -> int:
    if weight.shape[1] % GROUP_SIZE:
        return _int8(weight)
    return weight.numel() // 2 + 2 * 2 * weight.numel() // GROUP_SIZE


FORMATS: dict[str, Format] = {
    "float32": Format(lambda weight: 4 * weight.numel(), 4),
    "float16 / bfloat16": Format(lambda weight: 2 * weight.numel(), 2),
    "int8": Format(_int8, 2),
    "int4": Format(_int4, 2),
}


def block_matrices(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a model's repeated blocks whose `weight` is a matrix that tokens are multiplied with, by name.

    Norms, biases, embeddings, positions, patches and the projections to the common space are not among them: they are
    small, or sensitive, or both.
    """
    return {
        f"{block_name}.{name}".rstrip("."): part
        for block_name, block in blocks_of(model)
        for name, part in block.named_modules()
        if not isinstance(part, nn.Embedding)
        and isinstance(weight := getattr(part, "weight", None), nn.Parameter)
        and weight.ndim == 2
    }


def inference_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of weights and buffers by format; activations of inference come on top and are small.

    In `int8` each row of a block's matrix has a scale of its own; in `int4` each group of `GROUP_SIZE` weights has (a
    matrix whose width is no multiple of that takes 8 bits). Everything else is in half precision there.
    """
    matrices = {id(part.weight): part.weight for part in block_matrices(model).values()}
    others = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in matrices]
    return {
        name: sum(form.matrix(weight) for weight in matrices.values())  # type: ignore[arg-type]
        + sum(t.numel() * (form.rest if t.is_floating_point() else t.element_size()) for t in others)
        for name, form in FORMATS.items()
    }
