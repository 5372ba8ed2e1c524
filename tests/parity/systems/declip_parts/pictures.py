"""DeCLIP's evaluation transform."""

from __future__ import annotations

import re

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Request
from harness.words import take_known
from omegaconf import OmegaConf
from torch import Tensor

from multimodal_zoo.config import compose
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.registry import build

FORMULA = "byte[y, x, c] = (3x + 5y(c+1) + floor(xy/7)) mod 256"


def transform(case: Case) -> ImageTransform:
    """The transform that a variant declares, with the numbers of the case."""
    config = take_known(case.config, {"resize", "crop", "interpolation", "mean", "std"}, "config")
    declared = OmegaConf.to_container(compose(None, ["+model=declip_r50_yfcc"]).model.processor.images, resolve=True)
    assert isinstance(declared, dict)
    numbers = {key: config[key] for key in ("interpolation", "mean", "std")}
    return build({**declared, **numbers, "size": config["crop"], "resized": config["resize"]})


def drawn(note: str) -> np.ndarray:
    """The picture that a note describes."""
    size = re.match(r"input of (\d+) x (\d+): ", note)
    if size is None or FORMULA not in note:
        raise AssertionError(f"the note describes no picture that is understood: {note!r}")
    y, x, c = np.indices((int(size[1]), int(size[2]), 3))
    return ((3 * x + 5 * y * (c + 1) + x * y // 7) % 256).astype(np.uint8)


def one_crop(request: Request) -> Outcome:
    """Rows, columns and means of the one input, or of the picture that the note describes."""
    given = request.case.take(request.call)
    picture = given[0].numpy() if given else drawn(request.call.note)
    (result,) = transform(request.case)([picture])
    return {output: part(output, result) for output in request.call.outputs}


def part(output: str, result: Tensor) -> Tensor:
    """What an output's last word says: `every_7th`, `row_100`, `channel_mean`."""
    word = output.rpartition(".")[2]
    if word == "channel_mean":
        return result.mean(dim=(1, 2), dtype=torch.float64).float()
    name, number = re.fullmatch(r"(every|row)_(\d+)(?:th|st|nd|rd)?", word).groups()  # type: ignore[union-attr]
    return result[:, int(number)] if name == "row" else result[:, :: int(number), :: int(number)]
