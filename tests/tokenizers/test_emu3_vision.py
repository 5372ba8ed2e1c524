"""Emu3's visual tokenizer: both ways of a still, clips, sizes, types, modes, saving; tests/parity compares numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_vision import Emu3VisionTokenizer

HALF = {
    "width": 32,
    "multipliers": [1, 2],
    "depth": 1,
    "attention_levels": [1],
    "latent_width": 4,
    "temporal_factor": 4,
}


def node(quantizer: str = "vector_quantizer", **sizes: Any) -> dict[str, Any]:
    half = {**HALF, **sizes}
    return {
        "type": "emu3_vision_tokenizer",
        "encoder": {"type": "emu3_vision_encoder", **half},
        "decoder": {"type": "emu3_vision_decoder", **half},
        "quantizer": {"type": quantizer, "codebook_size": 32, "width": 4},
    }


def tokenizer(**arguments: Any) -> Emu3VisionTokenizer:
    torch.manual_seed(0)
    made = build(node(**arguments))
    with torch.no_grad():
        made.quantizer.codebook.normal_()
        for part in made.modules():  # statistics and scales that are not those of the start
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean.normal_(std=0.3)
                part.running_var.uniform_(0.5, 1.5)
    return made.eval()


@pytest.mark.parametrize("sizes", [{}, {"temporal_factor": 2}, {"temporal_factor": 1}, {"attention_levels": [0, 1]}])
def test_a_still_is_a_clip_of_equal_frames(sizes: dict[str, Any]) -> None:
    model = tokenizer(**sizes)
    pixels = torch.randn(2, 3, 8, 12)
    codes = model.encode(pixels)
    clip = pixels[:, None].expand(-1, model.temporal_factor, -1, -1, -1)
    assert codes.shape == (2, 4, 6)
    assert torch.equal(codes, model.encode(clip)[:, 0])
    assert_close(model.decode(codes), model.decode(codes[:, None])[:, 0], atol=1e-6, rtol=1e-5)


def test_a_single_code_with_one_value_per_group() -> None:
    model = tokenizer(multipliers=[1, 1])
    pixels = torch.randn(1, 3, 2, 2)
    codes = model.encode(pixels)
    assert torch.equal(codes, model.encode(pixels.expand(2, -1, -1, -1))[:1])
    assert model.decode(codes).shape == pixels.shape


def test_a_batch_is_its_rows() -> None:
    model = tokenizer()
    pixels = torch.randn(3, 3, 8, 8)
    codes = model.encode(pixels)
    assert torch.equal(codes, torch.cat([model.encode(one[None]) for one in pixels]))
    one_by_one = torch.cat([model.decode(one[None]) for one in codes])
    assert_close(model.decode(codes), one_by_one, atol=1e-5, rtol=1e-4)


def test_the_decoder_sees_no_later_step_and_pieces_see_no_other() -> None:
    model = tokenizer()
    clip = torch.randn(2, 12, 3, 4, 6)
    codes = model.encode(clip)
    assert codes.shape == (2, 3, 2, 3)
    whole = model.decode(codes)
    assert whole.shape == clip.shape
    assert_close(model.decode(codes[:, :2]), whole[:, :8], atol=1e-6, rtol=1e-5)
    pieces = model.encode(clip, in_pieces=True)
    assert torch.equal(pieces, torch.cat([model.encode(part) for part in clip.split(4, dim=1)], 1))
    assert not torch.equal(pieces, codes)
    assert torch.equal(model.encode(clip[:, :4], in_pieces=True), model.encode(clip[:, :4]))


@pytest.mark.parametrize("frames", [5, 6, 7])
def test_frames_behind_the_last_whole_code_are_left_out(frames: int) -> None:
    model = tokenizer()
    clip = torch.randn(1, frames, 3, 4, 4)
    codes = model.encode(clip)
    assert codes.shape == (1, 1, 2, 2)
    assert model.decode(codes).shape == (1, 4, 3, 4, 4)
    by_hand = model.encoder.frames(clip[0]).transpose(0, 1)[None]
    for conv in model.encoder.temporal.convs:  # two zeros in front, kernel 4, stride 2
        padded = nn.functional.pad(by_hand, (1, 1, 1, 1, 2, 0))
        by_hand = nn.functional.silu(nn.functional.conv3d(padded, conv.conv.weight, conv.conv.bias, stride=(2, 1, 1)))
    for block in model.encoder.temporal.blocks:
        by_hand = block(by_hand)
    assert_close(model.latents(clip), model.into_codebook(by_hand), atol=1e-5, rtol=1e-4)
    for call in (model, lambda pixels: model.encode(pixels, in_pieces=True)):
        with pytest.raises(ValueError, match=f"{frames} frames; expected a multiple of 4"):
            call(clip)


def test_few_frames_at_once_give_the_same() -> None:
    model = tokenizer()
    clip = torch.randn(1, 8, 3, 4, 4)
    model.frames_at_once = 64
    codes, pixels = model.encode(clip), model.decode(torch.arange(8).view(1, 2, 2, 2))
    model.frames_at_once = 3
    assert torch.equal(model.encode(clip), codes)
    assert_close(model.decode(torch.arange(8).view(1, 2, 2, 2)), pixels, atol=1e-6, rtol=1e-5)


def test_codes_do_not_depend_on_the_mode_and_the_mode_stays() -> None:
    model = tokenizer(dropout=0.5)
    pixels = torch.randn(2, 3, 8, 8)
    codes = model.encode(pixels)
    made = model.decode(codes)
    model.train()
    model.decoder.eval()
    assert torch.equal(model.encode(pixels), codes)
    assert_close(model.decode(codes), made)
    assert model.training
    assert model.encoder.training
    assert not model.decoder.training
    assert not model.encode(pixels.requires_grad_()).requires_grad


def test_the_fast_norm_is_the_plain_one() -> None:
    from multimodal_zoo.tokenizers.emu3_vision_blocks import SpatialNorm

    norm = SpatialNorm(32, 4)
    nn.init.normal_(norm.norm.weight)
    features, vectors = torch.randn(2, 32, 12, 8), torch.randn(2, 4, 3, 2)
    given = features.clone()
    resized = nn.functional.interpolate(vectors, size=(12, 8), mode="nearest")
    plain = norm.norm(features) * norm.scale(resized) + norm.shift(resized)
    assert_close(norm(features, vectors), plain, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert_close(norm(features, vectors), plain, atol=1e-5, rtol=1e-5)
        assert torch.equal(features, given)


def test_inference_leaves_its_inputs_alone() -> None:
    model = tokenizer()
    pixels = torch.randn(1, 3, 8, 8)
    given = pixels.clone()
    codes = model.encode(pixels)
    kept = codes.clone()
    model.decode(codes)
    assert torch.equal(pixels, given)
    assert torch.equal(codes, kept)


def test_double_precision_and_random_numbers_agree_with_single() -> None:
    model = tokenizer()
    pixels = torch.randn(1, 3, 8, 8)
    codes = model.encode(pixels)
    made = model.decode(codes)
    double = model.double()
    assert torch.equal(double.encode(pixels.double()), codes)
    assert double.decode(codes).dtype == torch.float64
    assert_close(double.decode(codes).float(), made, atol=2e-5, rtol=1e-4)


def test_meta_and_saving(tmp_path: Path) -> None:
    model = tokenizer()
    with torch.device("meta"):
        frame = build(node())
    assert all(parameter.is_meta for parameter in frame.parameters())
    assert frame.encode(torch.empty(2, 3, 8, 8, device="meta")).shape == (2, 4, 4)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    frame.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    pixels = torch.randn(1, 3, 8, 8)
    assert torch.equal(frame.eval().encode(pixels), model.encode(pixels))


def test_training_reaches_every_parameter() -> None:
    model = tokenizer().train()
    for pixels in (torch.randn(2, 3, 8, 8), torch.randn(2, 4, 3, 4, 4)):
        model.zero_grad()
        found = model(pixels)
        assert found.pixels.shape == pixels.shape
        assert found.codes.shape == ((2, 4, 4) if pixels.ndim == 4 else (2, 1, 2, 2))
        loss = (found.pixels - pixels).square().mean() + found.commitment + found.codebook
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert model.encoder.conv_in.weight.grad.abs().max() > 0
        assert model.quantizer.codebook.grad.abs().max() > 0


def test_training_and_inference_reconstruct_alike() -> None:
    model = tokenizer()
    pixels = torch.randn(2, 3, 8, 8)
    found = model(pixels)
    assert torch.equal(found.codes, model.encode(pixels))
    assert_close(found.pixels, model.decode(found.codes), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 9, 8), "9 x 8"),
        ((1, 3, 0, 8), "0 x 8"),
        ((1, 4, 8, 8), r"\(1, 4, 8, 8\)"),
        ((3, 8, 8), "expected"),
        ((1, 3, 3, 8, 8), "3 frames; expected at least 4"),
        ((1, 0, 3, 8, 8), "0 frames"),
    ],
)
def test_pixels_that_do_not_fit(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tokenizer().encode(torch.zeros(shape))


def test_codes_that_do_not_fit() -> None:
    model = tokenizer()
    with pytest.raises(ValueError, match="from 0 to 32; the codebook has 32"):
        model.decode(torch.tensor([[[0, 32]]]))
    with pytest.raises(ValueError, match="from -1"):
        model.decode(torch.tensor([[[-1, 3]]]))
    with pytest.raises(ValueError, match="expected"):
        model.decode(torch.zeros(2, 2, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 20}, "20 wide; expected a multiple of 32"),
        ({"temporal_factor": 3}, "temporal_factor is 3"),
        ({"attention_levels": [2]}, "attention_levels"),
        ({"multipliers": []}, "multipliers"),
        ({"depth": 0}, "depth is 0"),
        ({"latent_width": 6}, "quantizer.width is 4, decoder.latent_width 6"),
    ],
)
def test_sizes_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(node(**change))


def test_halves_that_do_not_fit() -> None:
    config = node()
    config["decoder"]["multipliers"] = [1, 1, 2]
    with pytest.raises(ValueError, match="spatial_factor is 2 there and 4 here"):
        build(config)
    with pytest.raises(ValueError, match="frames_at_once"):
        build({**node(), "frames_at_once": 0})
