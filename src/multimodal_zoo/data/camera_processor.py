"""What must match a detector's weights: cameras, classes, size and colours of pictures, and which times it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.geometry import history_pose, lidar_to_image
from multimodal_zoo.data.bev_augment import BevChange
from multimodal_zoo.data.camera_augment import CameraAugment, CameraView, PictureChange, planes
from multimodal_zoo.data.camera_checks import CameraChecks
from multimodal_zoo.data.camera_history import CameraHistory
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.registry import DATASETS


class CameraSample(NamedTuple):
    """One key frame as the model reads it, without its boxes.

    Attributes:
        pixels: uint8 (frames, cameras, 3, height, width), red, green, blue; zeros where there is no picture.
        lidar_to_image: float64 (frames, cameras, 4, 4).
        present: bool (frames, cameras).
        key: name of the key frame.
    """

    pixels: Tensor
    lidar_to_image: Tensor
    present: Tensor
    key: str


@DATASETS.register_module(name="camera_processor")
class CameraProcessor:
    """Pictures of a camera rig to a model's inputs.

    Args:
        cameras: their names in the order in which published weights overwrite voxels; any number.
        classes: names of the labels.
        view: how a picture becomes the input.
        history: which other times are read.
        mean: of red, green and blue, on the scale 0 to 255.
        std: of the same.
        checks: of calibrations; None for rigs that are not on a car.

    Raises:
        ValueError: a name that stands twice, or a standard deviation that is not positive.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        classes: Sequence[str],
        view: CameraView,
        history: CameraHistory,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        checks: CameraChecks | None = None,
    ) -> None:
        for name, values in (("cameras", cameras), ("classes", classes)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"processor.{name} is {list(values)}; expected different names, at least one")
        if min(std) <= 0:
            raise ValueError(f"processor.std is {list(std)}; expected values above 0")
        self.cameras, self.classes, self.view, self.history = tuple(cameras), tuple(classes), view, history
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))
        self.checks = checks

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs."""
        return self.view.result

    @property
    def frames(self) -> int:
        """How many times a sample has."""
        return self.history.frames

    def normalise(self, pixels: Tensor, present: Tensor | None = None) -> Tensor:
        """Float `(..., 3, height, width)` from uint8, zeros where there is no picture.

        Args:
            pixels: uint8 `(..., 3, height, width)`, red, green, blue.
            present: bool `(...)`; None where all are.
        """
        images = (pixels.float() - self.mean.to(pixels.device)) / self.std.to(pixels.device)
        return images if present is None else images * present[..., None, None, None].to(images)

    def batch(self, infos: Sequence[SceneInfo], root: Path) -> DetectionBatch:
        """Key frames as a model reads them, nothing drawn, and without boxes.

        Args:
            infos: the key frames.
            root: folder that paths of pictures are relative to.

        Raises:
            ValueError: a picture that is missing or broken, with its file, or a calibration that cannot be right.
        """
        samples = [self.whole(info, root) for info in infos]
        images, cameras = self.joined(samples)
        none = [torch.zeros(0, 9), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool)]
        boxes, labels, known = (tuple(one for _ in samples) for one in none)
        return DetectionBatch(images, cameras, boxes, labels, known, tuple(one.key for one in samples))

    def joined(self, samples: Sequence[CameraSample]) -> tuple[Tensor, Cameras]:
        """Normalised pictures (batch, frames, cameras, 3, height, width) of some samples, and their cameras."""
        present = torch.stack([sample.present for sample in samples])
        matrices = torch.stack([sample.lidar_to_image for sample in samples])
        images = self.normalise(torch.stack([sample.pixels for sample in samples]), present)
        return images, Cameras(matrices, self.size, None if bool(present.all()) else present)

    def whole(self, info: SceneInfo, root: Path) -> CameraSample:
        """A key frame of which every picture is needed, nothing drawn; see `sample`.

        Raises:
            ValueError: a picture that is missing or broken, with its file, or a calibration that cannot be right.
        """
        try:
            return self.sample(info, root)
        except UnusableError as error:
            raise ValueError(f"sample {info.token}: {error.reason}: {error.key}; every picture is needed") from error

    def sample(
        self,
        info: SceneInfo,
        root: Path,
        random: Random | None = None,
        augment: CameraAugment | None = None,
        change: BevChange | None = None,
    ) -> CameraSample:
        """The pictures of a key frame and its other times, with where the scene falls in them.

        Args:
            info: the key frame.
            root: folder that paths of pictures are relative to.
            random: of a training sample; None outside of training.
            augment: what is drawn for each picture; None for the view alone. Needs `random`.
            change: of the whole scene.

        Raises:
            UnusableError: a picture that is missing or broken, with its file.
            ValueError: a calibration that cannot be right, with the camera, or none of the cameras by name.
        """
        known = {name: camera for name, camera in info.cameras.items() if name in self.cameras}
        if not known:
            raise ValueError(
                f"sample {info.token}: none of processor.cameras {list(self.cameras)} is among its cameras, which are "
                f"{list(info.cameras)}: a model would see nothing"
            )
        if self.checks is not None:
            self.checks.rig(known, info.lidar2ego, f"sample {info.token}")
        times = self.times(info, random)
        pixels = torch.zeros(len(times), len(self.cameras), 3, *self.size, dtype=torch.uint8)
        present = torch.zeros(len(times), len(self.cameras), dtype=torch.bool)
        matrices = nowhere(len(times), len(self.cameras))
        opened: dict[str, Image.Image] = {}  # a repeated time has the same pictures
        for frame, (paths, ego) in enumerate(times):
            for number, (name, path) in enumerate(zip(self.cameras, paths, strict=True)):
                if path is None or name not in info.cameras:
                    continue
                camera = info.cameras[name]
                if path not in opened:
                    opened[path] = to_rgb(load(open_picture(root / path, turn=False), str(root / path)))
                picture = opened[path]
                size = picture.height, picture.width
                if self.checks is not None:
                    self.checks.picture(camera, size, f"sample {info.token}, {name} ({path})")
                made = self._change(size, random, augment)
                pose = torch.from_numpy(camera.sensor2lidar)
                if frame:
                    pose = moved_pose(info, ego, pose)
                pose = pose if change is None else change.poses(pose)
                matrices[frame, number] = lidar_to_image(torch.from_numpy(camera.intrinsic), pose, made.map())
                pixels[frame, number], present[frame, number] = planes(made.apply(picture)), True
        return CameraSample(pixels, matrices, present, info.token)

    def times(self, info: SceneInfo, random: Random | None) -> list[tuple[list[str | None], np.ndarray]]:
        """Paths of the cameras' pictures (None: there is none) and ego pose of each time, the current one first."""
        now = [info.cameras[name].path if name in info.cameras else None for name in self.cameras]
        found: list[tuple[list[str | None], np.ndarray]] = [(now, info.ego2global)]
        for past in self.history.chosen(info, random):
            ego = info.ego2global if past.sweep is None else past.sweep.ego2global
            found.append((self.history.pictures(info, past, self.cameras), ego))
        return found

    def _change(self, size: tuple[int, int], random: Random | None, augment: CameraAugment | None) -> PictureChange:
        if augment is None:
            return self.view.change(size)
        if random is None:
            raise ValueError("augmentation needs a source of random numbers")
        return augment.draw(size, self.view, random)


def nowhere(frames: int, cameras: int) -> Tensor:
    """Float64 (frames, cameras, 4, 4), matrices of cameras that see nothing: all points lie behind them."""
    found = torch.zeros(frames, cameras, 4, 4, dtype=torch.float64)
    found[..., 2, 3], found[..., 3, 3] = -1.0, 1.0
    return found


def moved_pose(info: SceneInfo, ego: np.ndarray, sensor2lidar: Tensor) -> Tensor:
    """Pose (4, 4) of a camera at another time, in the LiDAR frame of the key frame."""
    now, then, lidar = (torch.from_numpy(one) for one in (info.ego2global, ego, info.lidar2ego))
    return history_pose(now, then, lidar, sensor2lidar)
