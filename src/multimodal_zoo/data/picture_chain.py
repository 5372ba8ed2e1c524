"""Training transforms of one picture made of parts: a crop, then changes of colour, sharpness and side.

They compute what torchvision's transforms of PIL images compute; MoCo v2's chain (arXiv 2003.04297) is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from multimodal_zoo.data import limits
from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.pictures import WHITE, Background, open_picture
from multimodal_zoo.data.transforms import INTERPOLATIONS, choose, colour, cut_out, to_tensor
from multimodal_zoo.registry import DATASETS


class PictureChange(Protocol):
    """Changes an RGB picture and keeps its size."""

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        """The changed picture."""
        ...


@DATASETS.register_module(name="random_square_crop")
class RandomSquareCrop:
    """A square as wide as the picture's shorter side, anywhere along the longer one, resized.

    Args:
        size: side of the result, pixels.
        interpolation: as in `ImageTransform`.
        background: as in `ImageTransform`.
    """

    def __init__(self, size: int, interpolation: str = "bilinear", background: Background = WHITE) -> None:
        self.background = colour(background, "data.image_transform.background")
        choose(interpolation, dict(INTERPOLATIONS), "data.image_transform.interpolation")
        self.size = size
        self.interpolation = interpolation

    def __call__(self, image: Picture, random: Random) -> Tensor:
        """uint8 (3, size, size)."""
        opened = open_picture(image)
        side = min(opened.size)
        left, top = random.randint(0, opened.width - side), random.randint(0, opened.height - side)
        box = (left, top, left + side, top + side)
        return cut_out(opened, box, self.size, INTERPOLATIONS[self.interpolation], self.background)


@DATASETS.register_module(name="picture_chain")
class PictureChain:
    """A crop followed by changes, in order.

    Args:
        crop: one picture to uint8 of fixed size (`random_resized_crop`, `fixed_crop`, ...).
        changes: what happens to its result.
    """

    def __init__(self, crop: PictureTransform, changes: Sequence[PictureChange]) -> None:
        self.crop = crop
        self.changes = list(changes)

    def __call__(self, image: Picture, random: Random) -> Tensor:
        """uint8 (3, size, size)."""
        made = Image.fromarray(np.ascontiguousarray(self.crop(image, random).permute(1, 2, 0).numpy()))
        for change in self.changes:
            made = change(made, random)
        return to_tensor(made)


def turn_hue(image: Image.Image, share: float) -> Image.Image:
    """Turn every colour's hue by a share of the circle, -0.5 to 0.5, in PIL's eight-bit HSV."""
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(share * 255) % 256)  # wraps around, as hue does
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


class _Sometimes:
    """What all changes with a probability check.

    Args:
        probability: of each picture.

    Raises:
        ValueError: no probability.
    """

    def __init__(self, probability: float) -> None:
        self.probability = limits.probability(probability, f"{type(self).__name__}: probability")

    def drawn(self, random: Random) -> bool:
        """Whether this picture is changed."""
        return random.random() < self.probability


@DATASETS.register_module(name="picture_colour_jitter")
class PictureColourJitter(_Sometimes):
    """Random brightness, contrast, saturation and hue, in random order.

    Args:
        probability: of each picture.
        brightness: the factor is drawn between 1 - brightness (0 at least) and 1 + brightness.
        contrast: likewise.
        saturation: likewise.
        hue: largest turn either way, in full turns, at most 0.5.

    Raises:
        ValueError: numbers out of range.
    """

    def __init__(
        self,
        probability: float,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        super().__init__(probability)
        if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5:
            raise ValueError(
                f"picture_colour_jitter: brightness {brightness}, contrast {contrast}, saturation {saturation} and hue "
                f"{hue}; expected numbers of at least 0, hue at most 0.5"
            )
        self.factors = (brightness, contrast, saturation)
        self.hue = hue

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        """The picture in other colours, or as it is."""
        if not self.drawn(random):
            return image
        kinds: list[Callable[[Image.Image], Image.Image]] = []
        for enhance, width in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), self.factors, strict=True
        ):
            factor = random.uniform(max(0.0, 1 - width), 1 + width)
            if width:
                kinds.append(lambda one, enhance=enhance, factor=factor: enhance(one).enhance(factor))  # type: ignore[misc]
        turn = random.uniform(-self.hue, self.hue)
        if self.hue:
            kinds.append(lambda one: turn_hue(one, turn))
        random.shuffle(kinds)
        for kind in kinds:
            image = kind(image)
        return image


@DATASETS.register_module(name="picture_grey")
class PictureGrey(_Sometimes):
    """Takes the colour out of some pictures.

    Args:
        probability: of each picture.
    """

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        """The picture, grey or as it is."""
        return image.convert("L").convert("RGB") if self.drawn(random) else image


@DATASETS.register_module(name="picture_blur")
class PictureBlur(_Sometimes):
    """Blurs some pictures with a Gaussian.

    Args:
        probability: of each picture.
        radius: smallest and largest standard deviation, pixels, as PIL takes it.
    """

    def __init__(self, probability: float, radius: Sequence[float] = (0.1, 2.0)) -> None:
        super().__init__(probability)
        self.radius = limits.ends(radius, "picture_blur.radius")

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        """The picture, blurred or as it is."""
        if not self.drawn(random):
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.radius)))


@DATASETS.register_module(name="picture_flip")
class PictureFlip(_Sometimes):
    """Swaps left and right of some pictures.

    Args:
        probability: of each picture.
    """

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        """The picture, mirrored or as it is."""
        return ImageOps.mirror(image) if self.drawn(random) else image
