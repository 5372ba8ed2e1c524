"""Augmentation of whole batches where a picture sits: placement and ground.

Every part takes and gives float (batch, 3 or 4, height, width), 0 to 1, colour premultiplied by alpha, so that
resampling never drags in the hidden colour of transparent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.data import limits
from multimodal_zoo.registry import DATASETS

#: Alpha above this belongs to the drawing when its extent is measured.
VISIBLE = 16 / 255


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Even random numbers, (count,)."""
    return torch.rand(count, generator=generator) * (high - low) + low


def chosen(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Bool (count,), each true with the given probability."""
    return torch.rand(count, generator=generator) < probability


def extent(images: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and size (batch, 2) of what alpha shows, x before y, in canvas units of -1 to 1 (size: shares of it)."""
    centres, sizes = [], []
    for axis in (1, 2):
        line = (images[:, 3].amax(axis) > VISIBLE).float()
        length = line.shape[1]
        low, high = line.argmax(1).float(), length - line.flip(1).argmax(1).float()
        centres.append((low + high) / length - 1)
        sizes.append((high - low) / length)
    return torch.stack(centres, 1), torch.stack(sizes, 1)


@DATASETS.register_module(name="random_placement")
class RandomPlacement:
    """Puts each drawing somewhere on the canvas, at a random size, slightly turned and stretched.

    Sizes are shares of the canvas that the longer side of the *drawing* (not of its file) takes, so that styles with
    wide margins and styles without any end up alike. Pictures without alpha count as filled.

    Args:
        size: side of the result, pixels.
        scale: smallest and largest share.
        rotation: largest turn either way, degrees.
        stretch: largest logarithm of the change of width over height, either way, halved between both sides.
        smallest: drawings below this share of their file are treated as if they had it (not magnified without limit).
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float],
        rotation: float = 0.0,
        stretch: float = 0.0,
        smallest: float = 0.3,
    ) -> None:
        self.size = size
        self.scale = limits.ends(scale, "data.augment.scale")
        self.rotation = rotation
        self.stretch = stretch
        self.smallest = smallest

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (batch, 4, size, size); outside of the file is transparent."""
        if images.shape[1] == 3:
            images = torch.cat([images, torch.ones_like(images[:, :1])], 1)
        count = len(images)
        centre, extents = extent(images)
        longer = extents.amax(1).clamp_min(self.smallest)
        share = uniform(count, self.scale[0], self.scale[1], generator)
        angle = uniform(count, -self.rotation, self.rotation, generator) * (math.pi / 180)
        aspect = uniform(count, -self.stretch, self.stretch, generator).exp()
        zoom = longer / share
        room = (1 - share[:, None] * extents / longer[:, None]).abs().clamp_min(0.04)
        offset = uniform(2 * count, -1, 1, generator).view(count, 2) * room
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        turn = torch.stack([torch.stack([cos * aspect, -sin], 1), torch.stack([sin, cos / aspect], 1)], 1)
        shift = centre[:, :, None] - turn @ offset[:, :, None]
        grid = (self._canvas() @ turn.transpose(1, 2) + shift.transpose(1, 2)).view(count, self.size, self.size, 2)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _canvas(self) -> Tensor:
        """Centres of all pixels, (size * size, 2), x before y, row by row."""
        line = (torch.arange(self.size) * 2 + 1) / self.size - 1
        return torch.stack([line.repeat(self.size), line.repeat_interleave(self.size)], 1)


@DATASETS.register_module(name="random_flip")
class RandomFlip:
    """Swaps left and right of some pictures.

    Args:
        probability: of each picture.
    """

    def __init__(self, probability: float) -> None:
        self.probability = limits.probability(probability, "data.augment.probability")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures of the same shape."""
        flipped = chosen(len(images), self.probability, generator)
        return torch.where(flipped[:, None, None, None], images.flip(-1), images)


@DATASETS.register_module(name="flat_ground")
class FlatGround:
    """Puts pictures with alpha on grounds of one colour each.

    Args:
        white: share of white grounds; the others have an even random colour.
    """

    def __init__(self, white: float) -> None:
        self.white = limits.probability(white, "data.augment.white")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (batch, 3, height, width); those without alpha stay as they are."""
        if images.shape[1] == 3:
            return images
        count = len(images)
        colours = torch.rand(count, 3, generator=generator)
        colours[chosen(count, self.white, generator)] = 1.0
        return images[:, :3] + (1 - images[:, 3:]) * colours[:, :, None, None]
