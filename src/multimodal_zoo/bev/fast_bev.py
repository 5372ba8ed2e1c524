"""Fast-BEV (arXiv 2301.12511): pictures of cameras around a car, now and before, to boxes in the LiDAR frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.head import HeadMaps
from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.registry import BEV


@BEV.register_module(name="fast_bev")
class FastBEV(ShowsWeights):
    """Image encoder, pyramid, lifting by a table, encoder in bird's-eye view, head.

    Nothing is predicted for a picture alone, so that maps of earlier pictures serve again: `encode` makes them, `bev`
    takes maps of any times.

    Args:
        image_encoder: pictures to maps, with `channels` (`residual_maps`, `token_maps`).
        pyramid: maps to maps of one width (`feature_pyramid`).
        fusions: the maps that are lifted (`level_fusion`).
        lift: maps of all cameras and times to one map (`fast_ray`).
        bev_encoder: that map to the map of the head (`bev_encoder`).
        head: to scores, boxes and directions, with their selection (`anchor_head`).
        frames: how many times are read, the current one among them.

    Raises:
        ValueError: parts that do not fit, with the keys.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        pyramid: nn.Module,
        fusions: Sequence[nn.Module],
        lift: nn.Module,
        bev_encoder: nn.Module,
        head: nn.Module,
        frames: int = 1,
    ) -> None:
        super().__init__()
        self.image_encoder: Any = image_encoder
        self.pyramid: Any = pyramid
        self.fusions = nn.ModuleDict({str(fusion.level): fusion for fusion in fusions})  # as the published names count
        self.lift: Any = lift
        self.bev_encoder: Any = bev_encoder
        self.head: Any = head
        self.frames = frames
        #: what turns recorded scenes into what the model reads; given by the configuration of a variant
        self.processor: Any = None
        self._check()

    def _check(self) -> None:
        if tuple(self.image_encoder.channels) != tuple(self.pyramid.in_channels):
            raise ValueError(
                f"pyramid.in_channels is {self.pyramid.in_channels}; image_encoder gives maps of "
                f"{tuple(self.image_encoder.channels)} channels"
            )
        used = {level for level, _ in self.lift.pairs}
        if used != set(range(len(self.fusions))):
            raise ValueError(f"lift.pairs names the maps {sorted(used)}; there are {len(self.fusions)} fusions")
        lifted = self.lift.channels([part.out_channels for part in self.fusions.values()], self.frames)
        if lifted != self.bev_encoder.in_channels:
            raise ValueError(
                f"bev_encoder.in_channels is {self.bev_encoder.in_channels}; {self.frames} frames lifted into "
                f"{[grid.counts for grid in self.lift.grids]} voxels have {lifted} channels"
            )
        if self.head.in_channels != self.bev_encoder.width:
            raise ValueError(
                f"head.in_channels is {self.head.in_channels}; bev_encoder.width is {self.bev_encoder.width}"
            )

    def encode(self, images: Tensor) -> list[Tensor]:
        """The maps that are lifted, for each level `(batch, frames, cameras, channels, h, w)`.

        Args:
            images: float (batch, frames, cameras, 3, height, width), normalised.
        """
        maps = self.pyramid(self.image_encoder(images.flatten(0, 2)))
        return [fusion(maps).unflatten(0, images.shape[:3]) for fusion in self.fusions.values()]

    def bev(self, maps: Sequence[Tensor], cameras: Cameras) -> Tensor:
        """The map that the head reads, `(batch, width, x, y)`.

        Args:
            maps: as `encode` gives them.
            cameras: of the same batch, frames and cameras.
        """
        return self.bev_encoder(self.lift(maps, cameras, lent=True))

    def forward(self, images: Tensor, cameras: Cameras) -> HeadMaps:
        """Scores, boxes and directions of all anchors.

        Args:
            images: as in `encode`.
            cameras: of the same batch.

        Raises:
            ValueError: another number of frames than the model reads, or pictures of another size than the cameras'.
        """
        if images.shape[1] != self.frames:
            raise ValueError(f"images of {images.shape[1]} frames; model.frames is {self.frames}")
        if tuple(images.shape[-2:]) != tuple(cameras.size):
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels with cameras for {tuple(cameras.size)}: calibration and "
                "pictures must be resized together"
            )
        return self.head(self.bev(self.encode(images), cameras))

    @torch.no_grad()
    def predict(self, images: Tensor, cameras: Cameras) -> list[Detections]:
        """The objects of each sample; the model must be in evaluation mode."""
        return self.head.select([self(images, cameras)])

    @torch.no_grad()
    def predict_mirrored(self, images: Tensor, cameras: Cameras) -> list[Detections]:
        """The objects found in the pictures and in their mirror images together (published as `use_tta`)."""
        width = cameras.size[1]
        flip = torch.eye(4, dtype=torch.float64, device=cameras.lidar_to_image.device)
        flip[0, 0], flip[0, 2] = -1.0, float(width)
        mirrored = Cameras(flip @ cameras.lidar_to_image, cameras.size, cameras.present)
        return self.head.select([self(images, cameras), self(images.flip(-1), mirrored)])
