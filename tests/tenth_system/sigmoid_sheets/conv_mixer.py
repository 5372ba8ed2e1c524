"""ConvMixer (Trockman and Kolter, arXiv 2201.09792): patches, then convolutions over places and over channels."""

from __future__ import annotations

from torch import Tensor, nn

from multimodal_zoo import ENCODERS
from multimodal_zoo.encoders.outputs import ImageFeatures


class MixerBlock(nn.Module):
    """A convolution of each channel over places, added to the input, then one over channels (equations 2 and 3)."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        places = nn.Conv2d(width, width, kernel_size, groups=width, padding="same")
        self.places = nn.Sequential(places, nn.GELU(), nn.BatchNorm2d(width))
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, width, h, w)` to maps of the same shape."""
        return self.channels(maps + self.places(maps))


@ENCODERS.register_module(name="conv_mixer")
class ConvMixer(nn.Module):
    """An image encoder of convolutions at one resolution.

    Args:
        image_size: pixels per side that the model's processor gives.
        width: channels, and width of the features.
        depth: blocks.
        kernel_size: side of the neighbourhood, in patches.
        patch_size: side of a patch, in pixels.
    """

    def __init__(self, image_size: int, width: int, depth: int, kernel_size: int, patch_size: int) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of patch_size {patch_size}; change model.image")
        self.image_size, self.width = image_size, width
        self.patches = nn.Sequential(nn.Conv2d(3, width, patch_size, patch_size), nn.GELU(), nn.BatchNorm2d(width))
        self.blocks = nn.Sequential(*(MixerBlock(width, kernel_size) for _ in range(depth)))

    def forward(self, images: Tensor) -> ImageFeatures:
        """Images `(batch, 3, height, width)` to the mean of all patches, and the patches."""
        maps = self.blocks(self.patches(images))
        tokens = maps.flatten(2).transpose(1, 2)
        return ImageFeatures(tokens.mean(1), tokens, (maps.shape[2], maps.shape[3]))
