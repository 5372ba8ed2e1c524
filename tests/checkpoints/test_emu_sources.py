"""Emu and Emu2 from their publishers' folders and files; visual decoders from folders that diffusers itself writes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.checkpoints.configs import node_of
from multimodal_zoo.checkpoints.convert import write_shards
from multimodal_zoo.checkpoints.emu_sources import by_shapes
from multimodal_zoo.checkpoints.errors import (
    CheckpointMismatch,
    CorruptCheckpoint,
    MissingCheckpoint,
    UnknownCheckpoint,
)
from multimodal_zoo.checkpoints.store import recognise
from multimodal_zoo.checkpoints.tables import detect_naming
from multimodal_zoo.checkpoints.tables.diffusion import CHECKER, VAE_OLD
from multimodal_zoo.checkpoints.tables.emu import EMU, EMU2
from multimodal_zoo.checkpoints.tables.emu_config import is_emu2, published_node, visual_decoder_node
from multimodal_zoo.checkpoints.tables.nodes import differences
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

MANIFESTS = Path(__file__).parents[1] / "goldens" / "manifests"
#: What a published configuration says, of the published sizes and of small ones.
LLAMA = {
    "architectures": ["EmuForCausalLM"], "hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60,
    "num_attention_heads": 52, "vocab_size": 32272, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
}  # fmt: skip
VISION = {"width": 1792, "layers": 64, "head_width": 112, "mlp_ratio": 8.571428571428571, "image_size": 448}
SMALL = {
    **LLAMA, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vision_config": {"width": 12, "layers": 2, "head_width": 6, "mlp_ratio": 2.0, "image_size": 16, "patch_size": 4,
                      "n_query": 4, "v_query": 1},
}  # fmt: skip
UNET = {
    "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "attention_head_dim": 2,
    "norm_num_groups": 4, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
SIZED = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 24 + 12,
    "use_linear_projection": True,
}  # fmt: skip
VAE = {
    "latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4, "scaling_factor": 0.4,
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
}  # fmt: skip
CLIP = {
    "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4, "model_type": "clip_vision_model",
}  # fmt: skip


def random(module: Any, seed: int = 1) -> Any:
    """No two tensors alike."""
    torch.manual_seed(seed)
    for tensor in [*module.parameters(), *module.buffers()]:
        torch.nn.init.normal_(tensor.data, std=0.1)
    return module


def drawing(folder: Path, first: int = 0, **saving: Any) -> dict[str, Any]:
    """What diffusers writes of Emu2-Gen's visual decoder, or of Emu's for embeddings of width `first`; the networks."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel

    unet = random(UNet2DConditionModel(**UNET, cross_attention_dim=first or 12, **({} if first else SIZED)))
    vae = random(AutoencoderKL(**VAE), seed=2)
    unet.save_pretrained(folder / "unet", **saving)
    vae.save_pretrained(folder / "vae", **saving)
    (PNDMScheduler(skip_prk_steps=True) if first else EulerDiscreteScheduler()).save_pretrained(folder / "scheduler")
    return {"unet": unet, "vae": vae}


def checker(folder: Path) -> Any:
    """A safety checker, as transformers writes it."""
    node = {"type": "safety_checker", "embed_dim": 6, "concepts": 3, "special": 2}
    from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_hf

    image = sizes_from_hf({"vision_config": {**CLIP, "model_type": "clip"}}).node()["image"]
    made = random(build({**node, "image": image}, path="safety_checker"), seed=3)
    (folder / "safety_checker").mkdir()
    config = {"architectures": ["StableDiffusionSafetyChecker"], "model_type": "clip", "projection_dim": 6}
    (folder / "safety_checker" / "config.json").write_text(json.dumps({**config, "vision_config": CLIP}))
    state = {name: tensor.contiguous() for name, tensor in CHECKER.save(made.state_dict()).items()}
    save_file(state, folder / "safety_checker" / "model.safetensors")
    return made


def body(folder: Path, shard_size: int = 10**9) -> Any:
    """A small Emu2 in a folder such as the Hub's."""
    made = random(build_model(published_node(SMALL)))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SMALL))
    write_shards(folder, "model", EMU2.save(made.state_dict()), shard_size)
    return made


def same(found: Any, wanted: dict[str, Tensor]) -> None:
    state = found.state_dict()
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(state[name], tensor), name


def under(prefix: str, module: Any) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("shard_size", [10**9, 20_000])
def test_a_folder_of_emu2(shard_size: int, tmp_path: Path) -> None:
    made = body(tmp_path / "emu2", shard_size)
    assert (tmp_path / "emu2" / "model.safetensors").exists() == (shard_size == 10**9)
    found: Any = from_pretrained(tmp_path / "emu2")
    same(found, made.state_dict())
    assert (found.processor.image_tokens, found.processor.frame_tokens) == (4, 1)
    assert found.image_encoder.image_size == 16
    assert "config.json" not in str(found.card)
    values = {key: value for key, value in published_node(SMALL).items() if key != "type"}
    same(create("emu2", pretrained=tmp_path / "emu2", **values), made.state_dict())


def test_a_folder_with_a_visual_decoder_draws(tmp_path: Path) -> None:
    """Everything in its place, bit by bit; the very pictures that the networks draw."""
    made = body(tmp_path / "multimodal_encoder", 20_000)
    parts, check = drawing(tmp_path), checker(tmp_path)
    found: Any = from_pretrained(tmp_path)
    wanted = {**made.state_dict(), **under("visual_decoder.safety_checker.", check)}
    for name, network in parts.items():
        wanted |= under(f"visual_decoder.{name}.", network)
    same(found, wanted)
    decoder = found.visual_decoder
    assert (decoder.size, decoder.steps, decoder.guidance, decoder.factor) == (16, 50, 3.0, 0.4)
    assert type(decoder.scheduler).__name__ == "EulerDiscreteScheduler"
    condition = torch.randn(1, 4, 12)
    with torch.no_grad():
        latents = torch.randn(1, 4, 8, 8)
        numbers = torch.tensor([[16, 16, 0, 0, 16, 16]])
        added = {"text_embeds": condition.mean(1), "time_ids": numbers}
        ours = decoder.predict(latents, torch.tensor(7), condition, numbers)
        theirs = parts["unet"].eval()(latents, torch.tensor(7), condition, added_cond_kwargs=added).sample
    assert_close(ours, theirs, atol=1e-5, rtol=1e-4)  # weights that are read lie otherwise in memory
    assert decoder.decode(condition, steps=2).shape == (1, 3, 16, 16)
    assert decoder.safety_checker(torch.randn(2, 3, 8, 8)).shape == (2,)


def test_parts_that_a_model_lacks_are_left_out(tmp_path: Path) -> None:
    """With a known node: the checker, or all of the visual decoder."""
    made = body(tmp_path / "multimodal_encoder")
    parts, _ = drawing(tmp_path), checker(tmp_path)
    node = recognise(tmp_path).config
    plain: Any = from_pretrained(tmp_path, config={**node, "visual_decoder": None})
    same(plain, made.state_dict())
    drawer = {**node, "visual_decoder": {**node["visual_decoder"], "safety_checker": None}}
    found: Any = from_pretrained(tmp_path, config=drawer)
    wanted = {**made.state_dict(), **under("visual_decoder.unet.", parts["unet"])}
    same(found, {**wanted, **under("visual_decoder.vae.", parts["vae"])})


@pytest.mark.parametrize("old", [False, True])
def test_emus_own_folder(old: bool, tmp_path: Path) -> None:
    """A wrapped pickle without a configuration, and an autoencoder with older names of its attention."""
    node = declaration("emu_tiny")
    parts = drawing(tmp_path, node["connector"]["width"])
    made = random(build_model(node))
    (tmp_path / "multimodal_encoder").mkdir()
    unused = {"visual.norm.weight": torch.ones(3), "cformer.cformer.embed_tokens.weight": torch.ones(2)}
    state = {**EMU.save(made.state_dict()), **unused}
    torch.save({"module": state}, tmp_path / "multimodal_encoder" / "pytorch_model.bin")
    if old:
        (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
        torch.save(VAE_OLD.save(parts["vae"].state_dict()), tmp_path / "vae" / "diffusion_pytorch_model.bin")
    configs = {name: json.loads((tmp_path / name / "config.json").read_text()) for name in ("unet", "vae")}
    schedule = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    decoder = visual_decoder_node(configs, schedule, None)
    assert (decoder["scheduler"]["name"], decoder["guidance"]) == ("PNDMScheduler", 7.5)
    found: Any = from_pretrained(tmp_path, config={**node, "visual_decoder": decoder})
    wanted = {**made.state_dict(), **under("visual_decoder.unet.", parts["unet"])}
    wanted |= under("visual_decoder.vae.", parts["vae"])
    same(found, wanted)
    same(from_pretrained(tmp_path), wanted)  # told by its shapes, which are a variant's
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(MissingCheckpoint, match=r"scheduler_config.json: no such file"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    "saving", [{"variant": "bf16"}, {"safe_serialization": False}, {"variant": "bf16", "max_shard_size": "100KB"},
               {"max_shard_size": "100KB"}, {"variant": "fp16", "safe_serialization": False}]
)  # fmt: skip
def test_names_of_files_that_diffusers_writes(saving: dict[str, Any], tmp_path: Path) -> None:
    """Copies in other types, pickles, and weights that are spread over files."""
    body(tmp_path / "multimodal_encoder")
    parts = drawing(tmp_path, **saving)
    found: Any = from_pretrained(tmp_path)
    same(found.visual_decoder.unet, parts["unet"].state_dict())
    same(found.visual_decoder.vae, parts["vae"].state_dict())


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    body(tmp_path / "multimodal_encoder")
    drawing(tmp_path)
    file = tmp_path / "unet" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "cross_attention_dim": 16, "projection_class_embeddings_input_dim": 40}))
    with pytest.raises(CorruptCheckpoint, match="condition_width is 16, visual embeddings are 12 wide"):
        from_pretrained(tmp_path)
    file.write_text(json.dumps({**config, "layers_per_block": 2}))
    with pytest.raises(CheckpointMismatch, match="missing") as error:
        from_pretrained(tmp_path)
    assert all(name.startswith("visual_decoder.unet.") for name in error.value.missing)
    file.write_text(json.dumps({**config, "_class_name": "UNet3DConditionModel"}))
    with pytest.raises(UnknownCheckpoint, match="_class_name is 'UNet3DConditionModel'"):
        from_pretrained(tmp_path)
    with pytest.raises(UnknownCheckpoint, match="qkv_bias False"):
        published_node({**SMALL, "vision_config": {**SMALL["vision_config"], "qkv_bias": False}})  # type: ignore[dict-item]


@pytest.mark.parametrize(("variant", "tokens", "vocab_size"), [("emu2", 64, 32272), ("emu2_chat", 256, 32274)])
def test_published_configurations_are_the_variants(variant: str, tokens: int, vocab_size: int) -> None:
    config = {**LLAMA, "vocab_size": vocab_size, "vision_config": {**VISION, "n_query": tokens, "v_query": 64}}
    assert is_emu2(config)
    node = node_of(config)
    assert node["card"]["name"] == variant
    assert not differences(declaration(variant), node)
    other = node_of({**config, "num_hidden_layers": 59})
    assert "name" not in other["card"]
    assert other["decoder"]["blocks"]["depth"] == 59


@pytest.mark.parametrize(
    ("name", "variant"),
    [("emu1_pretrain_multimodal_encoder", "emu_14b"), ("emu1_instruct", "emu_instruct"), ("emu2_chat", "emu2_chat"),
     ("emu2_gen_native", "emu2_gen")],
)  # fmt: skip
def test_single_files_are_told_by_their_shapes(name: str, variant: str) -> None:
    with gzip.open(MANIFESTS / f"{name}.json.gz") as file:
        shapes = {key: torch.empty(shape, device="meta") for key, shape in json.load(file).items()}
    naming = detect_naming(shapes)
    assert naming is not None
    assert by_shapes(Path("weights.bin"), shapes, naming).variant == variant
    shapes.pop(next(iter(shapes)))
    with pytest.raises(UnknownCheckpoint, match="no published variant"):
        by_shapes(Path("weights.bin"), shapes, naming)
