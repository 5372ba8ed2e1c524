from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multimodal_zoo.data.augment import FlatGround, RandomPlacement, extent
from multimodal_zoo.data.augment_colour import ColourJitter, RandomEdges, RandomGrey, RandomOutline
from multimodal_zoo.data.collate import premultiplied
from multimodal_zoo.registry import build


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def squares() -> Tensor:
    """Six orange squares of 8 x 8 on a transparent canvas of 32 x 32."""
    pixels = torch.zeros(6, 4, 32, 32, dtype=torch.uint8)
    pixels[:, :, 12:20, 4:12] = torch.tensor([255, 128, 0, 255], dtype=torch.uint8).view(4, 1, 1)
    pixels[:, :3, 0, 0] = 99  # hidden colour of a transparent pixel
    return premultiplied(pixels)


def test_premultiplied(squares: Tensor) -> None:
    assert not squares[:, :, 0, 0].any()
    assert squares[0, :, 15, 6].tolist() == pytest.approx([1, 128 / 255, 0, 1])


def test_extent(squares: Tensor) -> None:
    centre, size = extent(squares)
    assert centre[0].tolist() == [-0.5, 0.0]
    assert size[0].tolist() == [0.25, 0.25]
    assert extent(torch.zeros(1, 4, 8, 8))[1].tolist() == [[1, 1]]


def test_placement_decides_the_size_of_the_drawing(squares: Tensor) -> None:
    placed = RandomPlacement(40, [0.5, 0.5], smallest=0.1)(squares, generator())
    centre, size = extent(placed)
    assert placed.shape == (6, 4, 40, 40)
    assert (size - 0.5).abs().max() <= 0.076  # a pixel and a half of blur
    assert len({tuple(row) for row in centre.tolist()}) == 6
    assert (centre.abs() + size).max() <= 1.11  # inside the canvas
    shown = placed[:, 3] > 0.99
    torch.testing.assert_close(placed[:, 1][shown], torch.full_like(placed[:, 1][shown], 128 / 255), atol=1e-5, rtol=0)


def test_placement_without_randomness_is_the_identity() -> None:
    images = premultiplied(torch.randint(0, 256, (3, 4, 20, 20), dtype=torch.uint8, generator=generator()))
    images[:, 3] = 1.0
    part = RandomPlacement(20, [1.0, 1.0])
    placed = part(images.clone(), generator())
    assert (extent(placed)[0].abs() <= 0.11).all()  # the room of 4 % that filled pictures have
    torch.testing.assert_close(part(images, generator(1)), part(images, generator(1)))
    grown = part(images[:, :3], generator(1))
    torch.testing.assert_close(grown, part(images, generator(1)))


def test_ground() -> None:
    clear = torch.zeros(2000, 4, 2, 2)
    out = FlatGround(0.5)(clear, generator())
    assert out.shape == (2000, 3, 2, 2)
    assert (out == out[:, :, :1, :1]).all()
    white = (out == 1).all((1, 2, 3)).float().mean()
    assert 0.46 < white < 0.54
    opaque = torch.rand(3, 3, 4, 4, generator=generator())
    assert FlatGround(0.0)(opaque, generator()) is opaque


def test_colour_jitter(squares: Tensor) -> None:
    still = ColourJitter(0.0, 0.1, 0.5, 0.3, 0.2, 0.1)(squares, generator())
    torch.testing.assert_close(still, squares)
    torch.testing.assert_close(ColourJitter(1.0)(squares, generator()), squares, atol=1e-6, rtol=0)
    changed = ColourJitter(1.0, 0.1, 0.5, 0.3, 0.2, 0.1)(squares, generator())
    assert (changed[:, :3] <= changed[:, 3:] + 1e-6).all()
    assert not changed[:, :, 0, 0].any()
    assert len({tuple(row) for row in changed[:, :3, 15, 6].tolist()}) == 6
    grey = ColourJitter(1.0, grey=1.0)(squares, generator())[:, :3, 15, 6]
    torch.testing.assert_close(grey, torch.full_like(grey, 0.299 + 0.587 * 128 / 255))
    half = ColourJitter(1.0, contrast=0.5)(squares[:, :3] * 0.5, generator(3))  # opaque: no alpha channel
    ratio = half[:, 0, 15, 6] / 0.5
    assert ratio.log().abs().max() <= 0.5 + 1e-5
    assert ratio.std() > 0.1


def test_hue_keeps_brightness() -> None:
    images = torch.full((50, 3, 1, 1), 0.5)
    images[:, 0] = 0.6
    turned = ColourJitter(1.0, hue=0.5)(images, generator())
    luma = (turned * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    torch.testing.assert_close(luma, torch.full_like(luma, 0.5299), atol=2e-3, rtol=0)
    assert turned[:, 2].std() > 0.02


def test_grey(squares: Tensor) -> None:
    out = RandomGrey(1.0)(squares.clone(), generator())
    assert (out[:, 0] == out[:, 2]).all()
    torch.testing.assert_close(out[:, 3], squares[:, 3])
    torch.testing.assert_close(RandomGrey(0.0)(squares.clone(), generator()), squares)


def test_edges(squares: Tensor) -> None:
    out = RandomEdges(1.0, fade=0.0)(squares.clone(), generator())
    assert out[0, :3, 12, 6].sum() < 0.2  # black line along the side
    torch.testing.assert_close(out[:, :, 15, 7], squares[:, :, 15, 7])  # inside as before
    torch.testing.assert_close(RandomEdges(0.0)(squares.clone(), generator()), squares)
    faded = RandomEdges(1.0)(squares.clone(), generator())
    assert (faded[:, 2, 15, 7] > 0).all()


def test_outline(squares: Tensor) -> None:
    out = RandomOutline(1.0, white=0.0)(squares.clone(), generator())
    assert extent(out)[1][0].tolist() == [10 / 32, 10 / 32]
    assert out[0, :, 11, 6].tolist() == [0, 0, 0, 1]
    assert RandomOutline(1.0, white=1.0)(squares.clone(), generator())[0, :, 11, 6].tolist() == [1, 1, 1, 1]
    opaque = squares[:, :3].clone()
    torch.testing.assert_close(RandomOutline(1.0)(opaque, generator()), squares[:, :3])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "random_grey", "probability": 1.5}, r"data\.augment\.probability is 1\.5; expected a probability"),
        ({"type": "random_outline", "probability": 0.5, "white": -1}, r"data\.augment\.white is -1"),
        ({"type": "colour_jitter", "probability": 0.5, "grey": 2}, r"data\.augment\.grey is 2"),
        ({"type": "random_placement", "size": 8, "scale": [1.0, 0.5]}, r"data\.augment\.scale is \[1\.0, 0\.5\]"),
        ({"type": "random_resized_crop", "size": 8, "ratio": [0, 1]}, r"ratio \[0, 1\]; expected numbers above 0"),
        ({"type": "picture_blur", "probability": 0.5, "radius": [2.0, 0.1]}, r"radius is \[2\.0, 0\.1\]"),
    ],
)
def test_settings_out_of_range_are_named(part: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(part)
