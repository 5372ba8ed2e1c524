"""Objects around a car from the pictures of its cameras, and pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.bev.boxes import to_modern
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.geometry import lidar_to_image
from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.inference.box_pictures import boxes_from_above, boxes_in_camera, surround_sheet
from multimodal_zoo.inference.speaking import evaluating

#: Rows of a sheet, for cameras of these names; others come below.
ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))


class SeenScene(NamedTuple):
    """A scene with what was found in it.

    Attributes:
        info: pictures and calibration.
        root: folder of the pictures.
        found: objects, in the LiDAR frame.
        classes: names of their labels.
    """

    info: SceneInfo
    root: Path
    found: Detections
    classes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One entry for each object, the highest score first: modern boxes in metres, radians and metres per second."""
        modern = to_modern(self.found.boxes.double())
        order = self.found.scores.argsort(descending=True).tolist()
        return [
            {
                "class": self.classes[int(self.found.labels[n])],
                "score": float(self.found.scores[n]),
                "centre": modern[n, :3].tolist(),
                "length_width_height": modern[n, 3:6].tolist(),
                "yaw": float(modern[n, 6]),
                "velocity": modern[n, 7:9].tolist(),
            }
            for n in order
        ]

    def pictures(self, score: float) -> dict[str, Image.Image]:
        """Camera -> its picture with the boxes of at least a score."""
        kept = self.found.scores >= score
        boxes, labels = self.found.boxes[kept], self.found.labels[kept]
        drawn = {}
        for name, camera in self.info.cameras.items():
            picture = to_rgb(load(open_picture(self.root / camera.path, turn=False), str(self.root / camera.path)))
            matrix = lidar_to_image(torch.from_numpy(camera.intrinsic), torch.from_numpy(camera.sensor2lidar))
            drawn[name] = boxes_in_camera(picture, matrix, boxes, labels)
        return drawn

    def above(self, score: float, truth: Tensor | None = None) -> Image.Image:
        """The map from above with the boxes of at least a score, and with true ones, (n, 9), if given."""
        kept = self.found.scores >= score
        return boxes_from_above(self.found.boxes[kept], self.found.labels[kept], truth, scores=self.found.scores[kept])

    def sheet(self, score: float, truth: Tensor | None = None) -> Image.Image:
        """All pictures and the map as one."""
        return surround_sheet(self.pictures(score), self.above(score, truth), ROWS)


def detect(model: FastBEV, info: SceneInfo, root: str | Path, *, mirrored: bool = False) -> SeenScene:
    """The objects of one scene.

    Args:
        model: with its processor.
        info: pictures and calibration, from `data.camera_rig.read_rig` or a reader of scenes.
        root: folder of the pictures.
        mirrored: whether the mirrored pictures are looked at too.

    Raises:
        TypeError: a model that detects nothing.
        ValueError: a calibration that cannot be right, or a picture that is missing or broken, with camera or file.
    """
    if not isinstance(model, FastBEV) or model.processor is None:
        raise TypeError(f"{type(model).__name__} finds no boxes; mmzoo detect needs a detector with its processor")
    batch = model.processor.batch([info], Path(root))
    with evaluating(model) as device:
        look = model.predict_mirrored if mirrored else model.predict
        (found,) = look(batch.images.to(device), batch.cameras.to(device))
    return SeenScene(info, Path(root), Detections(*(part.cpu() for part in found)), tuple(model.processor.classes))
