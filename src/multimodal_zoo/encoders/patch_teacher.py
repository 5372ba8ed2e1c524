"""The teacher of masked image modelling: an image encoder whose patch features a student predicts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.dual_encoder import normed_patches
from multimodal_zoo.encoders.image_tokens import token_width
from multimodal_zoo.encoders.masked_student import PatchFeatures
from multimodal_zoo.registry import ENCODERS


@ENCODERS.register_module(name="patch_teacher")
class PatchTeacher(nn.Module):
    """Patch tokens of an image encoder behind its final norm, and behind a projection if it has one; not normalised.

    A CLIP's image tower with its image projection is the teacher of EVA-02 and of EVA-CLIP-8B and 18B
    (arXiv 2303.11331, 2402.04252). It never trains and is always in evaluation mode.

    Args:
        encoder: any image encoder.
        projection: the image projection of a dual encoder, or None for the encoder's own features.
        image_size: pixels to which images are resized for the teacher, where its patches differ in size from the
            student's; None gives it the student's images.
        layer: the block whose output is given, as it is, without final norm and projection (-2: the one before the
            last); None for the last, behind the norm.

    Raises:
        ValueError: a layer of an encoder that gives none, no pixels, or a projection of another width than the tokens'.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projection: nn.Module | None = None,
        image_size: int | None = None,
        layer: int | None = None,
    ) -> None:
        super().__init__()
        if layer is not None and not hasattr(encoder, "intermediates"):
            raise ValueError(
                f"teacher.layer is {layer}, but {type(encoder).__name__} does not give its layers: set null"
            )
        if image_size is not None and image_size < 1:
            raise ValueError(f"teacher.image_size is {image_size}; give pixels, or null for the student's images")
        self.encoder, self.projection, self.image_size = encoder, projection, image_size
        self.layer = layer
        tokens = token_width(encoder) if layer is None else int(encoder.width)
        if projection is not None and layer is None and projection.width != tokens:
            raise ValueError(
                f"teacher.model.image gives tokens of width {tokens}, teacher.model.image_projection reads width "
                f"{projection.width}: only its pooled features fit. Take it without projection (part: image), or an "
                "encoder whose tokens are as wide"
            )
        self.width: int = tokens if projection is None or layer is not None else int(projection.embed_dim)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PatchTeacher:
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> PatchFeatures:
        """Features `(batch, patches, width)` of images `(batch, 3, height, width)`."""
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
        if self.layer is not None:
            (tokens,) = self.encoder.intermediates(images, [self.layer])
            return PatchFeatures(tokens[:, self.encoder.prefix_length :], self._grid(images))
        tokens, grid = normed_patches(self.encoder, images)
        return PatchFeatures(tokens if self.projection is None else self.projection(tokens), grid)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (batch, 3, height, width)."""
        side = int(self.encoder.patches.patch_size)
        return images.shape[-2] // side, images.shape[-1] // side
