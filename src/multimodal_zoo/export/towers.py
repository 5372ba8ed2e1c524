"""One side of a dual encoder as a module of one input and one output: what is exported, and how it is probed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.rotary import Rotation


class FixedRotary(nn.Module):
    """Stands in for rotary positions where the grid is fixed: tables computed once, in float32.

    Args:
        rotation: the tables.
    """

    def __init__(self, rotation: Rotation) -> None:
        super().__init__()
        self.register_buffer("cos", rotation.cos.clone(), persistent=False)
        self.register_buffer("sin", rotation.sin.clone(), persistent=False)
        self.turn = rotation.turn

    def forward(self, grid: tuple[int, int], prefix: int, device: torch.device, keep: Tensor | None = None) -> Rotation:
        """The tables, whatever the device; an exported tower drops no patches."""
        del grid, prefix, device, keep
        return Rotation(self.cos, self.sin, self.turn)


class ImageSide(nn.Module):
    """From pixels to normalised embeddings.

    Args:
        model: a dual encoder with the image side alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings `(batch, embed_dim)` of normalised pixels `(batch, 3, height, width)`."""
        return self.model.encode_image(images)


class TextSide(nn.Module):
    """From token ids to normalised embeddings.

    Args:
        model: a dual encoder with the text side alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """L2-normalised embeddings `(batch, embed_dim)` of token ids `(batch, tokens)`."""
        return self.model.encode_text(ids)


@dataclass(frozen=True)
class Tower:
    """A tower ready for export.

    Attributes:
        name: `image` or `text`.
        module: takes one tensor, gives embeddings; in evaluation mode.
        eager: the same without anything done for the export: what a file is compared with.
        input: name of the input.
        output: name of the output.
        shape: of the input; a name stands for a size that may change, with its largest value in `limits`.
        limits: largest size by name, None for no limit.
    """

    name: str
    module: nn.Module
    eager: nn.Module
    input: str
    output: str
    shape: tuple[str | int, ...]
    limits: dict[str, int | None]

    def probe(self, sizes: dict[str, int], seed: int = 0) -> Tensor:
        """A random input with these sizes for the names in `shape`."""
        generator = torch.Generator().manual_seed(seed)
        shape = [sizes[size] if isinstance(size, str) else size for size in self.shape]
        if self.name == "image":
            return torch.randn(shape, generator=generator)
        ids = torch.randint(1, max(2, self.largest_id), shape, generator=generator)
        ids[:, -1] = self.largest_id  # the end token, which pooling reads
        return ids

    @property
    def largest_id(self) -> int:
        """The largest token id, 0 for images."""
        return int(self.module.model.text.vocab_size) - 1 if self.name == "text" else 0  # type: ignore[union-attr,arg-type]


def image_tower(model: nn.Module, height: int, width: int) -> Tower:
    """The image side for images of one size; its weights are the model's own.

    Args:
        model: a dual encoder.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Raises:
        ValueError: a model without an image side of the usual parts.
    """
    side = _side(model, "image")
    eager, encoder = ImageSide(copy.copy(side)).eval(), side.image
    if getattr(encoder, "rotary", None) is not None:
        probe = torch.zeros(1, 3, height, width, device=next(encoder.parameters()).device)
        with torch.no_grad():
            _, rotation, _ = copy.copy(encoder).eval().embed(probe)
        side._modules = {**side._modules, "image": _with_parts(encoder, rotary=FixedRotary(rotation))}
    shape = ("batch", 3, height, width)
    return Tower("image", ImageSide(side).eval(), eager, "images", "image_embedding", shape, {"batch": None})


def text_tower(model: nn.Module) -> Tower:
    """The text side for texts of any length up to the context; its weights are the model's own.

    Raises:
        ValueError: a model without a text side of the usual parts.
    """
    side = _side(model, "text")
    limits = {"batch": None, "tokens": int(side.text.context_length)}  # type: ignore[union-attr,arg-type]
    module = TextSide(side).eval()
    return Tower("text", module, module, "ids", "text_embedding", ("batch", "tokens"), limits)


def _side(model: nn.Module, name: str) -> Any:
    """The model with the parts of one side only, sharing its weights."""
    parts = {part: getattr(model, part, None) for part in (name, f"{name}_projection")}
    absent = [part for part, found in parts.items() if not isinstance(found, nn.Module)]
    if absent or not hasattr(model, f"encode_{name}"):
        raise ValueError(f"a {type(model).__name__} has no {' and '.join(absent) or 'encode_' + name} to export")
    side = copy.copy(model)
    side._modules = {part: _evaluating(found) for part, found in parts.items() if found is not None}
    side._parameters, side._buffers = {}, {}
    return side


def _with_parts(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """A module that shares everything with another but some of its parts."""
    changed = copy.copy(module)
    changed._modules = {**module._modules, **parts}
    return changed


def _evaluating(module: nn.Module) -> nn.Module:
    """The module tree in evaluation mode, sharing weights: the caller's modules keep their own mode."""
    changed = copy.copy(module)
    changed._modules = {name: None if part is None else _evaluating(part) for name, part in module._modules.items()}
    changed.training = False
    return changed
