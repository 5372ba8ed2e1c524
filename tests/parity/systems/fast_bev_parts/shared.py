"""What several kinds of Fast-BEV's cases share: nodes from the published configurations, and built parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.cases import Case
from harness.words import take_known
from torch import nn

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.checkpoints.tables.fast_bev import FAST_BEV
from multimodal_zoo.registry import build

Config = Mapping[str, Any]
BACKBONE = {
    "type", "depth", "num_stages", "out_indices", "frozen_stages", "norm_cfg", "norm_eval", "init_cfg", "style", "dcn",
    "stage_with_dcn", "with_cp",
}  # fmt: skip


def check_norm(config: Config) -> None:
    """Batch norms whose factors train, of one process or of all."""
    given = take_known(config, {"type", "requires_grad"}, "norm_cfg")
    assert given["type"] in ("BN", "SyncBN")
    assert given.get("requires_grad", True) is True


def backbone(config: Config) -> dict[str, Any]:
    """The node of an image encoder."""
    given = take_known(config, BACKBONE, "backbone")
    assert given["type"] == "ResNet"
    assert given.get("num_stages", 4) == 4
    assert given.get("style", "pytorch") == "pytorch"
    assert list(given.get("out_indices", (0, 1, 2, 3))) == [0, 1, 2, 3]
    assert isinstance(given.get("with_cp", False), bool)  # memory, not values
    check_norm(given.get("norm_cfg", {"type": "BN"}))
    deformable: list[int] = []
    if given.get("dcn") is not None:
        dcn = take_known(given["dcn"], {"type", "deform_groups", "fallback_on_stride"}, "dcn")
        assert dcn["type"] == "DCN"
        assert dcn.get("deform_groups", 1) == 1
        assert not dcn.get("fallback_on_stride", False)
        deformable = [stage for stage, used in enumerate(given["stage_with_dcn"]) if used]
    return {
        "type": "residual_maps",
        "name": f"resnet{given['depth']}",
        "frozen_stages": given.get("frozen_stages", -1),
        "frozen_norms": given.get("norm_eval", True),
        "deformable_stages": deformable,
    }


def pyramid(config: Config) -> dict[str, Any]:
    """The node of a pyramid."""
    given = take_known(config, {"type", "norm_cfg", "in_channels", "out_channels", "num_outs"}, "neck")
    assert given["type"] == "FPN"
    assert given["num_outs"] == len(given["in_channels"])
    check_norm(given["norm_cfg"])
    return {"type": "feature_pyramid", "in_channels": given["in_channels"], "channels": given["out_channels"]}


def fusions(config: Config, levels: Sequence[int]) -> list[dict[str, Any]]:
    """The nodes of the maps that are lifted."""
    given = take_known(config, {"in_channels", "out_channels"}, "neck_fuse")
    return [
        {"type": "level_fusion", "level": level, "in_channels": inputs, "channels": outputs}
        for level, inputs, outputs in zip(levels, given["in_channels"], given["out_channels"], strict=True)
    ]


def grids(config: Config, centre: Sequence[float] = (0.0, 0.0, -1.0)) -> list[dict[str, Any]]:
    """The nodes of the volumes: lists of them, or a single one."""
    counts, sizes = config["n_voxels"], config["voxel_size"]
    several = isinstance(counts[0], (list, tuple))
    pairs = zip(counts, sizes, strict=True) if several else [(counts, sizes)]
    return [{"type": "voxel_grid", "counts": n, "size": s, "centre": list(centre)} for n, s in pairs]


def lift(
    style: str, volumes: list[dict[str, Any]], maps: int, scaler: str | None, overlap: str = "last"
) -> dict[str, Any]:
    """The node of the view transform of a style; without a scaler all grids are of one size."""
    wide = {tuple(one["counts"][:2]) for one in volumes}
    assert scaler or style in ("v1", "v2") or len(wide) == 1, f"multi_scale_3d_scaler: {scaler}"
    volumes = volumes if style in ("v3", "v4") else volumes[:1]
    pairs = {
        "v1": [[0, 0]],
        "v2": [[level, 0] for level in range(maps)],
        "v3": [[0, grid] for grid in range(len(volumes))],
        "v4": [[level, level] for level in range(maps)],
    }[style]
    return {"type": "fast_ray", "grids": volumes, "pairs": pairs, "overlap": overlap, "resize": scaler or "upsample"}


def bev_encoder(config: Config) -> dict[str, Any]:
    """The node of the encoder in bird's-eye view."""
    known = {
        "type", "in_channels", "out_channels", "num_layers", "stride", "is_transpose", "fuse", "norm_cfg", "with_cp",
        "note",
    }  # fmt: skip
    given = take_known(config, known, "neck_3d")
    check_norm(given["norm_cfg"])
    fuse = take_known(given.get("fuse") or {}, {"in_channels", "out_channels"}, "fuse")
    assert fuse.get("out_channels", given["in_channels"]) == given["in_channels"]
    assert given.get("type", "M2BevNeck") == "M2BevNeck"
    assert isinstance(given.get("with_cp", False), bool)  # memory, not values
    return {
        "type": "bev_encoder",
        "in_channels": fuse.get("in_channels", given["in_channels"]),
        "fused": fuse.get("out_channels"),
        "width": given["out_channels"],
        "depth": given["num_layers"],
        "stride": given.get("stride", 2),
    }


def filled(case: Case, parts: Mapping[str, Any]) -> nn.Module:
    """Parts under the names of the detector, with the weights of a case."""
    model = nn.Module()
    for name, node in parts.items():
        made = build(node)
        if name == "fusions":
            made = nn.ModuleDict({str(one.level): one for one in made})
        setattr(model, name, made)
    model.load_state_dict(FAST_BEV.load(case.state), strict=True)
    return model.eval()


def cameras(matrices: Any, size: Sequence[int], frames: int) -> Cameras:
    """Cameras of one sample, frame-major as the published code lists them."""
    height, width = size
    return Cameras(matrices.double().unflatten(0, (frames, -1))[None], (height, width))
