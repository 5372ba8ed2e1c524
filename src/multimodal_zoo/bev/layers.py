"""Convolutions with batch norms, which everything here is made of."""

from __future__ import annotations

from torch import Tensor, nn

from multimodal_zoo.nn.shared_norm import SharedBatchNorm


class ConvNorm(nn.Module):
    """A square convolution without bias, and batch norm; ReLU behind it if wanted.

    Args:
        inputs: channels of what it reads.
        outputs: channels of what it gives.
        side: of the kernel, odd.
        stride: step of the kernel.
        active: whether a ReLU follows.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, active: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
        self.norm, self.active = SharedBatchNorm(outputs), active

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, inputs, h, w)` to `(batch, outputs, h / stride, w / stride)`, rounded up."""
        found = self.norm(self.convolution(maps))
        return found.relu() if self.active else found


class ResidualBlock(nn.Module):
    """`relu(x + norm(conv(relu(norm(conv(x))))))`, 3x3.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(width, width, 3, active=True), ConvNorm(width, width, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, width, x, y)` to the same."""
        return (maps + self.second(self.first(maps))).relu()
