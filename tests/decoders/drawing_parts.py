"""Tiny visual decoders of both kinds, built from configurations of diffusers."""

from __future__ import annotations

from typing import Any

import torch

from multimodal_zoo.decoders.visual_decoder import LatentDiffusion
from multimodal_zoo.registry import build

#: Width of visual embeddings, how many a picture has, and the side of pictures.
WIDTH, TOKENS, SIDE = 12, 3, 16
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLMS = {**SCHEDULE, "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True}
EULER = {**SCHEDULE, "steps_offset": 1, "timestep_spacing": "leading"}


def unet(sized: bool, channels: int = 4, width: int = WIDTH) -> dict[str, Any]:
    """The node of a network of two levels; `sized` as SDXL's."""
    config = {
        "sample_size": SIDE // 2, "in_channels": channels, "out_channels": channels, "block_out_channels": [8, 16],
        "layers_per_block": 1, "cross_attention_dim": width, "attention_head_dim": 2, "norm_num_groups": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    }  # fmt: skip
    added = {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "use_linear_projection": True,
        "projection_class_embeddings_input_dim": 6 * 4 + width,
    }  # fmt: skip
    return {"type": "diffusion_unet", "config": {**config, **(added if sized else {})}}


def vae() -> dict[str, Any]:
    """The node of an autoencoder that halves both sides."""
    config = {
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
        "scaling_factor": 0.4, "force_upcast": True,
    }  # fmt: skip
    return {"type": "diffusion_vae", "config": config}


def scheduler(name: str = "EulerDiscreteScheduler", **config: Any) -> dict[str, Any]:
    """The node of a noise schedule."""
    known = PLMS if name == "PNDMScheduler" else EULER if name == "EulerDiscreteScheduler" else SCHEDULE
    return {"type": "diffusion_scheduler", "name": name, "config": {**known, **config}}


def decoder_node(kind: str, **changes: Any) -> dict[str, Any]:
    """The node of a visual decoder: `emu`, `emu2`, or `pixels`, which has no autoencoder."""
    sized = kind == "emu2"
    made = {
        "type": "latent_diffusion", "size": SIDE, "steps": 4, "guidance": 3.0, "safety_checker": None,
        "unet": unet(sized, channels=3 if kind == "pixels" else 4),
        "vae": None if kind == "pixels" else vae(),
        "scheduler": scheduler("PNDMScheduler" if kind == "emu" else "EulerDiscreteScheduler"),
        "conditioning": {"type": "sized_pictures" if sized else "embeddings_alone"},
    }  # fmt: skip
    return {**made, **changes}


def decoder(kind: str, seed: int = 0, **changes: Any) -> LatentDiffusion:
    """A visual decoder in evaluation mode whose network heeds its conditions."""
    torch.manual_seed(seed)
    made: LatentDiffusion = build(decoder_node(kind, **changes), path="visual_decoder")
    with torch.no_grad():
        for weight in made.unet.parameters():
            if weight.dim() > 1:
                weight.mul_(2)
    return made.eval()
