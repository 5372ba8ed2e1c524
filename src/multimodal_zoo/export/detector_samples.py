"""Samples that an exported detector is tried with, and what it must answer to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import YAW
from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.geometry import lidar_to_image, pose, rotation_of, wrapped
from multimodal_zoo.export.detector import DetectorGraph


class DetectorSample(NamedTuple):
    """One sample of a detector.

    Attributes:
        images: (1, frames, cameras, 3, height, width), normalised, the current frame first.
        cameras: of it.
    """

    images: Tensor
    cameras: Cameras


class Difference(NamedTuple):
    """How far two answers are from each other: largest absolute differences.

    Attributes:
        boxes: metres, radians up to half a turn, metres per second.
        scores: of classes.
        maps: of features.
        turned: share of the boxes that look the other way, which two nearly equal logits can do.
    """

    boxes: float
    scores: float
    maps: float
    turned: float

    @property
    def largest(self) -> float:
        """The largest of the differences in numbers."""
        return max(self.boxes, self.scores, self.maps)


@torch.no_grad()
def graph_inputs(graph: DetectorGraph, sample: DetectorSample) -> dict[str, Tensor]:
    """What a graph takes for a sample: names and tensors in the order of its inputs.

    Args:
        graph: of the model.
        sample: of as many frames and cameras as the graph has.

    Raises:
        ValueError: pictures or cameras of other numbers or sizes, or a missing camera where the rig is in the graph.
    """
    model, sizes = graph.model, graph.sizes
    expected = (1, model.frames, sizes.cameras, 3, sizes.height, sizes.width)
    if tuple(sample.images.shape) != expected:
        raise ValueError(f"a sample of shape {tuple(sample.images.shape)}; the graph is made for {expected}")
    found = {"images": sample.images[0, 0]}
    if model.frames > 1:
        found |= {f"history_{level}": maps[0] for level, maps in enumerate(model.encode(sample.images[:, 1:]))}
    if graph.calibration == "motion":
        if sample.cameras.present is not None:
            raise ValueError("calibration=motion: a camera is missing, which only calibration=tables can tell a graph")
        return {**found, **({"motion": motions(sample.cameras)} if model.frames > 1 else {})}
    maps = [(shape[-2], shape[-1]) for shape in graph.map_shapes()]
    tables = model.lift.tables(sample.cameras, maps)
    return {**found, **{f"rows_{number}": table.rows[0].int() for number, table in enumerate(tables)}}


def motions(cameras: Cameras) -> Tensor:
    """The car's motion since each earlier frame, float64 (frames - 1, 4, 4), as the matrices of a sample hold it."""
    matrices = cameras.lidar_to_image[0]
    return torch.linalg.inv(matrices[0, 0]) @ matrices[1:, 0]


@torch.no_grad()
def eager_answer(model: FastBEV, sample: DetectorSample) -> dict[str, Tensor]:
    """What the model computes for a sample, all frames anew, by the names of a graph's results."""
    maps = model.encode(sample.images)
    boxes, scores = model.head.decoded(model.head(model.bev(maps, sample.cameras)))
    return {"boxes": boxes[0], "scores": scores[0], **{f"maps_{k}": one[0, 0] for k, one in enumerate(maps)}}


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Difference:
    """How far an answer is from the expected one; infinite where numbers are not finite."""
    if not all(bool(one.isfinite().all()) for one in found.values()):
        return Difference(math.inf, math.inf, math.inf, 1.0)
    off = found["boxes"] - expected["boxes"]
    turn = wrapped(off[:, YAW], 0.5, math.pi)
    turned = (wrapped(off[:, YAW], 0.5, 2 * math.pi) - turn).abs() > 1
    flat = torch.cat((off[:, :YAW], turn[:, None], off[:, YAW + 1 :]), dim=1)
    maps = [float((found[name] - one).abs().max()) for name, one in expected.items() if name.startswith("maps_")]
    scores = float((found["scores"] - expected["scores"]).abs().max())
    return Difference(float(flat.abs().max()), scores, max(maps), float(turned.float().mean()))


def recorded_sample(model: FastBEV, info: Any, root: Path) -> DetectorSample:
    """A recorded scene as the model reads it.

    Args:
        model: with its processor.
        info: a `SceneInfo`.
        root: folder of its pictures.
    """
    images, cameras = model.processor.joined([model.processor.sample(info, root)])
    return DetectorSample(images, cameras)


def random_sample(graph: DetectorGraph, seed: int) -> DetectorSample:
    """Noise, seen by made-up cameras that look outwards all around (or by the graph's own), on a car that drives."""
    generator = torch.Generator().manual_seed(seed)
    frames, sizes = graph.model.frames, graph.sizes
    images = torch.randn(1, frames, sizes.cameras, 3, sizes.height, sizes.width, generator=generator)
    rig = graph.lidar_to_image if graph.lidar_to_image is not None else _made_up(graph, generator)
    speed, turn = 4 * torch.rand(1, generator=generator).item(), 0.2 * torch.rand(1, generator=generator).item()
    matrices = torch.stack([rig @ _driven(number, speed, turn) for number in range(frames)])
    return DetectorSample(images, Cameras(matrices[None], (sizes.height, sizes.width)))


def _made_up(graph: DetectorGraph, generator: torch.Generator) -> Tensor:
    """Matrices (cameras, 4, 4) of cameras in a ring, each turned and moved a little."""
    sizes, found = graph.sizes, []
    for number in range(sizes.cameras):
        noise = torch.rand(5, generator=generator, dtype=torch.float64)
        angle = 2 * math.pi * (number + 0.3 * float(noise[0])) / sizes.cameras
        focal = sizes.width * (0.6 + 0.3 * float(noise[1]))
        middle = sizes.width * (0.45 + 0.1 * float(noise[2])), sizes.height * (0.45 + 0.1 * float(noise[3]))
        intrinsic = torch.tensor([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]], dtype=torch.float64)
        ahead = torch.tensor([-math.sin(angle), math.cos(angle), 0.05], dtype=torch.float64)
        ahead /= ahead.norm()
        right = torch.tensor([math.cos(angle), math.sin(angle), 0], dtype=torch.float64)
        turned = torch.stack((right, torch.linalg.cross(ahead, right), ahead), dim=1)
        place = 0.8 * ahead + torch.tensor([0, 0, -0.3 * float(noise[4])], dtype=torch.float64)
        found.append(lidar_to_image(intrinsic, pose(turned, place)))
    return torch.stack(found)


def _driven(number: int, speed: float, turn: float) -> Tensor:
    """From the current LiDAR frame to that of some frames ago, (4, 4)."""
    half = number * turn / 2
    rotation = rotation_of(torch.tensor([math.cos(half), 0.0, 0.0, math.sin(half)], dtype=torch.float64))
    return pose(rotation, torch.tensor([0.0, number * speed, 0.0]))
