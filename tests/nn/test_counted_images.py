"""Pictures with the number of embeddings of each: joining, moving, bad input."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.nn.counted_images import CountedImages, joined_images


def images(*counts: int, side: int = 4) -> CountedImages:
    return CountedImages(torch.randn(len(counts), 3, side, side), counts)


def test_joining_keeps_the_order() -> None:
    parts = [images(4), images(1, 1, 4), images(16)]
    found = joined_images(parts)
    assert found.counts == (4, 1, 1, 4, 16)
    assert (len(found), found.tokens) == (5, 26)
    assert torch.equal(found.pixels, torch.cat([one.pixels for one in parts]))
    assert joined_images(parts[:1]).counts == (4,)
    with pytest.raises(ValueError, match="no pictures to join"):
        joined_images([])


def test_moving_to_another_device() -> None:
    found = images(2, 3).to("meta")
    assert found.pixels.is_meta
    assert found.counts == (2, 3)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 4, 4), (3, 3, 4, 4)])
def test_pixels_and_counts_must_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need pixels \(images, 3, height, width\) and a count for each.* 2 counts"):
        CountedImages(torch.zeros(shape), (1, 1))
