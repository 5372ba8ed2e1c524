"""Block-wise masks: counts, blocks, and randomness that is a pure function."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.data.masking import BlockwiseMasking
from multimodal_zoo.data.randomness import python_random


def test_masks_of_the_published_size() -> None:
    masking = BlockwiseMasking([16, 16], most=105)
    counts = torch.tensor([int(masking(python_random(0, i)).sum()) for i in range(300)])
    assert counts.max() <= 105
    assert counts.float().mean() > 95, "a few patches may stay visible, not many"
    share = torch.stack([masking(python_random(1, i)) for i in range(300)]).float().mean(0)
    assert share.min() > 0, "every patch is hidden now and then"


def test_masks_are_made_of_blocks() -> None:
    mask = BlockwiseMasking([16, 16], most=16)(python_random(3)).view(16, 16)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert int(mask.sum()) == len(rows) * len(columns), "one rectangle"
    assert len(rows) == int(rows[-1] - rows[0]) + 1


@pytest.mark.parametrize(
    ("grid", "most", "smallest"), [((6, 6), 15, 4), ((4, 7), 9, 2), ((2, 2), 1, 1), ((24, 24), 300, 16)]
)
def test_any_grid(grid, most, smallest) -> None:
    masking = BlockwiseMasking(grid, most, smallest)
    masks = torch.stack([masking(python_random(5, i)) for i in range(50)])
    assert masks.shape == (50, grid[0] * grid[1])
    assert 0 < int(masks.sum(1).max()) <= most


def test_equal_random_numbers_give_equal_masks() -> None:
    masking = BlockwiseMasking([6, 6], 15, 4)
    assert torch.equal(masking(python_random(0, 1, 2)), masking(python_random(0, 1, 2)))
    assert not torch.equal(masking(python_random(0, 1, 2)), masking(python_random(0, 1, 3)))
    assert not BlockwiseMasking([6, 6], 0)(python_random(0)).any(), "nothing to hide"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": [4, 4], "most": 16}, "most is 16 of a grid of 4x4"),
        ({"grid": [1, 9], "most": 2}, "at least two rows"),
        ({"grid": [4, 4], "most": 8, "smallest": 9}, "smallest is 9"),
        ({"grid": [4, 4], "most": 8, "smallest": 0}, "smallest is 0"),
        ({"grid": [4, 4], "most": 8, "smallest": 2, "aspect": 1.5}, "aspect 1.5"),
    ],
)
def test_impossible_masks_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        BlockwiseMasking(**arguments)
