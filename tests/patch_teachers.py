"""Teachers of masked image modelling as EVA-02's pretraining has them: a node and the names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import rename
from multimodal_zoo.checkpoints.tables.eva_clip import TABLES, bare_tower
from multimodal_zoo.checkpoints.tables.eva_clip_config import image_nodes
from multimodal_zoo.checkpoints.tables.eva_mim_config import vision_fields

#: An EVA-CLIP's image tower and its projection, for a `patch_teacher`.
TEACHER = Naming(
    "eva_clip_teacher",
    [
        *bare_tower("visual.", "encoder."),
        rename("visual.norm.*", "encoder.pool.norm.*"),
        rename("visual.head.*", "projection.*"),
        *TABLES,
    ],
)


def teacher_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a `patch_teacher`; `num_classes` is the projection's width."""
    fields = {"embed_dim": config["num_classes"], "vision_cfg": vision_fields(config)}
    encoder, projection = image_nodes(fields)
    return {"type": "patch_teacher", "encoder": encoder, "projection": projection}
