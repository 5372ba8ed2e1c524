"""Fitting what depends on the image size and the patch size to a model of other sizes.

As EVA-CLIP does it: bicubic without antialiasing for both, positions of tokens before the patches untouched. Rotary
tables follow from the sizes and are in no model's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from multimodal_zoo.nn.patches import PatchEmbedding, resize_kernel
from multimodal_zoo.nn.positions import LearnedPositions, resize_positions


def resizable(model: nn.Module) -> dict[str, nn.Module]:
    """The tensors of a model that can be fitted, by name, with the part that each belongs to."""
    kinds = (PatchEmbedding, LearnedPositions)
    return {f"{name}.weight": part for name, part in model.named_modules() if isinstance(part, kinds)}


def fit(model: nn.Module) -> Callable[[str, Tensor], Tensor]:
    """What changes a file's tensor of a given name to the model's size; others, and those that fit, stay as they are.

    A tensor that no resizing fits (of another width, of no square grid) stays too, so that loading reports it.
    """
    parts = resizable(model)

    def change(name: str, tensor: Tensor) -> Tensor:
        """The tensor, resized where its part knows how."""
        part = parts.get(name)
        if isinstance(part, LearnedPositions) and tensor.dim() == 2:
            places = tensor.shape[0] - part.prefix
            side = math.isqrt(max(places, 0))
            if side * side == places and side:
                return resize_positions(tensor, part.prefix, (side, side), (part.side, part.side))
        if isinstance(part, PatchEmbedding) and tensor.dim() == 4:
            return resize_kernel(tensor, part.patch_size)
        return tensor

    return change
