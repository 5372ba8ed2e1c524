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
from multimodal_zoo.checkpoints.tables.eve import EVE, EVE_TRAINING, EVE_V2
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import create

FOLDER = Path(os.environ.get("MMZOO_GOLDENS", Path(__file__).parents[1] / "goldens")) / "manifests"
#: Manifest (without .json.gz): the variant that takes it, and the naming that it is in. A new system adds its lines.
#: A variant with `!` behind it and a part's name is taken without that part, one with `:` and a name is that part; `+`
#: puts a visual decoder into it.
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
    "emu1_pretrain_multimodal_encoder": ("emu_14b", "emu"),
    "emu1_instruct": ("emu_instruct", "emu_instruct"),
    "emu2": ("emu2", "emu2"),
    "emu2_chat": ("emu2_chat", "emu2"),
    "emu2_gen_native": ("emu2_gen", "emu2_gen"),
    "emu2_gen_unet": ("emu2_gen:visual_decoder.unet", "diffusion_unet"),
    "emu2_gen_vae": ("emu2_gen:visual_decoder.vae", "diffusion_vae"),
    "emu2_gen_safety_checker": ("emu2_gen:visual_decoder.safety_checker", "diffusion_safety_checker"),
    "emu1_pretrain_unet": ("emu_14b+emu:visual_decoder.unet", "diffusion_unet"),
    "emu1_pretrain_vae": ("emu_14b+emu:visual_decoder.vae", "diffusion_vae_old"),
    "capsfus-llama-13b": ("capsfus_llama_13b", "language_model"),
    "smollm2-135m-instruct": ("smollm2_135m", "language_model"),
    "EVE-7B-Pretrain-v1.0": ("eve_7b_pretrain", "eve"),
    "EVE-7B-v1.0": ("eve_7b", "eve"),
    "EVE-7B-HD-v1.0": ("eve_7b_hd", "eve"),
    "EVE-7B-HD-v2.0": ("eve_v2_7b_hd", "eve_v2"),
    "fastbev_m0_r18_s256x704_v200x200x4_c192_d2_f4": ("fast_bev_m0", "fast_bev"),
    "fastbev_m1_r18_s320x880_v200x200x4_c192_d2_f4": ("fast_bev_m1", "fast_bev"),
    "fastbev_m2_r34_s256x704_v200x200x4_c224_d4_f4": ("fast_bev_m2", "fast_bev"),
    "fastbev_m3_r34_s256x704_v200x200x6_c256_d6_f4": ("fast_bev_m3", "fast_bev"),
    "fastbev_m4_r50_s320x880_v250x250x6_c256_d6_f4": ("fast_bev_m4", "fast_bev"),
    "fastbev_m5_r50_s512x1408_v250x250x6_c256_d6_f4": ("fast_bev_m5", "fast_bev"),
    "fastbev_r50_v4_ms_20cbgs_s256x704_v200x200x6_c256_d6_f4": ("fast_bev_r50", "fast_bev"),
    "fastbev_r101_dcn_v4_ms_20cbgs_s928x1600_v400x400x6_c256_d6_f4": ("fast_bev_r101", "fast_bev"),
}
#: What nothing reads of a file, and saving leaves out: the norm and the head behind the image encoder, T5's own words.
UNREAD = {
    name: {"visual.norm.weight", "visual.norm.bias", "visual.head.weight", "visual.head.bias",
           "cformer.cformer.embed_tokens.weight"}
    for name in ("emu1_pretrain_multimodal_encoder", "emu1_instruct")
}  # fmt: skip
#: What training adds to a checkpoint, and lies in no model of its own: the aligning layer, and a frozen teacher.
TRAINING_EXTRA = "EVE-7B-v1-training-extra"
FOUND = sorted({path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz")} - {TRAINING_EXTRA})


def read_manifest(name: str) -> dict[str, torch.Size]:
    with gzip.open(FOLDER / f"{name}.json.gz") as file:
        return {key: torch.Size(shape) for key, shape in json.load(file).items()}


def on_meta(manifest: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in manifest.items()}


def test_there_are_manifests() -> None:
    assert FOUND, f"no *.json.gz in {FOLDER}"


@pytest.mark.parametrize("name", FOUND)
def test_every_tensor_has_its_place_both_ways(name: str) -> None:
    assert name in CHECKPOINTS, f"{name}: say in CHECKPOINTS which variant and naming it is"
    variant, wanted = CHECKPOINTS[name]
    manifest = read_manifest(name)
    state = unwrap(on_meta(manifest))
    naming = next(one for one in best_namings(state, NAMINGS.values()) if one.name == wanted)
    variant, _, part = variant.partition(":")
    variant, _, without = variant.partition("!")
    variant, _, drawing = variant.partition("+")
    words = [f"visual_decoder@model.visual_decoder={drawing}"] if drawing else []
    model = create(variant, device="meta", overrides=words) if words else variant_on_meta(variant)
    if without:
        setattr(model, without, None)
    model = model.get_submodule(part)
    account(model, state, naming).require(name)
    prefix = "module." if all(key.startswith("module.") for key in manifest) else ""
    read = {key: shape for key, shape in manifest.items() if key not in UNREAD.get(name, ())}
    assert len(manifest) - len(read) == len(UNREAD.get(name, ()))
    assert {prefix + key: tensor.shape for key, tensor in naming.save(model.state_dict()).items()} == read


@pytest.fixture(scope="module")
def eve() -> torch.nn.Module:
    return variant_on_meta("eve_7b")


def test_what_training_adds_to_eve_has_its_place(eve: torch.nn.Module) -> None:
    """The aligning layer by EVE's own lines, the teacher by those of a Hugging Face CLIP."""
    manifest, base = read_manifest(TRAINING_EXTRA), read_manifest("EVE-7B-v1.0")
    extra = on_meta(manifest)
    aligner = build({"type": "patch_aligning", "width": 4096, "teacher_width": 1024, "depth": 32})
    teacher = torch.nn.ModuleDict({"image": variant_on_meta("clip_vit_l14_336").image})
    prefix = "model.vision_clip.backbone."
    theirs = {key.removeprefix(prefix): tensor for key, tensor in extra.items() if key.startswith(prefix)}
    account(teacher, theirs, NAMINGS["hf_clip"]).require("the teacher")
    again = NAMINGS["hf_clip"].save(teacher.state_dict())
    assert {prefix + key: tensor.shape for key, tensor in again.items()} == {
        key: shape for key, shape in manifest.items() if key.startswith(prefix)
    }
    eve.aligner = aligner.to("meta")
    account(eve, {**on_meta(base), **extra}, EVE_TRAINING).require("a checkpoint of training")
    rest = {key: shape for key, shape in manifest.items() if not key.startswith(prefix)}
    saved = EVE_TRAINING.save(eve.state_dict())
    eve.aligner = None
    assert {key: tensor.shape for key, tensor in saved.items()} == {**base, **rest}


def test_a_checkpoint_of_training_fills_eve_for_inference_and_nothing_else_is_tolerated(eve: torch.nn.Module) -> None:
    base, extra = on_meta(read_manifest("EVE-7B-v1.0")), on_meta(read_manifest(TRAINING_EXTRA))
    teacher = "model.vision_clip.backbone."
    twice = {
        f"model.vision_tower_compressor.clip_layer.backbone.{key.removeprefix(teacher)}": tensor
        for key, tensor in extra.items()
        if key.startswith(teacher)
    }
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.empty(64, device="meta") for i in range(32)}
    for more in ({}, extra, twice, {**extra, **twice}, buffers, {**extra, **twice, **buffers}):
        account(eve, {**base, **more}, EVE).require("a checkpoint of training")
    strange = account(eve, {**base, "model.vision_tower.extra": torch.empty(1, device="meta")}, EVE)
    assert strange.unexpected == ("model.vision_tower.extra",)
    second = on_meta(read_manifest("EVE-7B-HD-v2.0"))
    buffers = dict(list(buffers.items())[:28])
    account(variant_on_meta("eve_v2_7b_hd"), {**second, **buffers}, EVE_V2).require("EVE v2 with buffers")
