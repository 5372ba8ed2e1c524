"""CLIP's ResNet: a stem of three convolutions, pooling in place of strided convolutions, attention pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.nn.patches import check_images
from multimodal_zoo.registry import ENCODERS

#: Channels of a bottleneck's result per channel inside it.
EXPANSION = 4
#: Pixels of an image per cell of the last map.
STRIDE = 32


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)


class Stem(nn.Module):
    """Three 3x3 convolutions, the first of stride two, each with batch norm and ReLU, then 2x2 mean pooling.

    Args:
        width: channels of the result; inside there are half as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.convolution_1, self.norm_1 = _convolution(3, half, 3, stride=2), nn.BatchNorm2d(half)
        self.convolution_2, self.norm_2 = _convolution(half, half, 3), nn.BatchNorm2d(half)
        self.convolution_3, self.norm_3 = _convolution(half, width, 3), nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(batch, 3, h, w)` to maps `(batch, width, h / 4, w / 4)`."""
        maps = self.norm_1(self.convolution_1(images)).relu()
        maps = self.norm_2(self.convolution_2(maps)).relu()
        return F.avg_pool2d(self.norm_3(self.convolution_3(maps)).relu(), 2)


class Shortcut(nn.Module):
    """Mean pooling, 1x1 convolution, batch norm: the input of a bottleneck in the shape of its result."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution, self.norm = _convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, inputs, h, w)` to `(batch, outputs, h / stride, w / stride)`."""
        return self.norm(self.convolution(F.avg_pool2d(maps, self.stride) if self.stride > 1 else maps))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norms, added to the input (arXiv 1512.03385); no strided convolution.

    Args:
        inputs: channels of the input.
        inner: channels inside; the result has four times as many.
        stride: side of the mean pooling before the last convolution and in the shortcut.
    """

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs, self.stride = inner * EXPANSION, stride
        self.convolution_1, self.norm_1 = _convolution(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.convolution_2, self.norm_2 = _convolution(inner, inner, 3), nn.BatchNorm2d(inner)
        self.convolution_3, self.norm_3 = _convolution(inner, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = Shortcut(inputs, outputs, stride) if stride > 1 or inputs != outputs else None
        nn.init.zeros_(self.norm_3.weight)  # a new block gives its shortcut

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, inputs, h, w)` to `(batch, 4 inner, h / stride, w / stride)`."""
        branch = self.norm_1(self.convolution_1(maps)).relu()
        branch = self.norm_2(self.convolution_2(branch)).relu()
        branch = F.avg_pool2d(branch, self.stride) if self.stride > 1 else branch
        branch = self.norm_3(self.convolution_3(branch))
        return (branch + (maps if self.shortcut is None else self.shortcut(maps))).relu()


@ENCODERS.register_module(name="modified_resnet")
class ModifiedResNet(nn.Module):
    """The ResNet of CLIP and DeCLIP (arXiv 2103.00020, section 2.4); as image encoder and as feature-map encoder.

    Tokens are the cells of the last map, row by row, before pooling; they are `token_width` wide.

    Args:
        width: of the pooled features, what `pool` gives.
        image_size: pixels per side that the model's processor gives.
        stem_width: channels after the stem; stage i has `4 * 2 ** i` times as many.
        depths: bottlenecks in each of the four stages; 3, 4, 6, 3 for ResNet-50.
        pool: from the last map to one vector (`attention_pool_2d`, `mean_pool_2d`, `grid_switch_pool`).

    Raises:
        ValueError: sizes that contradict each other, with the key to change.
    """

    #: what the maps of the stages do without
    behind_maps = ("pool",)

    def __init__(self, width: int, image_size: int, stem_width: int, depths: Sequence[int], pool: nn.Module) -> None:
        super().__init__()
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"image.depths is {list(depths)}; expected four stages of at least one bottleneck")
        if stem_width < 2 or stem_width % 2:
            raise ValueError(f"image.stem_width is {stem_width}; expected an even number: the stem begins with half")
        self.channels = tuple(EXPANSION * stem_width * 2**i for i in range(4))
        self.strides = tuple(EXPANSION * 2**i for i in range(4))
        if pool.width != self.channels[-1] or pool.embed_dim != width:
            raise ValueError(
                f"image.pool maps {pool.width} to {pool.embed_dim}; the last map has {self.channels[-1]} channels and "
                f"image.width is {width}"
            )
        self.width, self.token_width, self.image_size = width, self.channels[-1], image_size
        self.stem = Stem(stem_width)
        self.stages = nn.ModuleList()
        inputs = stem_width
        for number, (depth, outputs) in enumerate(zip(depths, self.channels, strict=True)):
            inner, stride = outputs // EXPANSION, 2 if number else 1
            first, others = Bottleneck(inputs, inner, stride), (Bottleneck(outputs, inner, 1) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(first, *others))
            inputs = outputs
        self.pool = pool

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """One map a stage, `(batch, channels[i], height / strides[i], width / strides[i])`, rounded down.

        Raises:
            TypeError: pictures that are no tensor yet.
            ValueError: images that are not `(batch, 3, h, w)`, or too small for one cell of the last map.
        """
        check_images(images, 3)
        if min(images.shape[2:]) < STRIDE:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (batch, 3, height, width) with sides of at least "
                f"{STRIDE} pixels (model.image.image_size, model.processor.images.size)"
            )
        # not on a CPU: 10% faster, but its batch norm sums ten times less exactly in training, so that ReLUs switch
        layout = torch.contiguous_format if images.device.type == "cpu" else torch.channels_last
        maps, found = self.stem(images.contiguous(memory_format=layout)), []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found

    def forward(self, images: Tensor) -> ImageFeatures:
        """Images `(batch, 3, height, width)` to pooled features and one token per cell of the last map."""
        maps = self.feature_maps(images)[-1]
        return ImageFeatures(self.pool(maps), maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3]))
