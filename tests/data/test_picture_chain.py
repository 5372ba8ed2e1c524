"""Changes of one picture against torchvision's, with the same drawn factors; and the published chain as a whole."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as tv

from multimodal_zoo.config import compose
from multimodal_zoo.data.picture_chain import (
    PictureBlur,
    PictureChain,
    PictureColourJitter,
    PictureFlip,
    PictureGrey,
    RandomSquareCrop,
    turn_hue,
)
from multimodal_zoo.data.transforms import to_tensor
from multimodal_zoo.registry import build

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8))


def same(ours: Image.Image, theirs: Image.Image) -> bool:
    return np.array_equal(np.asarray(ours), np.asarray(theirs))


class Script(Random):
    """Random numbers of which the uniform ones and the order are prescribed."""

    def __init__(self, numbers: list[float], order: list[int] | None = None) -> None:
        super().__init__(0)
        self.numbers, self.order = numbers, order

    def random(self) -> float:
        return 0.0

    def uniform(self, low: float, high: float) -> float:
        number = self.numbers.pop(0)
        assert low <= number <= high
        return number

    def shuffle(self, rows: Any) -> None:
        if self.order is not None:
            rows[:] = [rows[place] for place in self.order]


@pytest.mark.parametrize("share", [-0.5, -0.1, -0.003, 0.0, 0.04, 0.1, 0.5])
def test_hue_is_torchvisions(share: float) -> None:
    assert same(turn_hue(IMAGE, share), tv.adjust_hue(IMAGE, share))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_colour_jitter_is_torchvisions(order: list[int]) -> None:
    factors = [0.7, 1.35, 0.62, -0.07]
    expected = IMAGE
    steps = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for place in order:
        expected = steps[place](expected, factors[place])
    ours = PictureColourJitter(1.0, 0.4, 0.4, 0.4, 0.1)(IMAGE, Script(list(factors), order))
    assert same(ours, expected)


def test_grey_blur_and_flip() -> None:
    assert same(PictureGrey(1.0)(IMAGE, Random(0)), tv.to_grayscale(IMAGE, 3))
    assert same(PictureFlip(1.0)(IMAGE, Random(0)), tv.hflip(IMAGE))
    blurred = PictureBlur(1.0)(IMAGE, Script([1.3]))
    assert same(blurred, IMAGE.filter(ImageFilter.GaussianBlur(radius=1.3)))
    for change in (PictureGrey(0.0), PictureFlip(0.0), PictureBlur(0.0), PictureColourJitter(0.0, 1, 1, 1, 0.5)):
        assert change(IMAGE, Random(0)) is IMAGE
    assert PictureColourJitter(1.0)(IMAGE, Random(0)) is IMAGE
    share = sum(PictureFlip(0.3)(IMAGE, random) is not IMAGE for random in map(Random, range(1000))) / 1000
    assert abs(share - 0.3) < 0.05


def test_square_crops() -> None:
    crops = [RandomSquareCrop(23)(IMAGE, Random(seed)) for seed in range(200)]
    whole = to_tensor(IMAGE)
    places = {left for crop in crops for left in range(9) if torch.equal(crop, whole[:, :, left : left + 23])}
    assert places == set(range(9))
    tall = RandomSquareCrop(8)(IMAGE.rotate(90, expand=True), Random(0))
    assert tall.shape == (3, 8, 8)


def test_the_published_views() -> None:
    config = compose(None, ["+model=clip_tiny", "+image_view@moco=moco_v2", "+image_view@plain=slip_crop", "+seed=0"])
    moco, plain = (build(config[name]).transform for name in ("moco", "plain"))
    assert [type(change) for change in moco.changes] == [PictureColourJitter, PictureGrey, PictureBlur, PictureFlip]
    drawn = [moco(IMAGE, Random(seed)) for seed in range(8)]
    assert all(one.shape == (3, 48, 48) and one.dtype == torch.uint8 for one in drawn)
    assert len({one.numpy().tobytes() for one in drawn}) == 8
    assert torch.equal(moco(IMAGE, Random(3)), drawn[3])
    assert plain(IMAGE, Random(0)).shape == (3, 48, 48)
    assert torch.equal(PictureChain(plain, [])(IMAGE, Random(1)), plain(IMAGE, Random(1)))


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match=r"PictureFlip: probability is 1.2"):
        PictureFlip(1.2)
    with pytest.raises(ValueError, match=r"hue 0.6; expected"):
        PictureColourJitter(1.0, hue=0.6)
