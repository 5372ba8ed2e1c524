"""Image transforms: the published evaluation transforms, and the random crop of contrastive training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.limits import ends
from multimodal_zoo.data.pictures import (
    WHITE,
    AnyPicture,
    Background,
    listed_pictures,
    load,
    open_picture,
    ready_to_resize,
    to_rgb,
)
from multimodal_zoo.registry import DATASETS

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
Filter = Image.Resampling
Box = tuple[float, float, float, float]
#: From this aspect ratio on only the centre is resized: the whole of a hair's breadth would not fit into memory.
EXTREME = 16


def shorter_crop(
    image: Image.Image, size: int, interpolation: Filter, background: Background, resized: int | None = None
) -> Image.Image:
    """Resize the shorter side to `resized` (None: to `size`), then crop the centre; conversion to RGB comes last."""
    short, wanted = min(image.size), size if resized is None else resized
    wide, high = (max(wanted, wanted * side // short) for side in image.size)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    box = (left, top, left + size, top + size)
    if short == wanted:
        image = image.crop(box)
    elif max(wide, high) > EXTREME * wanted:
        across, down = image.width / wide, image.height / high
        part = (left * across, top * down, (left + size) * across, (top + size) * down)
        image = image.resize((size, size), interpolation, box=part)
    else:
        image = image.resize((wide, high), interpolation).crop(box)
    return to_rgb(image, background)


def squash(image: Image.Image, size: int, interpolation: Filter, background: Background) -> Image.Image:
    """Resize both sides to `size`, whatever the aspect: what EVA-CLIP's paper evaluates retrieval with."""
    return to_rgb(image if image.size == (size, size) else image.resize((size, size), interpolation), background)


def pad(image: Image.Image, size: int, interpolation: Filter, background: Background) -> Image.Image:
    """Resize the longer side to `size` and fill the rest with zeros around the centre.

    Zeros are black; with background None they are zeros of the image's own mode, which is black but for CMYK (white)
    and palettes (their first colour).
    """
    longest = max(image.size)
    if longest != size:
        scale = size / longest
        wide, high = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((wide, high), interpolation)
    if background is not None:
        image = to_rgb(image, background)
    canvas = Image.new(image.mode, (size, size))
    if image.mode == "P":
        canvas.putpalette(image.getpalette() or [])
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return to_rgb(canvas, background)


Resize = Callable[[Image.Image, int, Filter, Background], Image.Image]
RESIZES: dict[str, Resize] = {"shorter_crop": shorter_crop, "squash": squash, "pad": pad}


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 (channels, height, width) of an 8-bit image."""
    array = np.asarray(image)
    return torch.from_numpy(array[None].copy() if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Float (..., 3, height, width) from uint8 of the same shape, with mean and standard deviation of each channel."""
    mean, std = (one.to(pixels.device).view(3, 1, 1) for one in (mean, std))
    return pixels.float().div_(255).sub_(mean).div_(std)


def choose(name: str, table: dict[str, object], key: str) -> None:
    """Check that a table has an entry.

    Raises:
        ValueError: with the value, the entries and the configuration key.
    """
    if name not in table:
        raise ValueError(f"{key} is {name!r}; it must be one of {', '.join(table)}")


def colour(background: Background, key: str) -> Background:
    """Check a background.

    Raises:
        ValueError: with the value and the configuration key.
    """
    if background is None:
        return None
    values = tuple(background)
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise ValueError(f"{key} is {list(values)}; it must be red, green and blue from 0 to 255, or null")
    return values


@DATASETS.register_module(name="image_transform")
class ImageTransform:
    """The evaluation transform: resize on the 8-bit image, RGB, then (x / 255 - mean) / std.

    Args:
        size: side of the square result, pixels.
        mean: of red, green and blue, in units where white is 1.
        std: of red, green and blue.
        resize: `shorter_crop`, `squash` or `pad`.
        interpolation: `bicubic`, `bilinear`, `lanczos` or `nearest`, always antialiased as PIL does it.
        background: red, green and blue (0 to 255) behind transparent pixels; None drops alpha as it stands and turns
            to RGB after resizing, which is what published models were trained and scored with.
        resized: pixels to which `shorter_crop` resizes the shorter side before it crops `size` (256 for 224: ImageNet's
            usual evaluation, DeCLIP's); None resizes to `size`.

    Raises:
        ValueError: a choice that does not exist, or `resized` where nothing is cropped or less than `size`.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize: str = "shorter_crop",
        interpolation: str = "bicubic",
        background: Background = WHITE,
        resized: int | None = None,
    ) -> None:
        choose(resize, dict(RESIZES), "images.resize")
        choose(interpolation, dict(INTERPOLATIONS), "images.interpolation")
        self.background = colour(background, "images.background")
        self.size = size
        self.mean = torch.tensor(list(mean), dtype=torch.float32)
        self.std = torch.tensor(list(std), dtype=torch.float32)
        if resized is not None and (resize != "shorter_crop" or resized < size):
            raise ValueError(
                f"images.resized is {resized} with resize {resize!r} and size {size}; expected at least {size}, with "
                "resize shorter_crop, or null"
            )
        self.resize, self.resized = resize, resized
        self.interpolation = interpolation

    def pixels(self, image: AnyPicture) -> Tensor:
        """One picture as uint8 (3, size, size), before normalisation."""
        opened = ready_to_resize(load(open_picture(image)), self.background)
        rest = (self.size, INTERPOLATIONS[self.interpolation], self.background)
        if self.resized is not None:
            return to_tensor(shorter_crop(opened, *rest, self.resized))
        return to_tensor(RESIZES[self.resize](opened, *rest))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float (batch, 3, height, width) from uint8 of the same shape."""
        return normalised(pixels, self.mean, self.std)

    def __call__(self, images: Sequence[AnyPicture]) -> Tensor:
        """Pictures, paths or encoded bytes as float (batch, 3, size, size).

        Raises:
            UnusableError: a file that cannot be read, or a picture without pixels.
            TypeError: one picture in place of a list; its letters or rows would be taken for pictures.
            ValueError: an empty list.
        """
        pixels = [self.pixels(image) for image in listed_pictures(images)]
        if not pixels:
            raise ValueError("images: expected at least one picture, got an empty list")
        return self.normalise(torch.stack(pixels))


@DATASETS.register_module(name="fixed_crop")
class FixedCrop:
    """A training image transform without randomness: the evaluation resize, as uint8.

    Args:
        size: side of the square result, pixels.
        resize: `shorter_crop`, `squash` or `pad`.
        interpolation: as in `ImageTransform`.
        background: as in `ImageTransform`.
    """

    def __init__(
        self,
        size: int,
        resize: str = "shorter_crop",
        interpolation: str = "bicubic",
        background: Background = WHITE,
    ) -> None:
        self.background = colour(background, "data.image_transform.background")
        choose(resize, dict(RESIZES), "data.image_transform.resize")
        choose(interpolation, dict(INTERPOLATIONS), "data.image_transform.interpolation")
        self.size = size
        self.resize = resize
        self.interpolation = interpolation

    def __call__(self, image: Picture, random: Random) -> Tensor:
        """uint8 (3, size, size); `random` is not used."""
        opened = ready_to_resize(load(open_picture(image)), self.background)
        return to_tensor(RESIZES[self.resize](opened, self.size, INTERPOLATIONS[self.interpolation], self.background))


def reduced(image: Image.Image, box: Box, size: int) -> tuple[Image.Image, Box]:
    """A JPEG that is still undecoded, set to be decoded at a scale that leaves `size` pixels on the box's shorter side.

    Gives the image and the box in its pixels; other images stay as they are.
    """
    if getattr(image, "format", None) != "JPEG" or not hasattr(image, "draft"):
        return image, box
    width, height = image.size
    short = min(box[2] - box[0], box[3] - box[1])
    wanted = max(1, math.ceil(min(width, height) * size / short))
    image.draft(None, (wanted, wanted))  # does nothing once the pixels are loaded
    across, down = image.width / width, image.height / height
    return image, (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def cut_out(image: Image.Image, box: Box, size: int, interpolation: Filter, background: Background) -> Tensor:
    """A part of a picture, resized: uint8 (3, size, size)."""
    opened, box = reduced(image, box, size)
    opened = ready_to_resize(load(opened), background)
    # Crop first: a resize with a box would blend in pixels from outside of it.
    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    part = opened.crop((left, top, min(right, opened.width), min(bottom, opened.height)))
    inside = (box[0] - left, box[1] - top, min(box[2] - left, part.width), min(box[3] - top, part.height))
    return to_tensor(to_rgb(part.resize((size, size), interpolation, box=inside), background))


@DATASETS.register_module(name="random_resized_crop")
class RandomResizedCrop:
    """A random part of the picture, resized: the training transform of CLIP and EVA-CLIP.

    JPEG files that are still undecoded are decoded at the smallest scale (1, 1/2, 1/4, 1/8) that still has at least
    `size` pixels on the crop's shorter side.

    Args:
        size: side of the square result, pixels.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height, drawn evenly in the logarithm.
        interpolation: as in `ImageTransform`.
        background: as in `ImageTransform`.

    Raises:
        ValueError: a choice that does not exist, or a range that runs backwards or begins at 0.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.9, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bicubic",
        background: Background = WHITE,
    ) -> None:
        self.background = colour(background, "data.image_transform.background")
        choose(interpolation, dict(INTERPOLATIONS), "data.image_transform.interpolation")
        self.size = size
        self.scale = ends(scale, "data.image_transform.scale")
        self.ratio = ends(ratio, "data.image_transform.ratio")
        if min(*self.scale, *self.ratio) <= 0:
            raise ValueError(
                f"data.image_transform: scale {list(scale)}, ratio {list(ratio)}; expected numbers above 0"
            )
        self.interpolation = interpolation

    def box(self, width: int, height: int, random: Random) -> Box:
        """Left, top, right and bottom of a random part; the largest centred one if ten draws do not fit."""
        for _ in range(10):
            area = width * height * random.uniform(*self.scale)
            aspect = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = random.randint(0, width - w), random.randint(0, height - h)
                return left, top, left + w, top + h
        w, h = width, height
        if width / height < self.ratio[0]:
            h = max(1, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = max(1, round(height * self.ratio[1]))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def __call__(self, image: Picture, random: Random) -> Tensor:
        """uint8 (3, size, size)."""
        opened = open_picture(image)
        box = self.box(opened.width, opened.height, random)
        return cut_out(opened, box, self.size, INTERPOLATIONS[self.interpolation], self.background)
