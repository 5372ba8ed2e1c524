"""ResNets of timm as encoders of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import timm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multimodal_zoo.bev.deformable import DeformableConvolution
from multimodal_zoo.nn.shared_norm import share_norms
from multimodal_zoo.registry import BEV

#: Of timm, whose tensors are named as the published files name them.
NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@BEV.register_module(name="residual_maps")
class ResidualMaps(nn.Module):
    """The maps behind the four stages of a ResNet (arXiv 1512.03385), at strides 4, 8, 16 and 32.

    Args:
        name: timm's name: `resnet18`, `resnet34`, `resnet50`, `resnet101`.
        frozen_stages: neither the stem nor the first so many stages train; -1: all do.
        frozen_norms: whether batch norms keep their statistics while training; their factors train all the same.
        deformable_stages: numbers from 0 of stages whose 3x3 convolutions are deformable (bottlenecks only).

    Raises:
        ValueError: a name that is none of these, or deformable stages of a network without bottlenecks.
    """

    def __init__(
        self,
        name: str,
        frozen_stages: int = -1,
        frozen_norms: bool = False,
        deformable_stages: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if name not in NAMES:
            raise ValueError(f"image_encoder.name is {name!r}; it takes {', '.join(NAMES)}")
        if not -1 <= frozen_stages <= 4:
            raise ValueError(f"image_encoder.frozen_stages is {frozen_stages}; expected -1 to 4")
        network = timm.create_model(name, num_classes=0, global_pool="")
        share_norms(network)
        self.name, self.frozen_stages, self.frozen_norms = name, frozen_stages, frozen_norms
        self.conv1, self.bn1, self.act1, self.maxpool = network.conv1, network.bn1, network.act1, network.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )
        for stage in deformable_stages:
            self._deform(self._stages()[stage])
        self.channels = tuple(info["num_chs"] for info in network.feature_info[1:])
        self.strides = (4, 8, 16, 32)
        self._freeze()

    def _stages(self) -> list[nn.Module]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def _deform(self, stage: nn.Module) -> None:
        for block in stage.children():
            if not hasattr(block, "conv3"):
                raise ValueError(f"image_encoder.deformable_stages: {self.name} has no bottlenecks")
            old = block.conv2
            block.conv2 = DeformableConvolution(old.in_channels, old.out_channels, old.stride[0])

    def _frozen(self) -> list[nn.Module]:
        return [] if self.frozen_stages < 0 else [self.conv1, self.bn1, *self._stages()[: self.frozen_stages]]

    def _freeze(self) -> None:
        for part in self._frozen():
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> ResidualMaps:
        """Training mode, except for what is frozen."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        if self.frozen_norms:
            for part in self.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(n, 3, height, width)` to four maps `(n, channels, h, w)`, the finest first."""
        maps = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        found = []
        for stage in self._stages():
            maps = stage(maps)
            found.append(maps)
        return found
