"""Loading a checkpoint straight to where and how it will run: each tensor to its device, quantised on its way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.load import Accounting, load_into
from multimodal_zoo.checkpoints.parts import readable
from multimodal_zoo.checkpoints.resizing import fit
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.store import find_dtype
from multimodal_zoo.inference.placement import Placement, device_of, dispatch, place
from multimodal_zoo.inference.quantize import quantizer


@dataclass(frozen=True)
class Target:
    """Where and how a model will run.

    Attributes:
        device: of everything, if there is no `placement`; None is the CPU.
        dtype: of what is not quantised: a torch type or its name, or "auto" for the file's own.
        quantize: `int8` or `int4` (`inference.quantize`), or None.
        placement: see `inference.placement`, or None for one device.
        offload_folder: new or empty, for parts on disk.
    """

    device: str | torch.device | None = None
    dtype: str | torch.dtype | None = "auto"
    quantize: str | None = None
    placement: Placement | None = None
    offload_folder: str | Path | None = None


def load_for_inference(model: nn.Module, source: Source, target: Target, *, resize: bool = False) -> Accounting:
    """Load a recognised checkpoint into a model on `meta`; the whole never exists in full precision or in one place.

    Args:
        model: built on `meta`.
        source: from `checkpoints.store.recognise`.
        target: where and how it will run.
        resize: whether positions and patch kernels of other sizes are interpolated to the model's.

    Raises:
        ValueError, ImportError: see the two modules; a model that could not be built on `meta`.
        CheckpointMismatch: tensors that do not fit, all listed.
    """
    if not any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("quantize and placement need a model that can be built on meta; this one has a borrowed part")
    bits = target.quantize
    if (dtype := find_dtype(target.dtype, source)) is not None:
        model.to(dtype)
    placed = None if target.placement is None else place(model, target.placement, bits)
    if bits is not None and placed is not None and "disk" in placed.values():
        raise ValueError(f"quantize={bits!r}: quantised parts cannot be kept on disk; give the placement more memory")
    shrink = None if bits is None else quantizer(model, bits)

    def deliver(name: str, tensor: Tensor) -> Tensor:
        """The tensor on its device, in its bits."""
        device = target.device if placed is None else device_of(name, placed)
        moved = tensor if device in (None, "disk") else tensor.to(device)
        if shrink is None:
            return moved
        shrunk = shrink(name, moved)
        return tensor.clone() if shrunk is tensor else shrunk  # the mapped file goes, with all pages that were read

    model.requires_grad_(False)
    state, naming = readable(model, source, fit(model) if resize else None)
    result = load_into(model, state, naming, assign=True, deliver=deliver)
    if bits is not None:
        model.quantized = bits  # type: ignore[assignment]
    if placed is not None:
        dispatch(model, placed, target.offload_folder)
    return result
