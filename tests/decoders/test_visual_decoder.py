"""Visual decoders: the published loop written out, pictures on their own, schedules, sizes, types, and bad input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from drawing_parts import SIDE, TOKENS, WIDTH, decoder, decoder_node, scheduler, unet
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.decoders.conditions import Framing, SizedPictures
from multimodal_zoo.decoders.diffusion_parts import from_diffusers
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.decoders.visual_decoder import LatentDiffusion
from multimodal_zoo.registry import build

KINDS = pytest.mark.parametrize("kind", ["emu", "emu2", "pixels"])


def embeddings(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def directly(model: LatentDiffusion, condition: Tensor, away: Tensor, seed: int) -> Tensor:
    """One picture by the published loop (diffusers' own, written out): both branches of guidance call by call."""
    shape = (1, model.unet.config.in_channels, SIDE // model.stride, SIDE // model.stride)
    schedule: Any = type(model.scheduler).from_config(model.scheduler.config)
    schedule.set_timesteps(model.steps)
    latents = torch.randn(shape[1:], generator=torch.Generator().manual_seed(seed))[None] * schedule.init_noise_sigma
    for step in schedule.timesteps:
        seen, parts = schedule.scale_model_input(latents, step), []
        for embedded in (condition, away):
            added = None
            if model.unet.config.addition_embed_type is not None:
                times = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]])
                added = {"text_embeds": embedded.mean(1), "time_ids": times}
            parts.append(model.unet(seen, step, embedded, added_cond_kwargs=added).sample)
        guided = parts[1] + model.guidance * (parts[0] - parts[1])
        latents = schedule.step(guided, step, latents).prev_sample
    if model.vae is not None:
        latents = model.vae.decode(latents / model.vae.config.scaling_factor).sample
    return (latents / 2 + 0.5).clamp(0, 1)


@KINDS
def test_pictures_are_those_of_the_published_loop_one_by_one(kind: str) -> None:
    """Several at once, too: conditions on sizes are one row for each (the published code's broke there)."""
    model, condition, away = decoder(kind), embeddings(3), embeddings(1, seed=2)
    found = model.decode(condition, away, seeds=[5, 6, 7])
    expected = torch.cat([directly(model, condition[row, None], away, 5 + row) for row in range(3)])
    assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert found.shape == (3, 3, SIDE, SIDE)
    assert (expected[0] - expected[1]).abs().max() > 0.02
    assert_close(model.decode(condition[1:2], away, seeds=[6]), expected[1:2], atol=2e-5, rtol=1e-4)


@KINDS
def test_a_seed_is_a_picture(kind: str) -> None:
    model, condition = decoder(kind), embeddings(1).expand(2, -1, -1)
    first, other = model.decode(condition, seeds=[0, 1])
    assert (first - other).abs().max() > 0.02
    assert torch.equal(model.decode(condition), torch.stack([first, other]))  # 0, 1, ... where none are given
    assert torch.equal(model.decode(condition, seeds=[1, 0]), torch.stack([other, first]))


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler", "HeunDiscreteScheduler",
             "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"]
)  # fmt: skip
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_any_scheduler_draws_from_the_seeds_alone(name: str, prediction: str) -> None:
    """Those that add noise at every step draw it for each picture on its own."""
    model = decoder("emu2", scheduler=scheduler(name, prediction_type=prediction))
    condition, away = embeddings(2), embeddings(1, seed=2)
    both = model.decode(condition, away, seeds=[3, 4])
    torch.manual_seed(99)
    alone = model.decode(condition[1:], away, seeds=[4])
    assert_close(both[1:], alone, atol=2e-5, rtol=1e-4)
    assert both.isfinite().all()


@KINDS
def test_guidance_of_one_asks_for_one_branch(kind: str) -> None:
    model, condition, away = decoder(kind), embeddings(2), embeddings(2, seed=2)
    rows: list[int] = []
    model.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    alone = model.decode(condition, away, guidance=1)
    assert torch.equal(alone, model.decode(condition))
    assert set(rows) == {2}
    assert not torch.equal(alone, model.decode(condition, away))
    assert rows[-1] == 4
    expected = torch.cat([directly(model, condition[row, None], away[row, None], row) for row in range(2)])
    assert_close(model.decode(condition, away), expected, atol=2e-5, rtol=1e-4)


@KINDS
def test_sizes_and_steps_by_argument(kind: str) -> None:
    model, condition, told = decoder(kind), embeddings(1), []
    found = model.decode(condition, size=(8, 24), steps=3, on_step=lambda *one: told.append(one))
    assert found.shape == (1, 3, 8, 24)
    assert [one[:2] for one in told] == [(n + 1, len(told)) for n in range(len(told))]
    assert len(told) == (4 if kind == "emu" else 3)  # PLMS asks twice at its second step
    assert torch.equal(model.pixels(told[-1][2]), found)
    assert model.decode(condition, size=8).shape == (1, 3, 8, 8)


def test_sizes_are_a_condition() -> None:
    """What SDXL's kind is told of the whole picture and of the part changes what it predicts; row by row."""
    model, condition = decoder("emu2"), embeddings(2)
    latents, step = torch.randn(2, 4, 8, 8), torch.tensor(500)
    numbers = [Framing((512, 768), (0, 32), (16, 16)).numbers, Framing((16, 16), (0, 0), (16, 16)).numbers]
    with torch.no_grad():
        both = model.predict(latents, step, condition, torch.tensor(numbers))
        alone = [
            model.predict(latents[n, None], step, condition[n, None], torch.tensor(numbers[n])[None]) for n in (0, 1)
        ]
        other = model.predict(latents, step, condition, torch.tensor(numbers[::-1]))
    assert_close(both, torch.cat(alone), atol=1e-5, rtol=1e-4)
    assert (both - other).abs().amax((1, 2, 3)).min() > 1e-3


@KINDS
def test_memory_layout_and_attention_change_nothing(kind: str) -> None:
    """Channels last, diffusers' own attention or torch's, and slices of it draw the same pictures."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    model, condition, away = decoder(kind), embeddings(2), embeddings(1, seed=2)
    assert all(isinstance(one, AttnProcessor2_0) for one in model.unet.attn_processors.values())
    expected = model.decode(condition, away)
    model.to(memory_format=torch.channels_last)
    assert_close(model.decode(condition, away), expected, atol=2e-5, rtol=1e-4)
    model.unet.set_attn_processor(AttnProcessor())
    assert_close(model.decode(condition, away), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types(dtype: torch.dtype) -> None:
    """In half precision the autoencoder that overflows works in single precision, and is left as it was."""
    expected = decoder("emu2").decode(embeddings(1), embeddings(1, seed=2))
    model, seen = decoder("emu2").to(dtype), []
    assert model.vae is not None
    model.vae.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype))
    found = model.decode(embeddings(1), embeddings(1, seed=2))
    assert found.dtype == torch.float32
    assert_close(found, expected, atol=0.05 if dtype == torch.float16 else 1e-4, rtol=0)
    assert seen == [torch.float32 if dtype == torch.float16 else torch.float64]
    assert {one.dtype for one in model.parameters()} == {dtype}
    latents = model.latents(torch.zeros(1, 3, SIDE, SIDE), [torch.Generator()])
    assert latents.isfinite().all()
    assert {one.dtype for one in model.parameters()} == {dtype}


def test_latents_are_drawn_from_the_autoencoders_distribution() -> None:
    model, pictures = decoder("emu2"), torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    assert model.vae is not None
    found = model.latents(pictures, [torch.Generator().manual_seed(n) for n in (4, 5)])
    with torch.no_grad():
        known = model.vae.encode(pictures).latent_dist
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (4, 5)])
    assert_close(found, 0.4 * (known.mean + known.std * noise))
    assert not found.requires_grad
    assert decoder("pixels").latents(pictures, []) is pictures


@KINDS
def test_only_the_network_gets_gradients_from_its_prediction(kind: str) -> None:
    model = decoder(kind)
    latents = model.latents(torch.rand(2, 3, SIDE, SIDE), [torch.Generator().manual_seed(n) for n in (0, 1)])
    framings = torch.tensor([Framing((16, 16), (0, 0), (16, 16)).numbers] * 2)
    model.predict(latents, torch.tensor([5, 900]), embeddings(2), framings).square().mean().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in model.unet.parameters())
    assert model.vae is None or all(one.grad is None for one in model.vae.parameters())


@KINDS
def test_built_on_meta_and_saved(kind: str, tmp_path: Path) -> None:
    """The same pictures from a file of weights, of a model that was built without any."""
    model = decoder(kind)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    with torch.device("meta"):
        other = build(decoder_node(kind), path="visual_decoder")
    assert {one.device.type for one in other.parameters()} == {"meta"}
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"), assign=True)
    assert torch.equal(other.eval().decode(embeddings(2)), model.decode(embeddings(2)))


def test_diffusers_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"diffusion_unet needs the package diffusers: pip install '.*\[diffusion\]'"):
        build(unet(False), path="unet")


def test_bad_parts_name_the_key() -> None:
    with pytest.raises(ValueError, match=r"in_channels is 3; visual_decoder.vae's latents have 4"):
        decoder("emu", unet=unet(False, channels=3))
    with pytest.raises(ValueError, match=r"in_channels is 4; pixels \(visual_decoder.vae is null\) have 3"):
        decoder("emu", vae=None)
    with pytest.raises(ValueError, match=r"'text_time', visual_decoder.conditioning goes with None.*sized_pictures"):
        decoder("emu2", conditioning={"type": "embeddings_alone"})
    with pytest.raises(
        ValueError, match=r"is None, visual_decoder.conditioning goes with 'text_time'.*embeddings_alone"
    ):
        decoder("emu", conditioning={"type": "sized_pictures"})
    with pytest.raises(ValueError, match=r"visual_decoder.steps is 0"):
        decoder("emu", steps=0)
    with pytest.raises(ValueError, match=r"name is 'DDIM'; expected a class such as EulerDiscreteScheduler"):
        decoder("emu", scheduler=scheduler("DDIM"))
    with pytest.raises(ValueError, match="diffusers has no class 'SlowScheduler'"):
        from_diffusers("SlowScheduler", "diffusion_scheduler")


def test_bad_input_says_what_fits() -> None:
    model, condition = decoder("emu"), embeddings(2)
    with pytest.raises(ValueError, match=r"width 11; visual_decoder.unet.config.cross_attention_dim is 12"):
        model.decode(condition[..., :11])
    with pytest.raises(ValueError, match="size is 8 x 10 pixels; both sides must be multiples of 4"):
        model.decode(condition, size=(8, 10))
    with pytest.raises(ValueError, match="1 seeds for 2 pictures"):
        model.decode(condition, seeds=[1])
    with pytest.raises(ValueError, match=r"unconditional embeddings of shape \[2, 2, 12\] for \[2, 3, 12\]"):
        model.decode(condition, condition[:, :2])
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"{steps} steps of denoising; visual_decoder.scheduler has 1 to 1000"):
            model.decode(condition, steps=steps)


def test_a_decoder_made_for_another_model_is_refused() -> None:
    from emu_documents import tiny

    assert tiny("emu2", visual_decoder=decoder_node("emu2")).visual_decoder.condition_width == WIDTH
    with pytest.raises(ValueError, match="condition_width is 12, visual embeddings are 16 wide"):
        tiny("emu", visual_decoder=decoder_node("emu"))
    assert Emu.later_parts == ("visual_decoder",)


def test_sizes_keep_their_numbers_in_half_precision() -> None:
    numbers = torch.tensor([[683, 1023, 37, 301, 1024, 1024]])
    added = SizedPictures().added(torch.zeros(1, TOKENS, WIDTH, dtype=torch.bfloat16), numbers)
    assert added is not None
    assert added["text_embeds"].dtype is torch.bfloat16
    assert added["time_ids"].tolist() == numbers.tolist()
