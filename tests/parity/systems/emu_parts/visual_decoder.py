"""Emu's and Emu2-Gen's cases of drawing: diffusion network, guidance, noise schedules, autoencoder, safety check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.emu_parts.shared import vision
from torch import Tensor

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_hf
from multimodal_zoo.checkpoints.tables.diffusion import PARTS, PARTS_OLD, checker_rules
from multimodal_zoo.checkpoints.tables.eva_clip import bare_tower
from multimodal_zoo.decoders.conditions import Framing, rows_of
from multimodal_zoo.decoders.diffusion_parts import diffusion_scheduler
from multimodal_zoo.decoders.safety_checker import SafetyChecker
from multimodal_zoo.decoders.visual_decoder import LatentDiffusion
from multimodal_zoo.encoders.image_tokens import image_tokens, unpooled
from multimodal_zoo.encoders.pooled_tokens import PooledTokens
from multimodal_zoo.generation.guidance import guide
from multimodal_zoo.registry import build

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"modes": None}
CALL_FIELDS = {"timestep"}
DRAWING_KEYS = {"unet", "vae", "scheduler", "num_inference_steps", "guidance_scale", "height", "width"}
SIZED_KEYS = DRAWING_KEYS | {"vision_cfg", "crop_info", "original_size"}
ENCODER = "multimodal_encoder."
TOWER_KEYS = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "num_channels", "hidden_act", "layer_norm_eps",
}  # fmt: skip


def _sized(case: Case) -> bool:
    return case.config["unet"].get("addition_embed_type") is not None


def _scheduler(config: dict[str, Any], steps: str = "") -> Any:
    name = config.get("_class_name") or ("EulerDiscreteScheduler" if "timestep_spacing" in config else "PNDMScheduler")
    return diffusion_scheduler(name, {key: value for key, value in config.items() if key not in ("_class_name", steps)})


def _decoder(case: Case) -> LatentDiffusion:
    def make() -> Any:
        given = take_known(case.config, SIZED_KEYS if _sized(case) else DRAWING_KEYS, "config")
        node = {
            "type": "latent_diffusion", "size": given["height"], "steps": given["num_inference_steps"],
            "guidance": given["guidance_scale"], "safety_checker": None,
            "unet": {"type": "diffusion_unet", "config": given["unet"]},
            "vae": {"type": "diffusion_vae", "config": given["vae"]},
            "scheduler": {"type": "diffusion_scheduler", "name": given["scheduler"]["_class_name"],
                          "config": given["scheduler"]},
            "conditioning": {"type": "sized_pictures" if _sized(case) else "embeddings_alone"},
        }  # fmt: skip
        decoder = build(node, path="visual_decoder")
        own = {name: value for name, value in case.state.items() if not name.startswith(ENCODER)}
        old = any(".query." in name for name in own)
        decoder.load_state_dict((PARTS_OLD if old else PARTS).load(own))
        return decoder.eval()

    return case.once("decoder", make)


def _framing(case: Case) -> Framing:
    config = case.config
    size = (config["height"], config["width"])
    original = tuple(config.get("original_size", size))
    return Framing(original, tuple(config.get("crop_info", (0, 0))), size)  # type: ignore[arg-type]


def _mode(request: Request) -> str:
    """What stands before the names of a call's tensors."""
    name = (*request.call.inputs, *request.call.outputs)[0]
    return name.rpartition(".")[0] + "." if "." in name else ""


def _named(request: Request, name: str) -> Tensor:
    return request.case.tensors[_mode(request) + name]


def prompt_embeddings(request: Request) -> Outcome:
    """A picture's own embeddings, and those of an all-zero picture."""
    case = request.case
    node = vision(case.config["vision_cfg"], first=False)
    encoder = unpooled(build(node, path="image_encoder"))
    own = {name: value for name, value in case.state.items() if name.startswith(f"{ENCODER}visual.")}
    encoder.load_state_dict(Naming("", bare_tower(f"{ENCODER}visual.", "")).load(own))
    (image,) = case.take(request.call)
    pictures = torch.cat([image, torch.zeros_like(image)])
    with torch.no_grad():
        found = PooledTokens(encoder.width)(
            image_tokens(encoder.eval(), pictures), case.config["vision_cfg"]["n_query"]
        )
    return {request.call.outputs[0]: found}


@torch.no_grad()
def first_call(request: Request) -> Outcome:
    """The network's output for given noisy latents."""
    decoder = _decoder(request.case)
    latents, condition = _named(request, "latent_model_input"), _named(request, "prompt_embeds")
    framings = rows_of(_framing(request.case), len(latents), latents.device)
    if _sized(request.case):
        added = decoder.conditioning.added(condition, framings)
        assert added is not None
        assert torch.equal(added["time_ids"].long().flatten(), _named(request, "time_ids"))
        torch.testing.assert_close(added["text_embeds"], _named(request, "text_embeds"))
    step = torch.tensor(request.call.extra["timestep"])
    return {request.call.outputs[0]: decoder.predict(latents, step, condition, framings)}


def guidance(request: Request) -> Outcome:
    """Both branches of one output, the conditional one first."""
    (output,) = request.case.take(request.call)
    return {request.call.outputs[0]: guide(*output.chunk(2), request.case.config["guidance_scale"])}


def denoising(request: Request) -> Outcome:
    """All steps, and what guidance makes of the first."""
    decoder, seen = _decoder(request.case), []
    noise, both = _named(request, "noise"), _named(request, "prompt_embeds")
    last = decoder.denoise(
        noise, both[:1], both[1:], _framing(request.case), on_step=lambda number, count, latents: seen.append(latents)
    )
    steps = decoder.fresh_scheduler()
    steps.set_timesteps(decoder.steps)
    found = {"timesteps": steps.timesteps, "latents_per_step": torch.cat(seen)}
    torch.testing.assert_close(last, _named(request, "latents_final"), atol=2e-3, rtol=2e-3)
    first = _named(request, "latent_model_input") if _mode(request) else None
    if first is not None:
        framings = rows_of(_framing(request.case), len(both), noise.device)
        with torch.no_grad():
            output = decoder.predict(first, steps.timesteps[0], both, framings)
        found["guided_first"] = guide(*output.chunk(2), decoder.guidance)
    return {name: found[name.rpartition(".")[2]] for name in request.call.outputs}


def decoding(request: Request) -> Outcome:
    """Latents to a picture, channels last."""
    (latents,) = request.case.take(request.call)
    return {request.call.outputs[0]: _decoder(request.case).pixels(latents).permute(0, 2, 3, 1)}


def eight_bits(request: Request) -> Outcome:
    """The picture as bytes."""
    (pixels,) = request.case.take(request.call)
    return {request.call.outputs[0]: (pixels[0] * 255).round().to(torch.uint8)}


@torch.no_grad()
def encoding(request: Request) -> Outcome:
    """The distribution of a picture's latents."""
    (pixels,) = request.case.take(request.call)
    vae = _decoder(request.case).vae
    assert vae is not None
    found = vae.encode(pixels).latent_dist
    return dict(zip(request.call.outputs, (found.mean, found.std), strict=True))


def schedule(request: Request) -> Outcome:
    """Steps, noise levels and what noise begins with."""
    config = request.case.config
    scheduler = _scheduler(config, "num_inference_steps")
    scheduler.set_timesteps(config["num_inference_steps"])
    found: dict[str, Any] = {"timesteps": scheduler.timesteps}
    for name in ("betas", "alphas_cumprod", "sigmas", "init_noise_sigma"):
        if name in request.call.outputs:
            found[name] = torch.as_tensor(getattr(scheduler, name)).float()
    return found


def stepping(request: Request) -> Outcome:
    """Steps on given predictions."""
    config = request.case.config
    sample, predictions = request.case.take(request.call)
    scheduler = _scheduler(config, "num_inference_steps")
    scheduler.set_timesteps(config["num_inference_steps"])
    sample, scaled, samples = sample * scheduler.init_noise_sigma, [], []
    for step, prediction in zip(scheduler.timesteps, predictions, strict=True):
        scaled.append(scheduler.scale_model_input(sample, step))
        sample = scheduler.step(prediction[None], step, sample).prev_sample
        samples.append(sample)
    found = {"samples": torch.cat(samples), "scaled_inputs": torch.cat(scaled)}
    return {name: found[name] for name in request.call.outputs}


def _checker(case: Case) -> SafetyChecker:
    def make() -> Any:
        config = take_known(case.config, {"vision_config", "projection_dim", "hidden_act", "layer_norm_eps"}, "config")
        tower = {**take_known(config["vision_config"], TOWER_KEYS, "config.vision_config"), "model_type": "clip"}
        image = sizes_from_hf({"vision_config": tower}).node()["image"]
        count = [len(case.state[f"safety_checker.{name}_embeds"]) for name in ("concept", "special_care")]
        checker = SafetyChecker(build(image, path="image"), config["projection_dim"], *count)
        checker.load_state_dict(Naming("", checker_rules("safety_checker.")).load(case.state))
        return checker.eval()

    return case.once("checker", make)


def cosines(request: Request) -> Outcome:
    """Embeddings and both sets of cosines."""
    (images,) = request.case.take(request.call)
    return dict(zip(request.call.outputs, _checker(request.case).cosines(images), strict=True))


def check(request: Request) -> Outcome:
    """Flags, and the pictures without those that are flagged."""
    images, pictures = request.case.take(request.call)
    checker = _checker(request.case)
    flags = checker(images)
    return dict(zip(request.call.outputs, (flags, checker.blackened(pictures, flags)), strict=True))


def register(system: System) -> None:
    """Tell the system which call is which."""
    system.call(r"prompt embeddings in autoencoding mode")(prompt_embeddings)
    system.call(r"unet, first call")(first_call)
    system.call(r"guidance of the first call")(guidance)
    system.call(r"denoising loop from fixed noise")(denoising)
    system.call(r"decode_latents")(decoding)
    system.call(r"image as 8 bit")(eight_bits)
    system.call(r"vae\.encode \(for training the decoder\)")(encoding)
    system.call(r"set_timesteps")(schedule)
    system.call(r"(scale_model_input and )?step, in order over timesteps.*")(stepping)
    system.call(r"image embedding and cosines")(cosines)
    system.call(r"forward")(check)
