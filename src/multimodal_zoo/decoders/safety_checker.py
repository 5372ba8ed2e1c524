"""The check of Stable Diffusion's pictures: how near they are to concepts that should not be shown."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.registry import DECODERS

#: What a hit of a special concept adds to all other scores of that picture.
SPECIAL_CARE = 0.01
#: Mean and deviation of CLIP's pictures.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Cosines(NamedTuple):
    """What pictures are compared with.

    Attributes:
        embeddings: of the pictures, (rows, embed_dim).
        concepts: cosines to the concepts, (rows, concepts).
        special: cosines to the special ones, (rows, special).
    """

    embeddings: Tensor
    concepts: Tensor
    special: Tensor


@DECODERS.register_module(name="safety_checker")
class SafetyChecker(nn.Module):
    """Cosines of a CLIP image embedding to fixed embeddings, each with a threshold (diffusers' published checker).

    Args:
        image: the image encoder (`vision_transformer`, CLIP ViT-L/14).
        embed_dim: width of the common space.
        concepts: number of concepts.
        special: number of concepts whose hit makes the check of the others stricter.
    """

    def __init__(self, image: nn.Module, embed_dim: int, concepts: int = 17, special: int = 3) -> None:
        super().__init__()
        self.image = image
        self.image_projection = nn.Linear(int(image.width), embed_dim, bias=False)
        for name, count in (("concept", concepts), ("special", special)):
            for leaf, shape in (("embeddings", (count, embed_dim)), ("thresholds", (count,))):
                setattr(self, f"{name}_{leaf}", nn.Parameter(torch.ones(shape), requires_grad=False))

    concept_embeddings: Tensor
    concept_thresholds: Tensor
    special_embeddings: Tensor
    special_thresholds: Tensor

    @torch.no_grad()
    def cosines(self, images: Tensor) -> Cosines:
        """Embeddings and cosines of images `(rows, 3, side, side)`, normalised as CLIP's."""
        embeddings = self.image_projection(self.image(images).pooled)
        unit = F.normalize(embeddings, dim=-1)
        found = [unit @ F.normalize(of, dim=-1).t() for of in (self.concept_embeddings, self.special_embeddings)]
        return Cosines(embeddings, *found)

    def forward(self, images: Tensor) -> Tensor:
        """Which images `(rows, 3, side, side)` should not be shown, bool (rows,).

        Scores are rounded to three decimals before they are compared with 0, as published.
        """
        _, concepts, special = self.cosines(images)
        stricter = (_rounded(special - self.special_thresholds) > 0).any(1, keepdim=True) * SPECIAL_CARE
        return (_rounded(concepts - self.concept_thresholds + stricter) > 0).any(1)

    def seen(self, pixels: Tensor) -> Tensor:
        """Pictures `(rows, 3, height, width)` between 0 and 1 as the encoder takes them: squares from the middle."""
        side = int(self.image.image_size)
        height, width = pixels.shape[-2:]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        square = pixels[..., top : top + short, left : left + short].float()
        small = F.interpolate(square, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, deviation = (pixels.new_tensor(value).float()[:, None, None] for value in (MEAN, DEVIATION))
        return ((small - mean) / deviation).to(self.image_projection.weight.dtype)

    def blackened(self, pixels: Tensor, flags: Tensor) -> Tensor:
        """The pictures, black where the check forbids them; `flags` as `forward` gives them."""
        return pixels.masked_fill(flags.view(-1, *[1] * (pixels.ndim - 1)), 0)


def _rounded(scores: Tensor) -> Tensor:
    """As Python rounds: exactly halfway goes to the even digit, which torch does on the binary value too."""
    return torch.round(scores.double(), decimals=3)
