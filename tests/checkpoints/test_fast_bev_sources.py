"""Fast-BEV from files as they are published, and its image encoder from a detector's or torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.store import load_part
from multimodal_zoo.checkpoints.tables.fast_bev import FAST_BEV
from multimodal_zoo.zoo import create, from_pretrained

SMALL = [
    "model.lift.grids=[{type: voxel_grid, counts: [20, 20, 2], size: [5.0, 5.0, 3.0], centre: [0, 0, -1]}]",
    *("model.bev_encoder.in_channels=512", "model.bev_encoder.fused=16", "model.bev_encoder.width=24"),
    *("model.bev_encoder.depth=1", "model.head.in_channels=24"),
]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    made = create("fast_bev_m0", overrides=SMALL)
    for name, value in made.state_dict().items():
        if name.endswith("running_mean"):
            nn.init.normal_(value)
    return made


def equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same tensors."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_published_file_fills_its_variant(model, tmp_path: Path) -> None:
    """What mmdetection saves: weights beside words about the run, and the optimiser's state."""
    meta = {"epoch": 20, "iter": 77240, "CLASSES": ["car"], "config": "model = dict()", "time": "Sat"}
    file, state = tmp_path / "epoch_20.pth", FAST_BEV.save(model.state_dict())
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, file)
    again = from_pretrained(file, config=model.config)
    assert equal(model, again)


@pytest.mark.parametrize("kind", ["detector", "fast_bev", "torchvision"])
def test_the_image_encoder_begins_from_another_network(model, tmp_path: Path, kind: str) -> None:
    state = {
        name: torch.randn_like(value.float()).to(value.dtype)
        for name, value in model.image_encoder.state_dict().items()
    }
    if kind == "detector":
        found = {f"backbone.{name}": value for name, value in state.items()}
        found |= {
            "neck.lateral_convs.0.conv.weight": torch.zeros(256, 64, 1, 1),
            "rpn_head.rpn_cls.bias": torch.zeros(3),
        }
    elif kind == "fast_bev":
        found = {**FAST_BEV.save(model.state_dict()), **{f"backbone.{name}": value for name, value in state.items()}}
    else:
        found = {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    file = tmp_path / "network.pth"
    torch.save({"state_dict": found, "meta": {}} if kind != "torchvision" else found, file)
    fresh = create("fast_bev_m0", overrides=SMALL)
    before = fresh.pyramid.laterals[0].convolution.weight.clone()
    load_part(fresh, "image", file)
    assert all(torch.equal(value, state[name]) for name, value in fresh.image_encoder.state_dict().items())
    assert torch.equal(fresh.pyramid.laterals[0].convolution.weight, before)


def test_another_variant_is_told_apart(model, tmp_path: Path) -> None:
    file = tmp_path / "epoch_20.pth"
    torch.save({"state_dict": FAST_BEV.save(model.state_dict())}, file)
    wider = create("fast_bev_m0", overrides=[*SMALL, "model.bev_encoder.width=32", "model.head.in_channels=32"])
    with pytest.raises(CheckpointMismatch, match=r"bev_encoder\.layers"):
        from_pretrained(file, config=wider.config)
