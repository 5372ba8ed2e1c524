"""The cameras of a batch: where each point of the scene falls in each picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.movable import moved, pinned


@dataclass(frozen=True, eq=False)
class Cameras:
    """Calibrated pictures: any number of cameras, at the current time and, behind it, at earlier ones.

    Attributes:
        lidar_to_image: float64 (batch, frames, cameras, 4, 4), from metres of the current LiDAR frame to
            `(u depth, v depth, depth, 1)` in pixels of the picture that the model gets; see `bev.geometry`.
        size: height and width of the pictures.
        present: bool (batch, frames, cameras), False where a camera gave no picture; None where all did.

    Raises:
        ValueError: tensors of other shapes or types, or numbers that are not finite.
    """

    to, pin_memory = moved, pinned

    lidar_to_image: Tensor
    size: tuple[int, int]
    present: Tensor | None = None

    def __post_init__(self) -> None:
        matrices = self.lidar_to_image
        if matrices.dim() != 5 or matrices.shape[-2:] != (4, 4) or matrices.dtype != torch.float64:
            raise ValueError(
                f"cameras.lidar_to_image is {matrices.dtype} of shape {tuple(matrices.shape)}; expected float64 "
                "(batch, frames, cameras, 4, 4): in lower precision points fall on other pixels"
            )
        if may_look(matrices) and not bool(matrices.isfinite().all()):
            raise ValueError("cameras.lidar_to_image holds numbers that are not finite")
        if self.present is not None and (self.present.dtype != torch.bool or self.present.shape != matrices.shape[:3]):
            raise ValueError(
                f"cameras.present is {self.present.dtype} of shape {tuple(self.present.shape)}; expected bool "
                f"{tuple(matrices.shape[:3])}"
            )

    def __len__(self) -> int:
        """Number of samples."""
        return self.lidar_to_image.shape[0]

    def frames(self, start: int, stop: int) -> Cameras:
        """Some of the frames, from `start` up to `stop`."""
        present = None if self.present is None else self.present[:, start:stop]
        return Cameras(self.lidar_to_image[:, start:stop], self.size, present)

    def fingerprint(self) -> str:
        """The same for equal cameras only: what tables are kept by."""
        parts = [self.lidar_to_image] if self.present is None else [self.lidar_to_image, self.present]
        digest = hashlib.blake2b(repr((self.size, tuple(self.lidar_to_image.shape))).encode(), digest_size=16)
        for part in parts:
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def joined_frames(parts: list[Cameras]) -> Cameras:
    """Cameras of one batch at several times as one, the current time first.

    Raises:
        ValueError: pictures of different sizes.
    """
    if len({part.size for part in parts}) != 1:
        raise ValueError(f"cameras: frames of one sample have pictures of sizes {[part.size for part in parts]}")
    matrices = torch.cat([part.lidar_to_image for part in parts], dim=1)
    if all(part.present is None for part in parts):
        return Cameras(matrices, parts[0].size)
    shown = [
        torch.ones(part.lidar_to_image.shape[:3], dtype=torch.bool, device=matrices.device)
        if part.present is None
        else part.present
        for part in parts
    ]
    return Cameras(matrices, parts[0].size, torch.cat(shown, dim=1))
