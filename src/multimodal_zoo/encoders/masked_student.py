"""The student of masked image modelling: an image encoder that predicts features of patches it does not see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.registry import ENCODERS

#: What an image encoder must have, so that patches can be replaced before they get positions.
NEEDED = ("patches", "arrange", "blocks", "norm_patches")


class PatchFeatures(NamedTuple):
    """Features of patches and where they come from.

    Attributes:
        tokens: `(batch, patches, width)`, or `(chosen, width)` of chosen patches, image by image, row by row.
        grid: rows and columns of all patches of an image.
    """

    tokens: Tensor
    grid: tuple[int, int]


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """The tensor itself, exactly; its gradient is multiplied by a factor."""
    fixed = tensor.detach()
    return fixed + factor * (tensor - fixed)


@ENCODERS.register_module(name="masked_student")
class MaskedStudent(ShowsWeights):
    """An image encoder with a mask token and a head of the teacher's width (EVA-02, arXiv 2303.11331, section 2.2).

    Masked patches are replaced before class token and positions come in; the head reads them behind the final norm.

    Args:
        image: a `vision_transformer` without patch dropout.
        target_width: width of the teacher's features.
        stem_gradient: share of the gradient that reaches the patch embedding, 0 to 1; small ones steady the training.
        std: deviation of the first values of mask token and head.

    Raises:
        TypeError: an encoder that cannot take replaced patches.
        ValueError: patch dropout, or a share outside of 0 to 1.
    """

    def __init__(self, image: nn.Module, target_width: int, stem_gradient: float = 0.1, std: float = 0.02) -> None:
        super().__init__()
        if missing := [name for name in NEEDED if not hasattr(image, name)]:
            raise TypeError(
                f"masked_student.image is a {type(image).__name__} without {', '.join(missing)}: its patches cannot be "
                "replaced; use type: vision_transformer"
            )
        if getattr(getattr(image, "patch_dropout", None), "rate", 0.0) > 0:
            raise ValueError("masked_student.image.patch_dropout is set; dropped patches cannot be predicted: set null")
        if not 0 <= stem_gradient <= 1:
            raise ValueError(f"masked_student.stem_gradient is {stem_gradient}; expected a share between 0 and 1")
        self.image, self.stem_gradient, self.std = image, stem_gradient, std
        self.width, self.target_width = int(image.width), target_width
        self.mask_token = nn.Parameter(torch.empty(self.width))
        self.head = nn.Linear(self.width, target_width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal mask token and head weights, zero bias; the encoder is left as it is."""
        nn.init.normal_(self.mask_token, std=self.std)
        nn.init.normal_(self.head.weight, std=self.std)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, mask: Tensor) -> PatchFeatures:
        """Predictions for the masked patches.

        Args:
            images: `(batch, 3, height, width)`.
            mask: `(batch, patches)` bool, True where the student must not look.

        Returns:
            `(masked, target_width)`, image by image, row by row, and the grid of all patches.

        Raises:
            ValueError: a mask that does not have one entry for each patch.
        """
        states, grid = self.states(images, mask)
        return PatchFeatures(self.predictions(states[mask]), grid)

    def states(self, images: Tensor, mask: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What the blocks give for all patches, `(batch, patches, width)`, and their grid.

        Args:
            images: as in `forward`.
            mask: likewise.

        Raises:
            ValueError: a mask that does not have one entry for each patch.
        """
        tokens, grid = self.image.patches(images)
        if mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}, the student has {len(images)} x {grid[0]}x{grid[1]} patches; "
                "set data.masking.grid to the student's grid"
            )
        tokens = scale_gradient(tokens, self.stem_gradient)
        tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        tokens, rotation = self.image.arrange(tokens, grid)
        tokens = self.image.blocks(tokens, rotation=rotation)
        return tokens[:, tokens.shape[1] - mask.shape[1] :], grid

    def predictions(self, states: Tensor) -> Tensor:
        """The teacher's features as foretold from some of `states`, `(..., target_width)`."""
        return self.head(self.image.norm_patches(states))
