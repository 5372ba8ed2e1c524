"""EVE's rules for sizes against their definitions; tests/parity has the published pixels."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from eve_samples import MEAN, STD, area, canvas, picture
from PIL import Image

from multimodal_zoo.data.eve_area import EveAreaTransform
from multimodal_zoo.data.eve_canvas import EveImageTransform
from multimodal_zoo.data.size_rule import UnfitPictureError
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.nn.masked_canvas import cells_of_canvas, valid_box

SIZES = [(32, 32), (64, 17), (17, 64), (1, 1), (3, 200), (200, 3), (31, 32), (100, 75)]


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_the_canvas_without_what_surrounds_the_picture(size: tuple[int, int]) -> None:
    ours, image = canvas(), picture(*size)
    whole, found = ours.canvas(image), ours.preview(size[1], size[0])
    cells = ours.cells(image)
    again = cells_of_canvas(whole, 4, 2)
    assert torch.equal(cells.pixels, again.pixels)
    assert cells.grids == again.grids == (found.grid,)
    assert cells.tokens == [found.tokens]
    assert valid_box(whole[3], 4) == tuple(part // 4 for part in (*found.place, *found.size))
    assert torch.equal(ours([image])[0], cells.images()[0])


@pytest.mark.parametrize("size", SIZES)
def test_the_teacher_sees_the_same_rectangle(size: tuple[int, int]) -> None:
    ours, image = canvas(), picture(*size)
    pixels, box = ours.teacher(image)
    assert pixels.shape == (3, 16, 16)
    assert box == valid_box(ours.teacher_canvas(image)[3], 4) == ours.preview(size[1], size[0]).box
    grid = ours.cells(image).grids[0]
    assert (box[2], box[3]) == grid  # one cell is one patch of the teacher at this size
    finer = canvas(64).cells(image).grids[0]
    assert finer == (2 * box[2], 2 * box[3])


def test_what_surrounds_a_picture_is_nearly_zero() -> None:
    whole = canvas().canvas(picture(64, 17))
    outside = whole[:3, whole[3] == 0]
    assert outside.abs().max() < 1 / 255 / min(STD)
    assert torch.equal(whole[:, :1, :1], canvas().blank(1))
    assert not canvas().blank(2)[3].any()


@pytest.mark.parametrize("size", SIZES)
def test_training_never_enlarges_and_inference_gives_one_area(size: tuple[int, int]) -> None:
    width, height = size
    ours = area()
    small, large = (ours.preview(height, width, training).size for training in (True, False))
    assert all(side % 8 == 0 for side in (*small, *large))
    assert small[0] * small[1] <= max(32 * 32 * 1.6, 8 * max(small))
    scale = 32 / math.sqrt(width * height)
    assert all(0 <= got - side * scale < 8 for got, side in zip(large, (height, width), strict=True))
    assert area("training").preview(height, width).size == small
    assert area("training").preview(height, width, training=True).size == small


def test_halves_are_rounded_to_even_cells() -> None:
    sizes = [area().preview(8, width, training=True).size[1] for width in (4, 12, 20, 28)]
    assert sizes == [8, 16, 16, 32]


@pytest.mark.parametrize("size", SIZES)
def test_bounds_of_pixels_hold(size: tuple[int, int]) -> None:
    width, height = size
    most = EveAreaTransform(32, 4, 2, MEAN, STD, max_pixels=512).preview(height, width).size
    assert most[0] * most[1] <= 512 or 8 in most
    least = EveAreaTransform(32, 4, 2, MEAN, STD, "training", min_pixels=768).preview(height, width).size
    assert least[0] * least[1] >= 768


def test_modes_are_brought_to_colours() -> None:
    colours = picture(20, 12)
    grey = Image.fromarray(colours[..., 0])
    plain = Image.fromarray(np.repeat(colours[..., :1], 3, -1))
    clear = Image.fromarray(colours).convert("RGBA")
    palette = Image.fromarray(colours).convert("P")
    for ours in (canvas(), area()):
        assert torch.equal(ours.cells(grey).pixels, ours.cells(plain).pixels)
        assert torch.equal(ours.cells(clear).pixels, ours.cells(colours).pixels)
        assert torch.equal(ours.cells(palette).pixels, ours.cells(palette.convert("RGB")).pixels)
    empty = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    white = EveImageTransform(32, 16, 4, 4, 2, MEAN, STD, background=[255, 255, 255])
    assert torch.equal(white.cells(empty).pixels, white.cells(Image.new("RGB", (8, 8), "white")).pixels)


def test_bad_pictures_are_named() -> None:
    with pytest.raises(UnfitPictureError, match=r"0 x 5 pixels has no area"):
        canvas().preview(5, 0)
    with pytest.raises(UnfitPictureError, match=r"200 x 3.*66\.67 to 1, at most 20 to 1.*processor\.images\.ratio"):
        canvas(ratio=20).cells(picture(200, 3))
    with pytest.raises(UnfitPictureError, match=r"at most 20 to 1"):
        area(ratio=20).cells(picture(3, 200))
    with pytest.raises(UnusableError, match="missing image file"):
        canvas().cells("no/such/picture.png")
    with pytest.raises(TypeError, match=r"write \[picture\]"):
        canvas()(picture(8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\.teacher=false"):
        area().teacher(picture(8, 8))


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="image_size 30 must be a multiple of teacher_size 16"):
        canvas(30)
    with pytest.raises(ValueError, match="inference_rule is 'trainig'; it must be training or inference"):
        area("trainig")
    with pytest.raises(ValueError, match="max_pixels 10"):
        EveAreaTransform(32, 4, 2, MEAN, STD, max_pixels=10)
    with pytest.raises(ValueError, match="ratio 0"):
        area(ratio=0.5)


def test_transforms_travel_to_workers() -> None:
    image = picture(20, 12)
    for ours in (canvas(), area()):
        assert torch.equal(pickle.loads(pickle.dumps(ours)).cells(image).pixels, ours.cells(image).pixels)
