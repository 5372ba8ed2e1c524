"""Pictures for a model that reads each as a number of embeddings that the caller chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_zoo.nn.movable import moved, pinned


@dataclass(frozen=True, eq=False)
class CountedImages:
    """Pictures of one size, and into how many embeddings each of them goes.

    Attributes:
        pixels: float (images, 3, height, width), normalised.
        counts: embeddings of each picture; frames of clips often take fewer than single pictures.

    Raises:
        ValueError: pixels of another shape, or another number of counts.
    """

    to, pin_memory = moved, pinned

    pixels: Tensor
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 3 or len(self.pixels) != len(self.counts):
            raise ValueError(
                f"CountedImages need pixels (images, 3, height, width) and a count for each, not "
                f"{tuple(self.pixels.shape)} and {len(self.counts)} counts"
            )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.counts)

    @property
    def tokens(self) -> int:
        """Embeddings of all pictures together."""
        return sum(self.counts)


def joined_images(parts: Sequence[CountedImages]) -> CountedImages:
    """Pictures of several samples as one, in order.

    Raises:
        ValueError: none at all.
    """
    if not parts:
        raise ValueError("there are no pictures to join")
    return CountedImages(torch.cat([one.pixels for one in parts]), tuple(n for one in parts for n in one.counts))
