"""Pictures and clips through the visual tokenizer, and clips drawn from texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.data.pictures import from_array
from multimodal_zoo.inference.autoencode import reconstruct
from multimodal_zoo.inference.video import draw_video, reconstruct_video

PICTURES = [np.full((40, 40, 3), 90, np.uint8), np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8)]


@pytest.fixture(scope="module")
def model():
    overrides = [
        "model.decoder.blocks.depth=1",
        "+model.processor.video=univla_video",
        "model.vision_tokenizer.encoder.temporal_factor=2",
    ]
    return zoo.create("emu3_tiny", overrides=overrides)


def test_pictures_come_back_at_the_size_that_the_rule_gives_them(model) -> None:
    found = reconstruct(model, [from_array(PICTURES[0]), PICTURES[1]])
    for one, picture in zip(found, PICTURES, strict=True):
        high, wide = model.processor.transform.rule(*picture.shape[:2])
        factor = model.processor.transform.rule.factor
        assert one.seen.size == one.image.size == (wide, high)
        assert one.codes.shape == (high // factor, wide // factor)
        with torch.no_grad():
            expected = model.vision_tokenizer.eval().encode(model.processor.images([picture])[0][None])[0]
        assert torch.equal(one.codes, expected)
    assert reconstruct(model, []) == []


def test_a_visual_tokenizer_serves_alone() -> None:
    alone = zoo.create("emu3_vision_tiny")
    (found,) = reconstruct(alone, [PICTURES[1]])
    assert found.image.size == found.seen.size
    assert alone.training


def test_clips_come_back_with_all_their_frames(model) -> None:
    frames = [from_array(PICTURES[1] // number) for number in (1, 2, 3, 4)]
    found = reconstruct_video(model, frames)
    assert found.codes.shape[0] == 2
    assert len(found.frames) == 4
    assert found.frames[0].size == reconstruct(model, frames[:1])[0].image.size


def test_clips_are_drawn_in_the_layout_of_univla(model) -> None:
    told = []
    one, other = draw_video(
        model, ["a dog runs", "the sun"], frames=4, ratio=["1:1", "1:2"], seed=2, on_step=told.append
    )
    assert one.codes.shape == (2, *model.processor.grid("1:1"))
    assert len(one.frames) == len(other.frames) == 4
    assert torch.equal(told[-1].codes()[1], other.codes)
    (again,) = draw_video(model, "the sun", frames=4, ratio="1:2", seed=3)
    assert torch.equal(again.codes, other.codes)
    (longer,) = draw_video(model, "the sun", frames=6, ratio="1:2", given=[other.codes])
    assert torch.equal(longer.codes[:2], other.codes)
    assert longer.codes.shape[0] == 3


def test_what_cannot_be_is_refused(model, monkeypatch) -> None:
    with pytest.raises(ValueError, match="frames is 3; the visual tokenizer makes them in multiples of 2"):
        draw_video(model, "a", frames=3)
    monkeypatch.setattr(model.processor, "video", None)
    with pytest.raises(ValueError, match=r"processor.video=univla_video"):
        draw_video(model, "a", frames=2)
    with pytest.raises(TypeError, match="reconstruct needs a visual tokenizer"):
        reconstruct(torch.nn.Identity(), PICTURES)
    monkeypatch.setattr(model, "vision_tokenizer", None)
    with pytest.raises(ValueError, match="no visual tokenizer"):
        reconstruct(model, PICTURES)
    alone = zoo.create("emu3_vision_tiny")
    alone.processor = None
    with pytest.raises(TypeError, match=r"needs model.processor for pictures"):
        reconstruct(alone, PICTURES)
