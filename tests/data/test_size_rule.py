"""Emu3's sizes of pictures: bounds that always hold, and what is refused. tests/parity has the published table."""

from __future__ import annotations

import json
import math
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.data.size_rule import Emu3ImageTransform, SizeRule, UnfitPictureError, area_size
from multimodal_zoo.data.skips import UnusableError

HALF = [0.5, 0.5, 0.5]
RULE = SizeRule(8, 1024, 4096, 5)


def test_sizes_keep_factor_area_and_aspect() -> None:
    random = Random(0)
    for _ in range(500):
        high = random.randint(8, 500)
        wide = max(8, min(round(high * math.exp(random.uniform(-1.6, 1.6))), 500))
        if max(high, wide) / min(high, wide) > 5:
            continue
        rows, columns = RULE(high, wide)
        assert rows % 8 == columns % 8 == 0
        assert rows * columns <= 4096
        assert rows * columns >= 1024 or high * wide > 4096  # rounding down may undershoot, as published
        assert abs(rows - high * math.sqrt(rows * columns / (high * wide))) <= 24


def test_halves_are_rounded_to_even() -> None:
    assert SizeRule(8, 64, 10**6, 5)(20, 28) == (16, 32)


def test_a_long_strip_keeps_a_row_of_tokens() -> None:
    """Where Emu3's own rule would give a side of 0, transformers' rule and ours give one factor."""
    assert SizeRule(8, 64, 1024, 200)(8, 1600) == (8, 448)


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (1, 1)])
def test_sides_below_the_factor_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UnfitPictureError, match=rf"{size[1]} x {size[0]} pixels.*at least 8 \(images\.rule\.factor\)"):
        RULE(*size)


def test_ratios_beyond_the_limit_are_refused() -> None:
    assert RULE(8, 40)
    with pytest.raises(UnfitPictureError, match=r"5\.125 to 1, at most 5 to 1.*images\.rule\.ratio"):
        RULE(8, 41)
    assert SizeRule(8, 1024, 4096, 200)(8, 41)


@pytest.mark.parametrize("bad", [(0, 1, 2, 5), (8, 63, 64, 5), (8, 128, 127, 5), (8, 64, 64, 0.5)])
def test_bounds_must_fit(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match=r"images\.rule: factor"):
        SizeRule(*bad)


def test_first_resize_keeps_the_aspect() -> None:
    high, wide = area_size(333, 500, 518400)
    assert abs(high * wide - 518400) < max(high, wide)
    assert abs(high / wide - 333 / 500) < 1e-2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "I;16"])
def test_pictures_of_every_mode(mode: str) -> None:
    values = np.arange(40 * 33, dtype=np.uint16).reshape(40, 33)
    image = Image.fromarray(values) if mode == "I;16" else Image.new("RGB", (33, 40), (250, 3, 7)).convert(mode)
    (pixels,) = Emu3ImageTransform(RULE, HALF, HALF)([image])
    assert pixels.shape == (3, 40, 32)
    assert pixels.dtype == torch.float32
    assert pixels.abs().max() <= 1


def test_transparency_is_dropped_or_shown_on_a_ground() -> None:
    image = Image.new("RGBA", (40, 40), (200, 0, 0, 0))
    assert Emu3ImageTransform(RULE, HALF, HALF).pixels(image)[:, 0, 0].tolist() == [200, 0, 0]
    white = Emu3ImageTransform(RULE, HALF, HALF, background=[255, 255, 255])
    assert white.pixels(image)[:, 0, 0].tolist() == [255, 255, 255]


def test_back_and_forth_is_exact_where_nothing_is_resized() -> None:
    values = np.random.default_rng(0).integers(0, 256, (32, 40, 3)).astype(np.uint8)
    transform = Emu3ImageTransform(RULE, HALF, HALF)
    (pixels,) = transform([values])
    back = transform.inverse(pixels)
    assert np.abs(back.astype(int) - values).max() <= 1  # fractions are dropped, as published
    (picture,) = transform.pictures(pixels[None] * 3)
    assert picture.size == (40, 32)
    assert set(np.unique(transform.inverse(torch.tensor([-9.0, 0.0, 9.0]).view(3, 1, 1)))) == {0, 127, 255}


def test_other_normalisations() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    transform = Emu3ImageTransform(RULE, mean, std)
    (pixels,) = transform([np.full((32, 32, 3), 51, np.uint8)])
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([0.2, 0.0, -0.05]))


def test_bad_input_is_named() -> None:
    transform = Emu3ImageTransform(RULE, HALF, HALF)
    with pytest.raises(TypeError, match=r"write \[picture\]"):
        transform(Image.new("RGB", (32, 32)))
    with pytest.raises(UnusableError, match="broken image"):
        transform([b"no picture"])
    with pytest.raises(ValueError, match=r"images\.interpolation"):
        Emu3ImageTransform(RULE, HALF, HALF, interpolation="cubic")
    with pytest.raises(ValueError, match=r"images\.background"):
        Emu3ImageTransform(RULE, HALF, HALF, background=[1, 2])
    assert transform([]) == []


def test_facts_tell_transforms_apart() -> None:
    rule, half = SizeRule(8, 64, 4096, 5), [0.5] * 3
    same = Emu3ImageTransform(rule, half, half).facts()
    assert same == json.loads(json.dumps(same)) == Emu3ImageTransform(SizeRule(8, 64, 4096, 5), half, half).facts()
    others = (
        Emu3ImageTransform(SizeRule(8, 64, 4096, 4), half, half),
        Emu3ImageTransform(rule, [0.4] * 3, half),
        Emu3ImageTransform(rule, half, [0.4] * 3),
        Emu3ImageTransform(rule, half, half, "bilinear"),
        Emu3ImageTransform(rule, half, half, background=(255, 255, 255)),
    )
    assert all(other.facts() != same for other in others)
