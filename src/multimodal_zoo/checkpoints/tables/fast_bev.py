"""The names of Fast-BEV's tensors in the published files (mmdetection's), of its image encoder alone, and ours."""

from __future__ import annotations

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, rename

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


def _residual(theirs: str) -> list[Rule]:
    names = ("conv1.*", "bn1.*", "layer{}.*")
    return [rename(f"{theirs}{name}", f"image.{name}") for name in names]


_REST = ("neck.*", "neck_fuse_{}.*", "neck_3d.*", "rpn_head.*", "roi_head.*", "bbox_head.*", "mask_head.*")
#: The image encoder of any detector of mmdetection: what Fast-BEV's published training begins from.
DETECTOR_BACKBONE = Naming("mmdetection_backbone", [*_residual("backbone."), *(drop(name) for name in _REST)])
#: A ResNet of torchvision or timm.
RESNET = Naming("residual_network", [*_residual(""), drop("fc.weight"), drop("fc.bias")])
