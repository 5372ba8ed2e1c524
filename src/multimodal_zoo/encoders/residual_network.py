"""A small pre-activation residual network (He et al., arXiv:1603.05027): the image tower for CPUs and little data.

On 64-pixel pictures and minutes of one CPU it learns several times faster than a vision transformer: locality need not
be learned. It serves both as an image encoder and as a feature-map encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.nn.patches import check_images
from multimodal_zoo.registry import ENCODERS


class ResidualBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, added to the input.

    Args:
        channels: of input and output.
        residual_scale: factor on the last convolution's initial weights; below one the block starts near identity.
    """

    def __init__(self, channels: int, residual_scale: float = 0.3) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.norm_1 = nn.BatchNorm2d(channels)
        self.convolution_1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(channels)
        self.convolution_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew as PyTorch does, then shrink the branch."""
        for part in (self.norm_1, self.convolution_1, self.norm_2, self.convolution_2):
            part.reset_parameters()
        with torch.no_grad():
            self.convolution_2.weight.mul_(self.residual_scale)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, channels, h, w)` to maps of the same shape."""
        branch = self.convolution_1(self.norm_1(maps).relu())
        return maps + self.convolution_2(self.norm_2(branch).relu())


class Stage(nn.Module):
    """An entry convolution that reduces the resolution, then residual blocks."""

    def __init__(self, entry: nn.Module, channels: int, depth: int) -> None:
        super().__init__()
        self.entry = entry
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, in, h, w)` to `(batch, channels, h / stride, w / stride)`."""
        return self.blocks(self.entry(maps))


class Reduce(nn.Module):
    """Norm, ReLU and a 3x3 convolution of stride two."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, inputs, h, w)` to `(batch, outputs, ceil(h / 2), ceil(w / 2))`."""
        return self.convolution(self.norm(maps).relu())


@ENCODERS.register_module(name="residual_network")
class ResidualNetwork(nn.Module):
    """Patch convolution, stages at halving resolution, mean over the last map.

    Args:
        image_size: pixels per side that the model's processor gives; any multiple of the last stride works.
        width: of the pooled features, equal to the last of `channels`.
        channels: of each stage.
        depths: residual blocks in each stage.
        patch_size: kernel and stride of the first convolution.

    Raises:
        ValueError: sizes that contradict each other, with the key to change.
    """

    #: what the maps of the stages do without
    behind_maps = ("final_norm", "pooled_norm")

    def __init__(
        self, image_size: int, width: int, channels: Sequence[int], depths: Sequence[int], patch_size: int = 4
    ) -> None:
        super().__init__()
        if width != channels[-1]:
            raise ValueError(f"width {width} is not the last of channels {list(channels)}; change model.image.width")
        if len(channels) != len(depths):
            raise ValueError(f"channels {list(channels)} and depths {list(depths)} must have one entry a stage")
        self.image_size, self.width, self.channels = image_size, width, tuple(channels)
        self.strides = tuple(patch_size * 2**i for i in range(len(channels)))
        entries = [nn.Conv2d(3, channels[0], patch_size, patch_size)]
        reductions = [Reduce(a, b) for a, b in pairwise(channels)]
        self.stages = nn.ModuleList(
            Stage(entry, channel, depth)
            for entry, channel, depth in zip([*entries, *reductions], channels, depths, strict=True)
        )
        self.final_norm = nn.BatchNorm2d(width)
        self.pooled_norm = nn.LayerNorm(width)
        # convolutions on a CPU run up to twice as fast on channels-last memory; results are the same
        self.to(memory_format=torch.channels_last)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """One map a stage, `(batch, channels[i], height / strides[i], width / strides[i])`.

        Raises:
            TypeError: pictures that are no tensor yet.
            ValueError: images that are not `(batch, 3, h, w)` with sides divisible by the last stride.
        """
        check_images(images, 3)
        last = self.strides[-1]
        if images.shape[2] % last or images.shape[3] % last:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (batch, 3, height, width) with sides divisible by "
                f"{last} (model.image.patch_size, model.processor.images.size)"
            )
        maps, found = images.contiguous(memory_format=torch.channels_last), []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found

    def forward(self, images: Tensor) -> ImageFeatures:
        """Images `(batch, 3, height, width)` to pooled features and one token per cell of the last map."""
        maps = self.final_norm(self.feature_maps(images)[-1]).relu()
        tokens = maps.flatten(2).transpose(1, 2)
        return ImageFeatures(self.pooled_norm(tokens.mean(1)), tokens, (maps.shape[2], maps.shape[3]))
