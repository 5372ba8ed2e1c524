"""Eight pictures of visual embeddings by diffusion: one batch with a seed each, against one call after the other.

    python benchmarks/emu_drawing.py          # one thread: about a minute of processor time

The published pipelines (baaivision/Emu) draw one picture in a call; their loop is written here over the same networks
of diffusers: both branches of guidance in a batch of two, Euler's steps, the autoencoder, one picture after the other.
Sizes are SDXL's kind made small: three levels of 32, 64 and 128 channels, latents of 8 x 8 and 16 x 16, random weights,
float32, 10 steps. "channels last" has the same networks with pixels beside their channels in memory.

The difference is the largest one of any pixel, which lies between 0 and 1.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from _report import alternate, ratio, record, use_threads
from torch import Tensor

from multimodal_zoo.decoders.visual_decoder import LatentDiffusion
from multimodal_zoo.registry import build

WIDTH, TOKENS, STEPS, GUIDANCE = 64, 16, 10, 3.0
TOLERANCE = 1e-3


def decoder(channels: list[int], side: int) -> LatentDiffusion:
    """A visual decoder for pictures of twice `side` pixels.

    Args:
        channels: of the three levels.
        side: of latents.
    """
    torch.manual_seed(0)
    unet = {
        "sample_size": side, "block_out_channels": channels, "layers_per_block": 1, "cross_attention_dim": WIDTH,
        "attention_head_dim": 4, "norm_num_groups": 8, "transformer_layers_per_block": [1, 1, 2],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 6 * 16 + WIDTH,
    }  # fmt: skip
    vae = {
        "latent_channels": 4, "block_out_channels": [channels[0]] * 2, "norm_num_groups": 8, "scaling_factor": 0.13,
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    }  # fmt: skip
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    node = {
        "type": "latent_diffusion", "size": 2 * side, "steps": STEPS, "guidance": GUIDANCE, "safety_checker": None,
        "unet": {"type": "diffusion_unet", "config": unet}, "vae": {"type": "diffusion_vae", "config": vae},
        "scheduler": {
            "type": "diffusion_scheduler", "name": "EulerDiscreteScheduler",
            "config": {**schedule, "timestep_spacing": "leading"},
        },
        "conditioning": {"type": "sized_pictures"},
    }  # fmt: skip
    made: LatentDiffusion = build(node, path="visual_decoder")
    return made.eval()


@torch.no_grad()
def published(model: LatentDiffusion, condition: Tensor, away: Tensor) -> Tensor:
    """One picture after the other by the published loop."""
    made, vae, side = [], model.vae, model.size
    assert vae is not None
    schedule: Any = type(model.scheduler).from_config(model.scheduler.config)
    times = torch.tensor([[side, side, 0, 0, side, side]] * 2)
    for number, row in enumerate(condition):
        both = torch.cat([row[None], away])
        added = {"text_embeds": both.mean(1), "time_ids": times}
        schedule.set_timesteps(STEPS)
        shape = (4, side // 2, side // 2)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(number))[None] * schedule.init_noise_sigma
        for step in schedule.timesteps:
            seen = schedule.scale_model_input(torch.cat([latents, latents]), step)
            output = model.unet(seen, step, encoder_hidden_states=both, added_cond_kwargs=added).sample
            with_condition, without = output.chunk(2)
            guided = without + GUIDANCE * (with_condition - without)
            latents = schedule.step(guided, step, latents).prev_sample
        made.append(vae.decode(latents / vae.config.scaling_factor).sample)
    return (torch.cat(made) / 2 + 0.5).clamp(0, 1)


def measure(channels: list[int], side: int, pictures: int, repeats: int) -> dict[str, object]:
    """One row of the table.

    Raises:
        AssertionError: pictures that differ.
    """
    model, last = decoder(channels, side), decoder(channels, side).to(memory_format=torch.channels_last)
    condition, away = torch.randn(pictures, TOKENS, WIDTH), torch.randn(1, TOKENS, WIDTH)
    expected = published(model, condition, away)
    gap = max(float((one.decode(condition, away) - expected).abs().max()) for one in (model, last))
    assert gap < TOLERANCE, f"pictures differ by {gap}"
    times = alternate(
        {
            "published": lambda: published(model, condition, away),
            "one by one": lambda: [model.decode(row[None], away, seeds=[n]) for n, row in enumerate(condition)],
            "batch": lambda: model.decode(condition, away),
            "channels last": lambda: last.decode(condition, away),
        },
        repeats,
    )
    return {
        "pictures": f"{pictures} of {2 * side} x {2 * side} pixels",
        "published, s": round(min(times["published"]), 2),
        **{f"{name}: ratio": round(ratio(times["published"], times[name]), 2) for name in times if name != "published"},
        "largest difference": f"{gap:.0e}",
    }


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    use_threads(given.threads)
    sizes = [8] if given.quick else [8, 16]
    channels = [8, 8, 16] if given.quick else [32, 64, 128]
    rows = [measure(channels, side, 2 if given.quick else 8, 1 if given.quick else given.repeats) for side in sizes]
    command = "python benchmarks/emu_drawing.py"
    record("emu_drawing", rows, command, threads=given.threads, keep=not given.quick)


if __name__ == "__main__":
    main()
