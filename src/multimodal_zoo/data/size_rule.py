"""Pictures of any shape for a visual tokenizer: sides that are multiples of a factor, an area between two bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.data.pictures import AnyPicture, Background, listed_pictures, load, open_picture, to_rgb
from multimodal_zoo.data.transforms import INTERPOLATIONS, choose, colour, normalised, to_tensor
from multimodal_zoo.registry import DATASETS


class UnfitPictureError(ValueError):
    """A picture whose shape no visual tokenizer of this rule takes."""


def area_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Sides of about a given area with the same aspect, in whole pixels: the first of two resizes of published data.

    Args:
        height: of the picture.
        width: of the picture.
        area: wanted, in pixels.
    """
    scale = math.sqrt(area / (height * width))
    return max(1, round(height * scale)), max(1, round(width * scale))


@DATASETS.register_module(name="emu3_size_rule")
class SizeRule:
    """Which size a picture is brought to before it is encoded (Emu3's image processor).

    Each side is rounded to the nearest multiple of `factor` (halves to even). Where the area then lies out of bounds,
    both sides are scaled by the same number and rounded so that it does not: down if it was too large, up if too small.

    Args:
        factor: what sides are multiples of: pixels of a visual token's side.
        smallest: least area, pixels.
        largest: greatest area, pixels.
        ratio: greatest ratio of the longer to the shorter side; 5 in Emu3's own processor, 200 in that of transformers.

    Raises:
        ValueError: bounds that no size keeps.
    """

    def __init__(self, factor: int, smallest: int, largest: int, ratio: float) -> None:
        if factor < 1 or not factor**2 <= smallest <= largest or ratio < 1:
            raise ValueError(
                f"images.rule: factor {factor}, smallest {smallest}, largest {largest}, ratio {ratio}; expected a "
                "factor of at least 1, areas from its square upwards, smallest <= largest, and a ratio of at least 1"
            )
        self.factor, self.smallest, self.largest, self.ratio = factor, smallest, largest, ratio

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) for a picture of another one.

        Raises:
            UnfitPictureError: a side shorter than the factor, or sides of too different lengths.
        """
        factor, name = self.factor, f"a picture of {width} x {height} pixels"
        if min(height, width) < factor:
            raise UnfitPictureError(f"{name}: both sides need at least {factor} (images.rule.factor)")
        ratio = max(height, width) / min(height, width)
        if ratio > self.ratio:
            raise UnfitPictureError(
                f"{name}: the sides are as {ratio:.4g} to 1, at most {self.ratio:g} to 1 is allowed (images.rule.ratio)"
            )
        rows, columns = (round(side / factor) for side in (height, width))
        area = rows * columns * factor**2
        if area > self.largest:
            scale = math.sqrt(height * width / self.largest)
            rows, columns = (max(1, math.floor(side / scale / factor)) for side in (height, width))
        elif area < self.smallest:
            scale = math.sqrt(self.smallest / (height * width))
            rows, columns = (math.ceil(side * scale / factor) for side in (height, width))
        return rows * factor, columns * factor


@DATASETS.register_module(name="emu3_image_transform")
class Emu3ImageTransform:
    """Pictures to normalised tensors of the size that a rule gives each, and back.

    The picture is turned to RGB and resized as 8-bit values by PIL, with its antialiasing; then (x / 255 - mean) / std.

    Args:
        rule: which size a picture is brought to.
        mean: of red, green and blue, in units where white is 1.
        std: of red, green and blue.
        interpolation: `bicubic` (published), `bilinear`, `lanczos` or `nearest`.
        background: red, green and blue (0 to 255) behind transparent pixels; None drops alpha as published, which
            shows what colour transparent pixels hide.

    Raises:
        ValueError: a choice that does not exist.
    """

    def __init__(
        self,
        rule: SizeRule,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bicubic",
        background: Background = None,
    ) -> None:
        choose(interpolation, dict(INTERPOLATIONS), "images.interpolation")
        self.rule, self.interpolation = rule, interpolation
        self.background = colour(background, "images.background")
        self.mean = torch.tensor(list(mean), dtype=torch.float32)
        self.std = torch.tensor(list(std), dtype=torch.float32)

    def facts(self) -> dict[str, Any]:
        """All that decides what becomes of a picture, as plain values: codes belong to one tokenizer and these."""
        rule = self.rule
        return {
            "rule": [rule.factor, rule.smallest, rule.largest, rule.ratio],
            "interpolation": self.interpolation,
            "background": None if self.background is None else list(self.background),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }

    def pixels(self, picture: AnyPicture) -> Tensor:
        """One picture as uint8 (3, height, width), before normalisation.

        Raises:
            UnfitPictureError: a picture that the rule refuses.
            UnusableError: a file that cannot be read, or a picture without pixels.
        """
        image = to_rgb(load(open_picture(picture)), self.background)
        height, width = self.rule(image.height, image.width)
        if image.size != (width, height):
            image = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        return to_tensor(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float (..., 3, height, width) from uint8 of the same shape."""
        return normalised(pixels, self.mean, self.std)

    def __call__(self, pictures: Sequence[AnyPicture]) -> list[Tensor]:
        """Each picture as float (3, height, width), of its own size.

        Raises:
            TypeError: one picture in place of a list; its letters or rows would be taken for pictures.
            UnfitPictureError, UnusableError: see `pixels`.
        """
        return [self.normalise(self.pixels(picture)) for picture in listed_pictures(pictures)]

    def inverse(self, pixels: Tensor) -> np.ndarray:
        """What decoded pixels show: uint8 (..., height, width, 3), cut off at black and white, fractions dropped.

        Args:
            pixels: float (..., 3, height, width).
        """
        shown = pixels.detach().float().cpu() * self.std.view(3, 1, 1) + self.mean.view(3, 1, 1)
        return (shown * 255).clamp_(0, 255).to(torch.uint8).movedim(-3, -1).numpy()

    def pictures(self, pixels: Tensor) -> list[Image.Image]:
        """PIL images of decoded pixels (batch, 3, height, width)."""
        return [Image.fromarray(shown) for shown in self.inverse(pixels)]
