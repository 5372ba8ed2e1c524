"""Pictures of cameras resized, cut out, mirrored and turned, with the map of pixels that goes with it (Fast-BEV).

Source: released code of Fast-BEV (arXiv 2301.12511), which follows BEVDet (arXiv 2112.11790).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.bev.geometry import image_map
from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.limits import ends, probability
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.registry import DATASETS


@dataclass(frozen=True)
class PictureChange:
    """What is done to one picture, in the order of the attributes.

    Attributes:
        factor: of resizing; the size is rounded down, the map of pixels takes the factor as it is.
        size: width and height of the resized picture.
        crop: left, top, right, bottom in the resized picture; what lies outside of it is black.
        flip: whether left and right change places.
        degrees: turned counter-clockwise about the middle, corners black.
        pad: rows and columns added at top, right, bottom, left.
        colour: of what is added.
    """

    factor: float
    size: tuple[int, int]
    crop: tuple[int, int, int, int]
    flip: bool = False
    degrees: float = 0.0
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    colour: tuple[int, int, int] = (0, 0, 0)

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        left, top, right, bottom = self.crop
        above, beside, below, before = self.pad
        return bottom - top + above + below, right - left + beside + before

    def map(self) -> Tensor:
        """Float64 (3, 3): pixels of the picture as it was to pixels of the result, without half-pixel terms."""
        left, top, right, bottom = self.crop
        scale = self.factor * torch.eye(2, dtype=torch.float64)
        shift = torch.tensor([-left, -top], dtype=torch.float64)
        if self.flip:
            mirror = torch.diag(torch.tensor([-1.0, 1.0], dtype=torch.float64))
            scale, shift = mirror @ scale, mirror @ shift
            shift[0] += right - left
        angle = math.radians(self.degrees)
        turn = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64
        )
        middle = torch.tensor([right - left, bottom - top], dtype=torch.float64) / 2
        shift = turn @ (shift - middle) + middle
        shift += torch.tensor([self.pad[3], self.pad[0]], dtype=torch.float64)
        return image_map(turn @ scale, shift)

    def apply(self, picture: Image.Image) -> Image.Image:
        """The changed picture: bicubic resizing, turned by the nearest pixel."""
        picture = picture.resize(self.size, Image.Resampling.BICUBIC).crop(self.crop)
        if self.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = picture.rotate(self.degrees)
        if not any(self.pad):
            return picture
        height, width = self.result
        ground = Image.new(picture.mode, (width, height), self.colour)
        ground.paste(picture, (self.pad[3], self.pad[0]))
        return ground


def change_of(
    source: tuple[int, int],
    target: tuple[int, int],
    resize: float,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
    degrees: float = 0.0,
) -> PictureChange:
    """The published rule: as wide as the result, then cut out of the middle.

    Args:
        source: height and width of the picture.
        target: height and width of the result.
        resize: added to the factor that makes the picture as wide as the result.
        shift: of the crop, down and to the right, in shares of the result's height and width.
        flip: whether left and right change places.
        degrees: counter-clockwise.

    Raises:
        ValueError: a factor that is not positive.
    """
    (height, width), (rows, columns) = source, target
    factor = columns / width + resize
    size = int(width * factor), int(height * factor)
    if factor <= 0 or min(size) < 1:
        raise ValueError(
            f"a picture of {height}x{width} pixels resized by {factor:g} (width {columns} / {width}, resize "
            f"{resize:+g}) has no pixels: change processor.view or data.rules.image_augment"
        )
    top = (size[1] - rows) // 2 + int(shift[0] * rows)
    left = (size[0] - columns) // 2 + int(shift[1] * columns)
    return PictureChange(factor, size, (left, top, left + columns, top + rows), flip, degrees)


@DATASETS.register_module(name="camera_view")
class CameraView:
    """How pictures become the model's input when nothing is drawn: resized to its width and cut out of the middle.

    Args:
        size: height and width of the input.
        resize: added to the factor of resizing.
        flip: whether pictures are mirrored.
        degrees: by which they are turned, counter-clockwise.
        pad: rows and columns added at top, right, bottom and left; the input is larger by them.
        pad_colour: red, green and blue of these, 0 to 255.

    Raises:
        ValueError: sizes below 1.
    """

    def __init__(
        self,
        size: Sequence[int],
        resize: float = 0.0,
        flip: bool = False,
        degrees: float = 0.0,
        pad: Sequence[int] = (0, 0, 0, 0),
        pad_colour: Sequence[int] = (0, 0, 0),
    ) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"processor.view.size is {list(size)}; expected height and width of at least 1 pixel")
        if len(pad) != 4 or min(pad) < 0:
            raise ValueError(f"processor.view.pad is {list(pad)}; expected top, right, bottom, left of at least 0")
        self.size = size[0], size[1]
        self.resize, self.flip, self.degrees = resize, flip, degrees
        self.pad = pad[0], pad[1], pad[2], pad[3]
        self.colour = pad_colour[0], pad_colour[1], pad_colour[2]

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of the input."""
        top, right, bottom, left = self.pad
        return self.size[0] + top + bottom, self.size[1] + left + right

    def change(self, source: tuple[int, int]) -> PictureChange:
        """What happens to a picture of some height and width."""
        return self.padded(change_of(source, self.size, self.resize, (0.0, 0.0), self.flip, self.degrees))

    def __call__(self, picture: Picture, random: Random) -> Tensor:
        """Uint8 (3, height, width) of one picture; nothing is drawn.

        Raises:
            UnusableError: it cannot be decoded.
        """
        del random
        image = to_rgb(load(open_picture(picture, turn=False)))
        return planes(self.change((image.height, image.width)).apply(image))

    def padded(self, change: PictureChange) -> PictureChange:
        """A change with this view's padding."""
        return PictureChange(
            change.factor, change.size, change.crop, change.flip, change.degrees, self.pad, self.colour
        )


@DATASETS.register_module(name="camera_augment")
class CameraAugment:
    """Draws what happens to each picture of a training sample (`data_config` of the published configurations).

    Args:
        resize: range of what is added to the factor of resizing.
        crop: range of the crop's shift, in shares of the result's height and width.
        degrees: range of the rotation.
        flip: how often pictures are mirrored, 0 to 1.

    Raises:
        ValueError: a range that runs backwards, or a probability outside of 0 to 1.
    """

    def __init__(self, resize: Sequence[float], crop: Sequence[float], degrees: Sequence[float], flip: float) -> None:
        for name, pair in (("resize", resize), ("crop", crop), ("degrees", degrees)):
            ends(pair, f"data.rules.image_augment.{name}")
        probability(flip, "data.rules.image_augment.flip")
        self.resize, self.crop, self.degrees, self.flip = resize, crop, degrees, flip

    def draw(self, source: tuple[int, int], view: CameraView, random: Random) -> PictureChange:
        """What happens to one picture.

        Args:
            source: height and width of the picture.
            view: gives the size of the result, and padding.
            random: five numbers are drawn.
        """
        return self.made(source, view, [random.random() for _ in range(5)])

    def made(self, source: tuple[int, int], view: CameraView, units: Sequence[float]) -> PictureChange:
        """The change of five numbers from 0 to 1: resizing, shift down, shift right, mirroring, rotation.

        Args:
            source: height and width of the picture.
            view: gives the size of the result, and padding.
            units: mirrored where the fourth is at least 1 - `flip`.
        """
        resize, down, right, flip, turn = units
        shift = _between(self.crop, down), _between(self.crop, right)
        return view.padded(
            change_of(
                source,
                view.size,
                _between(self.resize, resize),
                shift,
                self.flip > 0 and flip >= 1 - self.flip,
                _between(self.degrees, turn),
            )
        )


def planes(picture: Image.Image) -> Tensor:
    """Uint8 (3, height, width) of a picture in RGB."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _between(pair: Sequence[float], unit: float) -> float:
    return pair[0] + (pair[1] - pair[0]) * unit
