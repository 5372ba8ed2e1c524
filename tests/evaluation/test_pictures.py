import io

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.evaluation import pictures

SQUARE = np.full((9, 9, 3), 200, np.uint8)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def has(png, colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(opened(png).astype(int) - rgb).sum(axis=-1) < 6).any())


def test_frames_tell_hits_from_misses():
    def grid(grade):
        return pictures.text_queries(["one", "two"], [[SQUARE] * 5] * 2, [[grade] + ["miss"] * 4] * 2)

    assert has(grid("hit"), pictures.GRADES["hit"])
    assert not has(grid("miss"), pictures.GRADES["hit"])
    assert has(grid("related"), pictures.GRADES["related"])


def test_image_queries_and_sheet():
    png = pictures.image_queries([SQUARE], [["right", "wrong"]], [["hit", "miss"]])
    assert has(png, pictures.GRADES["hit"])
    assert has(pictures.sheet([SQUARE] * 3, ["a", "b", "c"], columns=2), "#c8c8c8")


@pytest.mark.parametrize("classes", [2, 30, 70])
def test_confusion_matrix(classes):
    counts = torch.eye(classes, dtype=torch.long) * 3
    counts[0, 0] = 0  # a class that never occurs
    assert has(pictures.confusion_matrix(counts, [f"class {n}" for n in range(classes)]), "#08306b")


def test_curves_of_one_point_and_many():
    line = (list(range(200)), [float(n % 7) for n in range(200)])
    assert has(pictures.curves({"loss": {"train": line}, "lr": {"train": ([1.0], [2.0])}}), pictures.LINES[0])


def test_smooth_keeps_level_and_length():
    assert np.allclose(pictures.smooth([2.0] * 80), 2.0)
    assert pictures.is_noisy([float(n % 2) for n in range(100)])
    assert not pictures.is_noisy([n / 100 for n in range(100)])


def test_transparent_pictures_lie_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0, 3] = 255
    assert pictures.pixels(rgba)[0, 0].tolist() == [0, 0, 0]
    assert pictures.pixels(rgba)[1, 1].tolist() == [255, 255, 255]
    assert pictures.pixels(Image.fromarray(rgba)).shape == pictures.pixels(rgba[..., 0]).shape == (2, 2, 3)


def test_texts_that_the_font_cannot_draw_or_would_read_as_formulas():
    assert pictures.shorten("costs $5 or $6", 40) == r"costs \$5 or \$6"
    assert pictures.shorten("日本 two\n lines", 40) == "?? two lines"
    assert pictures.shorten("x" * 50, 10) == "x" * 9 + "…"
    pictures.text_queries(["$5 costs $6 日本"], [[SQUARE]], [["hit"]])


def test_a_running_mean_bridges_gaps():
    line = [float(n % 2) for n in range(100)]
    line[50], line[51] = float("nan"), float("inf")
    smooth = pictures.smooth(line)
    assert np.isfinite(smooth).all()
    assert np.abs(smooth[20:80] - 0.5).max() < 0.05
    assert pictures.is_noisy(line)
    assert np.isnan(pictures.smooth([float("nan")] * 3)).all()


def test_curves_that_no_axis_can_show_have_gaps():
    far = [1e308, -1e308, float("inf"), float("nan"), 1.0]
    assert np.isnan(pictures.drawable(far)).tolist() == [True] * 4 + [False]
    assert opened(pictures.curves({"loss": {"train": ([1.0, 2.0, 3.0, 4.0, 5.0], far)}})).size
