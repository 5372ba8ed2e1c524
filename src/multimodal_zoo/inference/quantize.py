"""Weight-only quantisation of the matrices of a model's blocks, by torchao.

Products are computed in the type of the activations; only what is stored shrinks. Norms, biases, embeddings, patches
and the projections to the common space keep their type.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.analysis.formats import GROUP_SIZE, block_matrices, in_four_bits
from multimodal_zoo.packages import needed

BITS = ("int8", "int4")


def check_bits(bits: str) -> str:
    """Return `bits` if it is a format of this module and torchao is there.

    Raises:
        ValueError: another word.
        ImportError: no torchao, with how to install it.
    """
    if bits not in BITS:
        raise ValueError(f"quantize={bits!r} is not known; it takes {', '.join(BITS)}")
    needed("torchao", f"quantize={bits!r}", "quantize")
    return bits


def quantize(model: nn.Module, bits: str) -> nn.Module:
    """Quantise a model in place and give it back; it can no longer be trained, saved or converted.

    In `int8` each row of a matrix has a scale (and nearly nothing is lost); in `int4` each group of `GROUP_SIZE`
    weights has a scale and a zero point, and matrices that cannot be packed so (`in_four_bits`) take 8.

    Args:
        model: with its weights, on the device that it will run on: the layout of 4 bits depends on it. On an
            accelerator 4 bits need bfloat16.
        bits: `int8` or `int4`.

    Raises:
        ValueError, ImportError: as `check_bits`; a model that is quantised already, or on `meta`.
    """
    deliver = quantizer(model, bits)
    for name, part in block_matrices(model).items():
        if part.weight.is_meta:
            raise ValueError(f"{name}.weight is on meta: load weights first, or create(..., quantize={bits!r})")
        part.weight = nn.Parameter(deliver(f"{name}.weight", part.weight.detach()), requires_grad=False)
    model.quantized = bits  # type: ignore[assignment]
    return model


def quantizer(model: nn.Module, bits: str) -> Callable[[str, Tensor], Tensor]:
    """What quantises one tensor after another while a checkpoint is loaded (`load_into(deliver=...)`).

    Args:
        model: the receiver, on any device, not yet quantised.
        bits: as in `quantize`.

    Returns:
        A function of a name and a tensor; it gives back the quantised tensor, or the same one where none is wanted.
    """
    check_bits(bits)
    if done := getattr(model, "quantized", None):
        raise ValueError(f"the model is in {done} already; quantise one that is in floating point")
    four = {f"{name}.weight" for name in in_four_bits(model)} if bits == "int4" else set()
    eight = {f"{name}.weight" for name in block_matrices(model)} - four

    def deliver(name: str, tensor: Tensor) -> Tensor:
        """The tensor in fewer bits, if it is one of the matrices."""
        if tensor.is_meta or name not in eight | four:
            return tensor
        shrunk = _shrunk(tensor, _int4(tensor) if name in four else _int8())
        _trim()
        return shrunk

    return deliver


def _trim() -> None:
    """Give freed memory back: glibc would keep the gaps that each large matrix leaves between the small results."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig(set_inductor_config=False)


def _int4(tensor: Tensor) -> Any:
    if tensor.device.type == "cpu":
        try:
            from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
        except ImportError as error:
            raise ImportError("quantize='int4' on a CPU needs torchao>=0.18: pip install -U torchao") from error
        return PrototypeInt4WeightOnlyConfig(group_size=GROUP_SIZE, set_inductor_config=False)
    if tensor.dtype != torch.bfloat16:
        raise ValueError(
            f"quantize='int4' on {tensor.device} takes bfloat16 weights, not {tensor.dtype}: dtype='bfloat16'"
        )
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(
        group_size=GROUP_SIZE, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


def _shrunk(weight: Tensor, config: Any) -> Tensor:
    """A matrix as torchao keeps it."""
    from torchao.quantization import quantize_

    holder = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    holder.weight = nn.Parameter(weight, requires_grad=False)
    quantize_(holder, config)
    return holder.weight.detach()


def stored_bytes(model: nn.Module) -> int:
    """Bytes that a model's weights and buffers really take, quantised ones included; a shared tensor counts once."""
    return sum(_stored(t.data) for t in (*model.parameters(), *model.buffers()))


def _stored(tensor: Tensor) -> int:
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if not callable(flatten):
        return tensor.nbytes
    names, _ = flatten()
    return sum(_stored(getattr(tensor, name)) for name in names)
