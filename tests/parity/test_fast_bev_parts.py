"""How Fast-BEV's handlers read what other cases than the copied ones may hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from systems.fast_bev import SYSTEM
from systems.fast_bev_parts.encoders import thinned
from systems.fast_bev_parts.lifting import _map_size, full_grids
from systems.fast_bev_parts.models import detector
from systems.fast_bev_parts.shared import bev_encoder, lift


@pytest.mark.parametrize(
    ("channels", "step", "note"),
    [
        (54, 4, "every 4th channel of the first two kept"),
        (9, 4, "every 4th channel kept"),
        (96, 32, "every 32nd channel of c2-c5, every 2nd of p2 and p5"),
        (26, 2, "every 32nd channel of c2-c5, every 2nd of p2 and p5"),
        (7, 1, "every 4th channel kept elsewhere"),
        (10, 3, "some channels kept"),
    ],
)
def test_channels_are_thinned_by_the_step_of_the_note(channels: int, step: int, note: str) -> None:
    whole = torch.arange(channels)[None]
    assert torch.equal(thinned(whole, whole[:, ::step], note), whole[:, ::step])


def test_maps_of_sides_that_a_stride_does_not_divide_are_rounded_up() -> None:
    assert _map_size({"input_size": [250, 702]}, 4) == (63, 176)


def test_one_grid_needs_no_scaler_and_several_do() -> None:
    grids = [{"counts": [4, 4, 2]}, {"counts": [2, 2, 2]}]
    assert lift("v2", grids, 3, None)["pairs"] == [[0, 0], [1, 0], [2, 0]]
    assert lift("v4", grids, 2, "pool")["resize"] == "pool"
    with pytest.raises(AssertionError, match="multi_scale_3d_scaler"):
        lift("v4", grids, 2, None)


def test_an_encoder_without_a_fusing_convolution_reads_the_lifted_map() -> None:
    config = {"in_channels": 6, "out_channels": 5, "num_layers": 1, "fuse": None, "norm_cfg": {"type": "BN"}}
    node = bev_encoder(config)
    assert (node["in_channels"], node["fused"]) == (6, None)


@pytest.mark.parametrize("turned", [True, False])
def test_a_detector_turns_its_map_once(turned: bool) -> None:
    parts = {name: {"is_transpose": turned} for name in ("neck_3d", "bbox_head")}
    case: Any = SimpleNamespace(config={"model": {"type": "FastBEV", "test_cfg": {}, **parts}})
    with pytest.raises(AssertionError, match="one of the two"):
        detector(case)


def test_a_detector_of_mirrored_pictures_is_refused() -> None:
    case: Any = SimpleNamespace(config={"model": {"type": "FastBEV", "test_cfg": {"use_tta": True}}})
    with pytest.raises(AssertionError, match="use_tta"):
        detector(case)


def test_counts_of_grids_in_a_configuration_are_compared() -> None:
    assert SYSTEM.fields["config"] is full_grids
    given = {
        "stride": 4, "n_voxels": [2, 2, 1], "voxel_size": [1.0, 1.0, 1.0], "borderline": 0, "winner_counts": {"0": 4},
        "seen_by_n_cameras": {"1": 4}, "index_sum": 4 * 5, "filled_fraction": 1.0, "per_camera_fraction": [1.0],
    }  # fmt: skip
    matrix = torch.zeros(1, 4, 4)  # any point falls on row 1, column 1 of the 2 x 3 map
    matrix[0, :3, 3] = torch.tensor([4.0, 4.0, 1.0])
    config = {"input_size": [8, 12], "point_cloud_range": [-1, -1, -1, 1, 1, 1], "full_grids": {"tiny": given}}
    case: Any = SimpleNamespace(config=config, tensors={"lidar2img": matrix})
    assert all(pair.found == pair.expected for pair in full_grids(case).values())
    for name, wrong in (("winner_counts", {"0": 3}), ("index_sum", 21), ("per_camera_fraction", [0.5])):
        config["full_grids"] = {"tiny": given | {name: wrong}}
        assert not all(pair.found == pair.expected for pair in full_grids(case).values()), name
