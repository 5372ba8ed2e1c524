"""Every tensor of every published checkpoint has its place, at full size: names and shapes, in both directions."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from multimodal_zoo.checkpoints.files import unwrap
from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.load import account
from multimodal_zoo.checkpoints.tables import NAMINGS, best_namings

FOLDER = Path(os.environ.get("MMZOO_GOLDENS", Path(__file__).parents[1] / "goldens")) / "manifests"
#: Manifest (without .json.gz): the variant that takes it, and the naming that it is in. A new system adds its lines.
#: A variant with `!` behind it and a part's name is taken without that part.
CHECKPOINTS = {
    "EVA01_CLIP_g_14_psz14_s11B": ("eva_clip_g14", "eva_clip"),
    "EVA01_CLIP_g_14_plus_psz14_s11B": ("eva_clip_g14_plus", "eva_clip"),
    "EVA02_CLIP_B_psz16_s8B": ("eva_clip_b16", "eva_clip"),
    "EVA02_CLIP_L_psz14_s4B": ("eva_clip_l14", "eva_clip"),
    "EVA02_CLIP_L_336_psz14_s6B": ("eva_clip_l14_336", "eva_clip"),
    "EVA02_CLIP_E_psz14_s4B": ("eva_clip_e14", "eva_clip"),
    "EVA02_CLIP_E_psz14_plus_s9B": ("eva_clip_e14_plus", "eva_clip"),
    "EVA_CLIP_8B_psz14_s9B": ("eva_clip_8b", "eva_clip"),
    "EVA_CLIP_8B_psz14_plus_s0.6B": ("eva_clip_8b_448", "eva_clip"),
    "EVA_CLIP_18B_psz14_s6B.fp16": ("eva_clip_18b", "eva_clip"),
    "EVA-CLIP-8B.hf": ("eva_clip_8b", "hf_eva_clip"),
    "EVA-CLIP-8B-448.hf": ("eva_clip_8b_448", "hf_eva_clip"),
    "EVA-CLIP-18B.hf": ("eva_clip_18b", "hf_eva_clip"),
    "declip-clip-yfcc15m-vitb32": ("clip_vit_b32_yfcc", "declip"),
    "declip-clip-yfcc15m-r50": ("clip_r50_yfcc", "declip_resnet"),
    "declip-slip-yfcc15m-vitb32": ("slip_vit_b32_yfcc", "declip_slip"),
    "declip-filip-yfcc15m-vitb32": ("filip_vit_b32_yfcc", "declip"),
    "declip-declip-yfcc15m-vitb32": ("declip_vit_b32_yfcc", "declip"),
    "declip-declip-yfcc15m-r50": ("declip_r50_yfcc", "declip_resnet"),
    "declip-defilip-yfcc15m-vitb32": ("defilip_vit_b32_yfcc", "declip"),
    "declip-declip-88m-vitb32": ("declip_88m_vit_b32", "declip"),
    "declip-declip-88m-r50": ("declip_88m_r50", "declip_resnet"),
    "Emu3-Stage1": ("emu3_stage1!vision_tokenizer", "emu3"),
    "Emu3-Chat": ("emu3_chat!vision_tokenizer", "emu3"),
    "Emu3-Gen": ("emu3_gen!vision_tokenizer", "emu3"),
    "Emu3-VisionTokenizer": ("emu3_vision_tokenizer", "emu3_vision_tokenizer"),
    "Emu3-Chat-hf": ("emu3_chat", "hf_emu3"),
    "Emu3-Gen-hf": ("emu3_gen", "hf_emu3"),
    "Emu3-transformers": ("emu3_gen", "transformers_emu3"),
}
FOUND = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def test_there_are_manifests() -> None:
    assert FOUND, f"no *.json.gz in {FOLDER}"


@pytest.mark.parametrize("name", FOUND)
def test_every_tensor_has_its_place_both_ways(name: str) -> None:
    assert name in CHECKPOINTS, f"{name}: say in CHECKPOINTS which variant and naming it is"
    variant, wanted = CHECKPOINTS[name]
    with gzip.open(FOLDER / f"{name}.json.gz") as file:
        manifest = {key: torch.Size(shape) for key, shape in json.load(file).items()}
    state = unwrap({key: torch.empty(shape, device="meta") for key, shape in manifest.items()})
    naming = next(one for one in best_namings(state, NAMINGS.values()) if one.name == wanted)
    variant, _, without = variant.partition("!")
    model = variant_on_meta(variant)
    if without:
        setattr(model, without, None)
    account(model, state, naming).require(name)
    prefix = "module." if all(key.startswith("module.") for key in manifest) else ""
    assert {prefix + key: tensor.shape for key, tensor in naming.save(model.state_dict()).items()} == manifest
