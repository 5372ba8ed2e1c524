"""Students of masked image modelling, from the fields of EVA-02's pretraining configurations (arXiv 2303.11331)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.eva_clip_config import image_nodes

Node = dict[str, Any]
#: Share of the gradient that reaches the patch embedding under `stop_grad_conv1`.
STEM_GRADIENT = 0.1
#: Normalisation of every EVA-CLIP, which teacher and student share.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Fields named as in EVA-CLIP's own `vision_cfg`.
_SAME = (
    "mlp_ratio", "patch_size", "qkv_bias", "rope", "naiveswiglu", "subln", "drop_path_rate", "postnorm", "intp_freq",
    "pt_hw_seq_len",
)  # fmt: skip
#: Fields that choose a kernel, or what the nodes say elsewhere.
_ELSEWHERE = ("img_size", "embed_dim", "depth", "num_heads", "xattn", "stop_grad_conv1", "predict_feature_dim")


def is_student(config: Mapping[str, Any]) -> bool:
    """Whether a mapping holds the fields of a student: it predicts the features of a teacher of a given width."""
    return "predict_feature_dim" in config


def vision_fields(config: Mapping[str, Any]) -> Node:
    """EVA-CLIP's `vision_cfg` of EVA-02's fields.

    Raises:
        UnknownCheckpoint: a field without meaning here, or a required one that is missing.
    """
    known = (*_SAME, *_ELSEWHERE, "num_classes", "init_values")
    if strange := [f"{key}={value!r}" for key, value in config.items() if key not in known and value]:
        raise UnknownCheckpoint(f"masked image modelling configuration: {', '.join(strange)}: not understood")
    needed = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")
    if missing := [key for key in needed if key not in config]:
        raise UnknownCheckpoint(f"masked image modelling configuration: no {', '.join(missing)}")
    own_grid = config["img_size"] // config["patch_size"]  # what the rotary table is for, unless the fields say else
    return {
        "pt_hw_seq_len": own_grid,
        **{key: config[key] for key in _SAME if key in config},
        "ls_init_value": config.get("init_values"),
        "image_size": config["img_size"],
        "layers": config["depth"],
        "width": config["embed_dim"],
        "head_width": config["embed_dim"] // config["num_heads"],
    }


def student_node(config: Mapping[str, Any]) -> Node:
    """The model node of a student: `masked_student` around an image tower without inner norms.

    Raises:
        UnknownCheckpoint: fields that no part expresses, or none for the teacher's width.
    """
    if "predict_feature_dim" not in config:
        raise UnknownCheckpoint("masked image modelling configuration: no predict_feature_dim, the teacher's width")
    width = config["predict_feature_dim"]
    image = image_nodes({"embed_dim": width, "vision_cfg": vision_fields(config)})[0]
    image["blocks"]["block"]["attention"].pop("inner_norm", None)
    image["patch_dropout"] = None
    return {
        "type": "masked_student",
        "image": image,
        "target_width": width,
        "stem_gradient": STEM_GRADIENT if config.get("stop_grad_conv1") else 1.0,
        "processor": {
            "type": "image_processor",
            "images": {"type": "image_transform", "size": config["img_size"], "mean": list(MEAN), "std": list(STD)},
        },
        "card": {"system": "EVA-02", "summary": "sizes read from the publisher's own configuration"},
    }
