"""Batch norm over the samples of all processes, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.processes import summed_with_gradient, world_size


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm (arXiv 1502.03167) whose statistics are those of all processes that train together.

    Several processes then learn exactly what one learns on the whole batch. Torch's own `SyncBatchNorm` does this on
    GPUs alone. With one process, and outside of training, it is torch's batch norm, with the same tensors.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, channels, h, w)` to the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(maps)
        exact = maps.to(torch.promote_types(maps.dtype, torch.float32))
        sums = torch.float64 if maps.device.type == "cpu" else exact.dtype  # as torch adds up on each
        count = summed_with_gradient(exact.new_tensor([exact.numel() // exact.shape[1]], dtype=sums))
        mean = summed_with_gradient(exact.sum((0, 2, 3), dtype=sums)) / count
        centred = exact - mean.to(exact.dtype)[:, None, None]
        variance = (
            summed_with_gradient(centred.square().sum((0, 2, 3), dtype=sums)) / count
        )  # in two passes: exact for large means
        self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
        scale = self.weight * torch.rsqrt(variance + self.eps).to(exact.dtype)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


def share_norms(module: nn.Module) -> None:
    """Let all of torch's own 2-D batch norms in a module be shared ones; their tensors stay."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm
