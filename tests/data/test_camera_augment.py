"""Pictures and their maps of pixels agree: a mark on a picture lands where the map says."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from multimodal_zoo.data.camera_augment import CameraAugment, CameraView, PictureChange, change_of, planes


def marked(height: int, width: int, row: float, column: float) -> Image.Image:
    """A bright spot on black, centred on a point."""
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18.0) * 255
    return Image.fromarray(np.repeat(spot[..., None], 3, axis=2).astype(np.uint8))


def centre(picture: Image.Image) -> tuple[float, float]:
    """Column and row of the spot."""
    weights = np.asarray(picture.convert("L"), dtype=np.float64)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()


@pytest.mark.parametrize("seed", range(6))
def test_map(seed: int) -> None:
    """Within a pixel: the published map has no half-pixel terms and takes the factor unrounded."""
    view = CameraView((90, 160), pad=(4, 2, 6, 10))
    augment = CameraAugment([-0.06, 0.11], [-0.05, 0.05], [-5.4, 5.4], 0.5)
    change = augment.draw((180, 320), view, Random(seed))
    made = change.apply(marked(180, 320, 95.0, 170.0))
    assert (made.height, made.width) == change.result == view.result == (100, 172)
    expected = change.map() @ torch.tensor([170.0, 95.0, 1.0], dtype=torch.float64)
    assert centre(made) == pytest.approx(expected[:2].tolist(), abs=1.0)


@pytest.mark.parametrize(
    ("target", "crop"),
    [
        ((256, 704), (0, 70, 704, 326)),
        ((320, 880), (0, 87, 880, 407)),
        ((512, 1408), (0, 140, 1408, 652)),
        ((928, 1600), (0, -14, 1600, 914)),
    ],
)
def test_published_views(target: tuple[int, int], crop: tuple[int, ...]) -> None:
    change = CameraView(target).change((900, 1600))
    assert change.crop == crop
    assert change.factor == target[1] / 1600
    assert change.size == (target[1], int(900 * target[1] / 1600))


def test_outside_is_black() -> None:
    white = Image.new("RGB", (16, 9), (255, 255, 255))
    made = np.asarray(CameraView((13, 16)).change((9, 16)).apply(white))
    assert made[:2].max() == 0
    assert made[-2:].max() == 0
    assert made[2:-2].min() == 255
    padded = np.asarray(CameraView((9, 16), pad=(1, 0, 0, 2), pad_colour=(9, 8, 7)).change((9, 16)).apply(white))
    assert padded.shape == (10, 18, 3)
    assert padded[0, 0].tolist() == padded[5, 1].tolist() == [9, 8, 7]
    assert padded[1, 2].tolist() == [255] * 3
    view = CameraView((13, 16))
    assert_close(view(white, Random(0)), planes(view.change((9, 16)).apply(white)))


def test_draws() -> None:
    """Five numbers in order; what is switched off stays as it is."""
    view = CameraView((90, 160))
    nothing = CameraAugment([0, 0], [0, 0], [0, 0], 0.0)
    for units in ([0.0] * 5, [0.999] * 5):
        assert nothing.made((180, 320), view, units) == view.change((180, 320))
    whole = CameraAugment([-0.1, 0.1], [-0.5, 0.5], [-10, 10], 1.0).made((180, 320), view, [0.5, 0.0, 1.0, 0.0, 0.75])
    assert whole.factor == 0.5
    assert whole.crop == (80, -45, 240, 45)
    assert whole.flip
    assert whole.degrees == pytest.approx(5.0)
    half = CameraAugment([0, 0], [0, 0], [0, 0], 0.5)
    assert [half.made((9, 16), view, [0, 0, 0, unit, 0]).flip for unit in (0.49, 0.5)] == [False, True]
    assert half.draw((9, 16), view, Random(1)) == half.draw((9, 16), view, Random(1))


def test_view_options() -> None:
    view = CameraView((8, 16), resize=0.5, flip=True, degrees=90.0)
    change = view.change((8, 16))
    assert change == PictureChange(1.5, (24, 12), (4, 2, 20, 10), True, 90.0)
    assert change_of((8, 16), (8, 16), 0.5, (0.13, -0.13)).crop == (2, 3, 18, 11)  # int cuts towards zero


def test_refusals() -> None:
    with pytest.raises(ValueError, match="a picture of 9x16 pixels resized by 0 "):
        change_of((9, 16), (9, 16), -1.0)
    with pytest.raises(ValueError, match=r"processor\.view\.size is \[0, 4\]"):
        CameraView([0, 4])
    with pytest.raises(ValueError, match=r"processor\.view\.pad is \[-1, 0, 0, 0\]"):
        CameraView([4, 4], pad=[-1, 0, 0, 0])
    with pytest.raises(ValueError, match=r"image_augment\.crop is \[1, 0\]"):
        CameraAugment([0, 1], [1, 0], [0, 1], 0.5)
    with pytest.raises(ValueError, match=r"image_augment\.flip is 2"):
        CameraAugment([0, 1], [0, 1], [0, 1], 2)
