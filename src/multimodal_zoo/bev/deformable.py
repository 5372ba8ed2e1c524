"""Deformable convolution, version 1 (arXiv 1703.06211): taps of the kernel are moved by predicted offsets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConvolution(nn.Module):
    """A 3x3 convolution without bias whose taps move; the offsets begin as 0.

    Args:
        inputs: channels of what it reads.
        outputs: channels of what it gives.
        stride: step of the kernel.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.conv_offset = nn.Conv2d(inputs, 18, 3, stride, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming uniform kernel, taps in their places."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, inputs, h, w)` to `(batch, outputs, h / stride, w / stride)`, rounded up."""
        offsets = self.conv_offset(maps)  # (y, x) of each tap, row by row
        return deform_conv2d(maps, offsets, self.weight, stride=self.stride, padding=1)
