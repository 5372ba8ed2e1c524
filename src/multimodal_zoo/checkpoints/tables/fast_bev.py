"""The names of Fast-BEV's tensors in the published files (mmdetection's), and ours."""

from __future__ import annotations

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, rename

_HEAD = {"conv_cls": "classes", "conv_reg": "boxes", "conv_dir_cls": "directions"}


def _conv_norm(theirs: str, ours: str) -> list[Rule]:
    return [rename(f"{theirs}.conv.*", f"{ours}.convolution.*"), rename(f"{theirs}.bn.*", f"{ours}.norm.*")]


FAST_BEV = Naming(
    "fast_bev",
    [
        *(rename(f"backbone.{name}.*", f"image_encoder.{name}.*") for name in ("conv1", "bn1")),
        rename("backbone.layer{}.*", "image_encoder.layer{}.*"),
        *_conv_norm("neck.lateral_convs.{}", "pyramid.laterals.{}"),
        *_conv_norm("neck.fpn_convs.{}", "pyramid.outputs.{}"),
        rename("neck_fuse_{}.*", "fusions.{}.convolution.*"),
        rename("neck_3d.fuse.*", "bev_encoder.fuse.*"),
        *_conv_norm("neck_3d.model.{}.conv0", "bev_encoder.layers.{}.first"),
        *_conv_norm("neck_3d.model.{}.conv1", "bev_encoder.layers.{}.second"),
        *_conv_norm("neck_3d.model.{}", "bev_encoder.layers.{}"),
        *(rename(f"bbox_head.{theirs}.*", f"head.{ours}.*") for theirs, ours in _HEAD.items()),
    ],
)
