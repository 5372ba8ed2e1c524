"""Made-up cameras around a car, for tests."""

from __future__ import annotations

import math

import torch

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.geometry import lidar_to_image, pose


def rig(
    cameras: int = 6, size: tuple[int, int] = (32, 88), batch: int = 1, frames: int = 1, ahead: float = 0.0
) -> Cameras:
    """Cameras that look outwards all around, a metre from the LiDAR; earlier frames stand `ahead` metres behind."""
    height, width = size
    intrinsic = torch.tensor([[0.8 * width, 0, width / 2 - 0.3], [0, 0.8 * width, height / 2 - 0.2], [0, 0, 1]])
    found = torch.empty(batch, frames, cameras, 4, 4, dtype=torch.float64)
    for row in range(batch):
        for frame in range(frames):
            for number in range(cameras):
                angle = 2 * math.pi * number / cameras + 0.05 * row
                c, s = math.cos(angle), math.sin(angle)
                right, forward = torch.tensor([c, s, 0.0]), torch.tensor([-s, c, 0.0])
                rotation = torch.stack((right, torch.tensor([0.0, 0.0, -1.0]), forward), dim=1)
                place = forward + torch.tensor([0.0, -ahead * frame, 0.1])
                found[row, frame, number] = lidar_to_image(intrinsic, pose(rotation, place))
    return Cameras(found, size)
