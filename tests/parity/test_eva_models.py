"""How the model of an EVA-CLIP case is built, where no case shows it: towers alone, activations, strange fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.cases import Case
from safetensors.torch import save_file
from systems.eva.models import model_of
from torch import nn

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables import eva_clip
from multimodal_zoo.checkpoints.tables.eva_clip_config import image_nodes, original_node
from multimodal_zoo.nn.mlp import quick_gelu
from multimodal_zoo.nn.positions import resize_positions
from multimodal_zoo.registry import build

VISION: dict[str, Any] = {
    "eva_model_name": "eva", "image_size": 28, "patch_size": 7, "width": 16, "head_width": 8, "layers": 1,
}  # fmt: skip
TEXT = {"context_length": 6, "vocab_size": 31, "width": 8, "heads": 2, "layers": 1}


def written(folder: Path, config: dict[str, Any], tower: dict[str, Any], prefix: str = "") -> Case:
    """A case of our own without calls; the manifest is that of `tower` under the published names."""
    node = {"embed_dim": 5, **tower}
    if "text_cfg" in tower:
        node = {key: value for key, value in original_node(node).items() if key not in ("processor", "card")}
        model: nn.Module = build(node)
    else:
        image, projection = image_nodes(node)
        model = nn.ModuleDict({"image": build(image), "image_projection": build(projection)})
    shapes = {prefix + key: list(t.shape) for key, t in eva_clip.ORIGINAL.save(model.state_dict()).items()}
    case = {"system": "eva_clip", "what": "", "config": config, "manifest": shapes, "calls": []}
    place = folder / "eva_clip" / "case"
    place.mkdir(parents=True)
    (place / "case.json").write_text(json.dumps(case))
    save_file({"x": torch.zeros(1)}, place / "io.safetensors")
    return Case(place)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_tower_alone_is_resized_and_stripped_like_a_whole_model(prefix: str, tmp_path: Path) -> None:
    config = {"embed_dim": 5, "vision_cfg": {**VISION, "image_size": 21}, "checkpoint_vision_cfg": VISION}
    case = written(tmp_path, config, {"vision_cfg": VISION}, prefix)
    file = case.state[f"{prefix}visual.pos_embed"][0]
    found = model_of(case).image.positions.weight
    torch.testing.assert_close(found, resize_positions(file, 1, (4, 4), (3, 3)))


def test_the_activation_of_the_text_tower_comes_from_the_configuration(tmp_path: Path) -> None:
    towers = {"vision_cfg": VISION, "text_cfg": TEXT}
    case = written(tmp_path, {"embed_dim": 5, **towers, "quick_gelu": True}, towers)
    assert model_of(case).text.blocks.layers[0].mlp.act is quick_gelu


def test_a_field_that_nothing_understands_fails(tmp_path: Path) -> None:
    towers = {"vision_cfg": VISION, "text_cfg": TEXT}
    case = written(tmp_path, {"embed_dim": 5, **towers, "temperature_floor": 0.01}, towers)
    with pytest.raises(UnknownCheckpoint, match=r"temperature_floor=0\.01 is not understood"):
        model_of(case)
