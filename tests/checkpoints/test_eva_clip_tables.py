"""EVA-CLIP's namings: numbers against the golden cases, names against timm and open_clip, everything both ways."""

from __future__ import annotations

import itertools
import json
import math
import os
import zlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.checkpoints.errors import CheckpointError, CheckpointMismatch
from multimodal_zoo.checkpoints.files import unwrap
from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.load import account, load_into
from multimodal_zoo.checkpoints.tables import NAMINGS, detect_naming, eva_clip
from multimodal_zoo.checkpoints.tables.eva_clip_config import hub_node, image_nodes, original_node
from multimodal_zoo.registry import build

GOLDENS = Path(os.environ.get("MMZOO_GOLDENS", Path(__file__).parents[1] / "goldens")) / "eva_clip"
CLOSE = {"atol": 1e-5, "rtol": 2e-5}
ORIGINAL_CASES = {
    "clip_eva02": eva_clip.ORIGINAL,
    "clip_rms_8b": eva_clip.ORIGINAL,
    "clip_bige": eva_clip.ORIGINAL,
    "keys_root_text": eva_clip.ROOT_TEXT,
    "keys_text_logit_scale": eva_clip.TEXT_SCALE,
}


class Case(NamedTuple):
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    state: dict[str, Tensor]


def seeded(key: str, shape: list[int]) -> Tensor:
    """The tensor that a golden case's rule gives for a key."""
    drawn = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
    x = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    if len(shape) >= 2:
        return x / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.02 * x if key.rsplit(".", 1)[-1] in ("weight", "gamma") else 0.02 * x


def golden(name: str) -> Case:
    case = json.loads((GOLDENS / name / "case.json").read_text())
    state = {key: seeded(key, shape) for key, shape in case["manifest"].items()}
    state |= {key: torch.tensor(value) for key, value in case["fixed"].items()}
    return Case(case["config"], load_file(GOLDENS / name / "io.safetensors"), state)


def towers(node: dict[str, Any], device: str = "cpu") -> Any:
    with torch.device(device):
        return build({key: value for key, value in node.items() if key not in ("processor", "card")}).eval()


def features(model: Any, io: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model.image_projection(model.image(io["image"]).pooled), model.text_projection(
            model.text.pooled(io["ids"])
        )


@pytest.mark.parametrize("name", ORIGINAL_CASES)
def test_original_names_give_the_published_numbers(name: str) -> None:
    config, io, state = golden(name)
    state = unwrap({"module": state})
    naming = detect_naming(state)
    assert naming is ORIGINAL_CASES[name]
    model = towers(original_node(config))
    load_into(model, state, naming)
    image, text = features(model, io)
    assert_close(image, io["image_features"], **CLOSE)
    assert_close(text, io["text_features"], **CLOSE)
    saved = naming.save(model.state_dict())
    assert saved.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(saved[key], tensor), key


def test_hub_names_give_the_published_numbers() -> None:
    config, io, state = golden("hf_evaclip_naming")
    assert detect_naming(state) is eva_clip.HUB
    model = towers(hub_node(config))
    load_into(model, state, eva_clip.HUB)
    image, text = features(model, io)
    assert_close(image, io["image_features"], **CLOSE)
    assert_close(text, io["text_features"], **CLOSE)
    assert model.scale().item() == pytest.approx(100.0)
    saved = eva_clip.HUB.save(model.state_dict())
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in state.items())
    with torch.no_grad():
        model.logit_scale.weight.fill_(2.0)
    with pytest.raises(CheckpointError, match=r"logit_scale.weight must be 4\.6"):
        eva_clip.HUB.save(model.state_dict())


def test_hub_and_original_names_hold_the_same_model() -> None:
    config, io, state = golden("clip_rms_8b")
    model, again = towers(original_node(config)), towers(original_node(config))
    load_into(model, state, eva_clip.ORIGINAL)
    load_into(again, eva_clip.HUB.save(model.state_dict()), eva_clip.HUB)
    for found, wanted in zip(features(again, io), features(model, io), strict=True):
        assert torch.equal(found, wanted)


def test_the_older_port_with_biases_and_a_temperature() -> None:
    config, io, state = golden("clip_bige")
    model, again = towers(original_node(config)), towers(original_node(config))
    load_into(model, state, eva_clip.ORIGINAL)
    ported = eva_clip.HUB_SCALED.save(model.state_dict())
    assert {"logit_scale", "visual_projection.bias"} <= ported.keys()
    assert "vision_model.encoder.layers.0.self_attn.q_proj.bias" in ported
    assert "vision_model.encoder.layers.0.self_attn.k_proj.bias" not in ported
    assert detect_naming(ported) is eva_clip.HUB_SCALED
    load_into(again, ported, eva_clip.HUB_SCALED)
    assert torch.equal(again.scale(), model.scale())
    for found, wanted in zip(features(again, io), features(model, io), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("place", ["visual.rope.", "visual.blocks.1.attn.rope.", "", "rope.", "visual."])
@pytest.mark.parametrize("shape", [(16, 16), (4, 4, 16), (1,)])
def test_rotary_tables_in_a_file_are_left_out(place: str, shape: tuple[int, ...]) -> None:
    config, _, state = golden("clip_eva02")
    state = {**state, f"{place}freqs_cos": torch.ones(shape), f"{place}freqs_sin": torch.ones(shape)}
    naming = detect_naming(state)
    assert naming is eva_clip.ORIGINAL
    assert account(towers(original_node(config), "meta"), state, naming).exact
    assert account(towers(original_node(golden("clip_bige").config), "meta"), golden("clip_bige").state, naming).exact


def test_nothing_is_left_random_or_ignored_in_silence() -> None:
    config, _, state = golden("keys_root_text")
    model = towers(original_node(config))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match=r"(?s)unexpected.*transformer\.resblocks.*missing.*text\.blocks"):
        load_into(model, state, eva_clip.ORIGINAL)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(CheckpointMismatch, match=r"(?s)unexpected.*mask_token"):
        load_into(model, {**state, "mask_token": torch.ones(1, 1, 32)}, eva_clip.ROOT_TEXT)
    wrong = {**state, "visual.cls_token": torch.ones(2, 1, 32)}
    with pytest.raises(CheckpointError, match=r"visual.cls_token has shape \(2, 1, 32\)"):
        load_into(model, wrong, eva_clip.ROOT_TEXT)


FLAGS = ("qkv_bias", "postnorm", "naiveswiglu", "subln", "use_rms_norm", "global_average_pool")


@pytest.mark.parametrize("chosen", list(itertools.product([False, True], repeat=len(FLAGS))))
def test_any_architecture_is_saved_under_its_published_names_and_read_back(chosen: tuple[bool, ...]) -> None:
    vision = {**dict(zip(FLAGS, chosen, strict=True)), "layers": 1, "width": 16, "head_width": 8, "image_size": 8}
    vision |= {"patch_size": 4, "ls_init_value": 0.1, "mlp_ratio": 2}
    text = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 2, "layers": 1, "ls_init_value": 0.2}
    node = original_node({"embed_dim": 4, "vision_cfg": vision, "text_cfg": text})
    model = towers(node)
    for naming in (eva_clip.ORIGINAL, eva_clip.ROOT_TEXT, eva_clip.TEXT_SCALE):
        published = naming.save(model.state_dict())
        assert detect_naming(published) is naming
        flags = dict(zip(FLAGS, chosen, strict=True))
        assert ("visual.blocks.0.attn.q_bias" in published) == flags["qkv_bias"]
        assert ("visual.head.bias" in published) == flags["qkv_bias"]
        assert ("visual.fc_norm.weight" in published) == flags["global_average_pool"]
        assert ("visual.norm.weight" in published) != flags["global_average_pool"]
        assert {"visual.blocks.0.gamma_1", "visual.blocks.0.gamma_2"} <= published.keys()
        root = "" if naming is eva_clip.ROOT_TEXT else "text."
        assert f"{root}transformer.resblocks.0.ls_1.gamma" in published
        back = naming.load(published)
        assert back.keys() == model.state_dict().keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


#: One of each kind: the others differ in their sizes.
OPEN_CLIP = {
    "eva_clip_g14": ("EVA01-g-14", eva_clip.OPEN_CLIP_PACKED),
    "eva_clip_b16": ("EVA02-B-16", eva_clip.OPEN_CLIP_SEPARATE),
    "eva_clip_e14_plus": ("EVA02-E-14-plus", eva_clip.OPEN_CLIP_PACKED),
}


def open_clip_model(config: dict[str, Any], device: str = "meta") -> nn.Module:
    import open_clip

    with torch.device(device):
        return open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})


@pytest.mark.parametrize("variant", OPEN_CLIP)
def test_every_tensor_of_open_clip_has_its_place(variant: str) -> None:
    import open_clip

    name, naming = OPEN_CLIP[variant]
    theirs = open_clip_model(open_clip.get_model_config(name)).state_dict()
    assert detect_naming(theirs) is naming
    model = variant_on_meta(variant)
    account(model, theirs, naming).require(name)
    saved = naming.save(model.state_dict())
    assert {key: tensor.shape for key, tensor in saved.items()} == {key: t.shape for key, t in theirs.items()}


@pytest.mark.parametrize(
    ("kind", "naming"),
    [("eva02", eva_clip.OPEN_CLIP_SEPARATE), ("plain", eva_clip.OPEN_CLIP_PACKED), ("post", eva_clip.OPEN_CLIP_PACKED)],
)
def test_timm_gives_the_same_numbers(kind: str, naming: Any) -> None:
    from timm.models.eva import Eva

    sizes: dict[str, Any] = {"img_size": 42, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2}
    sizes |= {"num_classes": 12, "global_pool": "token", "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
    vision: dict[str, Any] = {"image_size": 42, "patch_size": 7, "width": 32, "layers": 2, "head_width": 16}
    if kind == "eva02":
        sizes |= {
            "qkv_fused": False,
            "mlp_ratio": 2.6667,
            "swiglu_mlp": True,
            "scale_mlp": True,
            "use_rot_pos_emb": True,
        }
        sizes |= {"scale_attn_inner": True, "ref_feat_shape": (16, 16)}
        vision |= {"mlp_ratio": 2.6667, "rope": True, "intp_freq": True, "naiveswiglu": True, "subln": True}
    elif kind == "post":
        sizes, vision = {**sizes, "use_post_norm": True}, {**vision, "postnorm": True}
    theirs = Eva(**sizes).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + 0.05)
    encoder, projection = image_nodes({"embed_dim": 12, "vision_cfg": vision})
    model = nn.ModuleDict({"image": build(encoder), "image_projection": build(projection)}).eval()
    state = {f"visual.trunk.{name}": tensor for name, tensor in theirs.state_dict().items()}
    model.load_state_dict({k: v for k, v in naming.load(state).items() if k in model.state_dict()}, strict=True)
    images = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        found = model["image_projection"](model["image"](images).pooled)
        assert_close(found, theirs(images), atol=2e-5, rtol=1e-4)


def test_all_namings_are_known_by_name() -> None:
    assert {naming.name for naming in eva_clip.ALL} <= NAMINGS.keys()
