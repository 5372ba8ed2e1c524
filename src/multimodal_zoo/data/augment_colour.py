"""Augmentation of whole batches in what a picture looks like: colour, grey, edges, outlines.

As in `augment`, pictures are float (batch, 3 or 4, height, width), 0 to 1, colour premultiplied by alpha. Affine colour
changes keep that form when their constant part is multiplied by alpha.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.data import limits
from multimodal_zoo.data.augment import chosen, uniform
from multimodal_zoo.registry import DATASETS

#: ITU-R BT.601 luma, and the rotation of colours around it.
LUMA = (0.299, 0.587, 0.114)
CHROMA = ((0.168, 0.330, -0.497), (-0.328, 0.035, 0.292), (1.25, -1.05, -0.203))


def split(images: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (batch, 3, height, width) and alpha (batch, 1, height, width), ones where there is none."""
    return images[:, :3], images[:, 3:] if images.shape[1] == 4 else torch.ones_like(images[:, :1])


def join(colour: Tensor, alpha: Tensor, like: Tensor) -> Tensor:
    """The pictures in the form of `like`: with alpha or without."""
    return torch.cat([colour, alpha], 1) if like.shape[1] == 4 else colour


@DATASETS.register_module(name="colour_jitter")
class ColourJitter:
    """Random hue, saturation, contrast, brightness and tint, as one colour matrix and one constant a picture.

    Args:
        probability: share of pictures that change.
        hue: largest turn either way, in full turns.
        saturation: largest change of the factor 1, either way.
        contrast: largest logarithm of the factor, either way.
        brightness: largest constant, either way.
        tint: standard deviation of a constant of each channel.
        grey: share of the changed pictures that lose their colour and keep their contrast.
    """

    def __init__(
        self,
        probability: float,
        hue: float = 0.0,
        saturation: float = 0.0,
        contrast: float = 0.0,
        brightness: float = 0.0,
        tint: float = 0.0,
        grey: float = 0.0,
    ) -> None:
        self.probability = limits.probability(probability, "data.augment.probability")
        self.hue, self.saturation = hue, saturation
        self.contrast, self.brightness, self.tint = contrast, brightness, tint
        self.grey = limits.probability(grey, "data.augment.grey")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changed pictures, colours within 0 and alpha."""
        count = len(images)
        colour, alpha = split(images)
        luma = torch.tensor(LUMA).expand(3, 3)
        angle = uniform(count, -self.hue, self.hue, generator) * (2 * math.pi)
        saturation = uniform(count, 1 - self.saturation, 1 + self.saturation, generator)
        cos = (angle.cos() * saturation)[:, None, None]
        sin = (angle.sin() * saturation)[:, None, None]
        matrix = luma + cos * (torch.eye(3) - luma) + sin * torch.tensor(CHROMA)
        matrix = matrix * uniform(count, -self.contrast, self.contrast, generator).exp()[:, None, None]
        matrix[chosen(count, self.grey, generator)] = luma
        constant = uniform(count, -self.brightness, self.brightness, generator)[:, None]
        constant = constant + self.tint * torch.randn(count, 3, generator=generator)
        kept = ~chosen(count, self.probability, generator)
        matrix[kept], constant[kept] = torch.eye(3), 0.0
        changed = torch.baddbmm(constant[:, :, None] * alpha.flatten(2), matrix, colour.flatten(2)).view_as(colour)
        return join(torch.minimum(changed.clamp_min(0), alpha), alpha, images)


@DATASETS.register_module(name="random_grey")
class RandomGrey:
    """Takes the colour out of some pictures.

    Args:
        probability: share of pictures.
    """

    def __init__(self, probability: float) -> None:
        self.probability = limits.probability(probability, "data.augment.probability")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures, some grey."""
        rows = chosen(len(images), self.probability, generator).nonzero()[:, 0]
        luma = torch.tensor(LUMA).view(1, 3, 1, 1)
        images[rows, :3] = (images[rows, :3] * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        return images


@DATASETS.register_module(name="random_edges")
class RandomEdges:
    """Draws dark lines along the edges inside some pictures and fades their colours: towards a line drawing.

    Args:
        probability: share of pictures.
        fade: largest share by which colours move to white.
        strength: factor of the edge signal (largest minus smallest grey in a window of 3) before it is cut at 1.
    """

    def __init__(self, probability: float, fade: float = 0.7, strength: float = 3.0) -> None:
        self.probability = limits.probability(probability, "data.augment.probability")
        self.fade, self.strength = fade, strength

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures, some with edges."""
        rows = chosen(len(images), self.probability, generator).nonzero()[:, 0]
        fade = uniform(len(rows), 0, self.fade, generator).view(-1, 1, 1, 1)
        if not len(rows):
            return images
        colour, alpha = split(images[rows])
        grey = ((colour + 1 - alpha) * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        edges = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
        images[rows, :3] = (colour + (alpha - colour) * fade) * (1 - (self.strength * edges).clamp(0, 1))
        return images


@DATASETS.register_module(name="random_outline")
class RandomOutline:
    """Draws a line of one pixel around some drawings; pictures without alpha have no outside and stay.

    Args:
        probability: share of pictures.
        white: share of white lines; the others are black.
    """

    def __init__(self, probability: float, white: float = 0.2) -> None:
        self.probability = limits.probability(probability, "data.augment.probability")
        self.white = limits.probability(white, "data.augment.white")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures, some outlined."""
        rows = chosen(len(images), self.probability, generator).nonzero()[:, 0]
        line = chosen(len(rows), self.white, generator).float().view(-1, 1, 1, 1)
        if images.shape[1] == 3 or not len(rows):
            return images
        colour, alpha = split(images[rows])
        wider = F.max_pool2d(alpha, 3, 1, 1)
        images[rows] = torch.cat([colour + (wider - alpha) * line, wider], 1)
        return images
