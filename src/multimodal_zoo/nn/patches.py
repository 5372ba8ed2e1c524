"""From pixels to patch tokens: the plain patch embedding and a small convolutional stem, interchangeable.

Each takes images `(batch, channels, height, width)` and gives tokens `(batch, rows * columns, width)`, row by row, and
the grid `(rows, columns)`; attributes `width` and `patch_size` (pixels per token side).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.registry import ENCODERS


def check_images(images: Tensor, channels: int) -> None:
    """Refuse what are no images.

    Raises:
        TypeError: pictures that are no tensor yet.
        ValueError: another shape than `(batch, channels, height, width)`.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images: expected a tensor, got {type(images).__name__}; the model's processor.images makes one"
        )
    if images.dim() != 4 or images.shape[1] != channels:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (batch, {channels}, height, width)")


def grid_of(images: Tensor, patch_size: int, channels: int) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        TypeError: pictures that are no tensor yet.
        ValueError: a wrong number of channels, or a side that patches do not divide or that is zero.
    """
    check_images(images, channels)
    height, width = images.shape[2:]
    if height % patch_size or width % patch_size or height == 0 or width == 0:
        raise ValueError(
            f"images of {height}x{width} pixels do not divide into patches of {patch_size}; change image_size of the "
            "image transform or patches.patch_size"
        )
    return height // patch_size, width // patch_size


def resize_kernel(weight: Tensor, patch_size: int) -> Tensor:
    """Interpolate the weight of a patch embedding for another patch size: bicubic, no antialiasing, as EVA-CLIP does.

    Args:
        weight: `(width, channels, old, old)`.
        patch_size: side wanted, in pixels.

    Returns:
        `(width, channels, patch_size, patch_size)`, in the weight's dtype.
    """
    if tuple(weight.shape[2:]) == (patch_size, patch_size):
        return weight
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return F.interpolate(exact, size=(patch_size, patch_size), mode="bicubic", align_corners=False).to(weight.dtype)


@ENCODERS.register_module(name="patch_embedding")
class PatchEmbedding(nn.Module):
    """A linear map of each square patch (ViT, arXiv 2010.11929).

    The weight has the shape of the published convolutions; it is applied as a matrix, which is the same sum and
    gives a faster backward pass than a convolution whose kernel equals its stride.

    Args:
        width: width of the tokens.
        patch_size: side of a patch, in pixels.
        bias: whether the map has a bias.
        channels: channels of the images.
    """

    def __init__(self, width: int, patch_size: int, bias: bool, channels: int = 3) -> None:
        super().__init__()
        self.width, self.patch_size, self.channels = width, patch_size, channels
        self.weight = nn.Parameter(torch.empty(width, channels, patch_size, patch_size))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's rule for a convolution: uniform, variance `1 / (3 fan_in)`."""
        bound = (self.channels * self.patch_size**2) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens `(batch, rows * columns, width)` and the grid."""
        rows, columns = grid = grid_of(images, self.patch_size, self.channels)
        side = self.patch_size
        cut = images.reshape(images.shape[0], self.channels, rows, side, columns, side)
        pixels = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return F.linear(pixels, self.weight.flatten(1), self.bias), grid


@ENCODERS.register_module(name="frozen_patch_embedding")
class FrozenPatchEmbedding(PatchEmbedding):
    """A patch embedding whose weight stays as it was drawn, which steadies training (MoCo v3, arXiv 2104.02057).

    The weight has no gradient, so that no optimiser moves or decays it; training mode turns the gradient off again if
    somebody turned it on. A bias, if there is one, trains.

    Args:
        width: width of the tokens.
        patch_size: side of a patch, in pixels.
        bias: whether the map has a bias; DeCLIP's has none.
        channels: channels of the images.
    """

    def __init__(self, width: int, patch_size: int, bias: bool, channels: int = 3) -> None:
        super().__init__(width, patch_size, bias, channels)
        self.weight.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenPatchEmbedding:
        """Change the mode; the weight stays without gradient."""
        self.weight.requires_grad_(False)
        return super().train(mode)


@ENCODERS.register_module(name="conv_stem")
class ConvStem(nn.Module):
    """Small strided convolutions in place of one big patch (arXiv 2106.14881): trains faster from scratch.

    `patch_size` is reached by 3x3 convolutions of stride 2 whose channels double, each with a group norm and GELU, and
    a 1x1 convolution to the width of the tokens.

    Args:
        width: width of the tokens.
        patch_size: pixels per token side, a power of 2.
        hidden: channels after the first convolution, a multiple of `groups`.
        groups: groups of each norm; no statistics cross samples, so chunks and ranks do not matter.
        channels: channels of the images.
    """

    def __init__(self, width: int, patch_size: int, hidden: int, groups: int = 4, channels: int = 3) -> None:
        super().__init__()
        steps = patch_size.bit_length() - 1
        if patch_size != 2**steps or steps < 1:
            raise ValueError(f"patches.patch_size is {patch_size}; a conv_stem takes a power of 2 from 2 upwards")
        if hidden % groups:
            raise ValueError(f"patches.hidden {hidden} is not a multiple of patches.groups {groups}")
        self.width, self.patch_size, self.channels = width, patch_size, channels
        layers: list[nn.Module] = []
        before = channels
        for step in range(steps):
            after = hidden * 2**step
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(groups, after), nn.GELU()]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, width, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens `(batch, rows * columns, width)` and the grid."""
        grid = grid_of(images, self.patch_size, self.channels)
        return self.layers(images).flatten(2).transpose(1, 2), grid
