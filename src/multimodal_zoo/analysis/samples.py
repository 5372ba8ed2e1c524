"""What a model of pictures alone is planned with: the sample of a step, and what of the model runs on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.head import HeadMaps
from multimodal_zoo.bev.voxel_table import VoxelTable
from multimodal_zoo.encoders.masked_student import MaskedStudent
from multimodal_zoo.tokenizers.emu3_vision import Emu3VisionTokenizer

#: Side of the pictures that a visual tokenizer is planned with: the crops of Emu3's recipe.
SIDE = 256


class Sample(NamedTuple):
    """A sample of a training step.

    Attributes:
        name: what the tables call it.
        runs: called with the inputs; holds the model.
        inputs: makes the inputs of a batch by torch's factory functions.
    """

    name: str
    runs: nn.Module
    inputs: Callable[[int], tuple[Tensor, ...]]


class SeenEverywhere(VoxelTable):
    """A table in which a camera fills every voxel: no calibration is asked for, and none would fill more."""

    @property
    def blank(self) -> Tensor:  # type: ignore[override]
        """No voxel is empty."""
        return self.rows.new_zeros(0)


class Detecting(nn.Module):
    """A detector whose cameras see all voxels.

    Args:
        detector: with a view transform by tables.
    """

    def __init__(self, detector: FastBEV) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> HeadMaps:
        """Maps of all anchors from images (batch, frames, cameras, 3, height, width)."""
        maps, lift = self.detector.encode(images), self.detector.lift
        tables = [self._table(maps[level], lift.grids[grid].counts) for level, grid in lift.pairs]
        return self.detector.head(self.detector.bev_encoder(lift.gathered(maps, tables)))

    def _table(self, maps: Tensor, counts: tuple[int, int, int]) -> VoxelTable:
        batch, frames, cameras, _, height, width = maps.shape
        voxels = counts[0] * counts[1] * counts[2]
        axes = (cameras,) if self.detector.lift.overlap == "mean" else ()
        rows = torch.zeros((batch, frames, voxels, *axes), dtype=torch.long, device=maps.device)
        return SeenEverywhere(rows, cameras * height * width, self.detector.lift.overlap)


class Predicting(nn.Module):
    """A masked student that predicts every patch: the number of masked ones is no shape of its inputs.

    Args:
        student: of masked image modelling.
    """

    def __init__(self, student: MaskedStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        """Predictions for all patches of images (batch, 3, height, width)."""
        patch = self.student.image.patches.patch_size
        patches = (images.shape[-2] // patch) * (images.shape[-1] // patch)
        mask = torch.ones(len(images), patches, dtype=torch.bool, device=images.device)
        return self.student.predictions(self.student.states(images, mask)[0])


def sample_of(model: nn.Module, config: Mapping[str, Any], side: int = SIDE) -> Sample | None:
    """The sample of a detector, a masked student or a visual tokenizer; None for any other model.

    Args:
        model: on any device.
        config: its declaration, with the processor.
        side: of a visual tokenizer's pictures.
    """
    if isinstance(model, FastBEV):
        processor = config["processor"]
        height, width = processor["view"]["size"]
        shape = (model.frames, len(processor["cameras"]), 3, int(height), int(width))
        name = f"{shape[0]} x {shape[1]} pictures of {height} x {width} pixels"
        return Sample(name, Detecting(model), lambda batch: (torch.empty(batch, *shape),))
    if isinstance(model, MaskedStudent):
        side = int(config["image"]["image_size"])
        return Sample(_square(side), Predicting(model), lambda batch: (torch.empty(batch, 3, side, side),))
    if isinstance(model, Emu3VisionTokenizer):
        return Sample(_square(side), model, lambda batch: (torch.empty(batch, 3, side, side),))
    return None


def _square(side: int) -> str:
    return f"a picture of {side} x {side} pixels"
