"""What encoders return: always the same named tuples, whatever the architecture."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ImageFeatures(NamedTuple):
    """What an image encoder gives.

    Attributes:
        pooled: one vector per image, `(batch, width)`, before any projection.
        tokens: the patches of the last layer, row by row, `(batch, tokens, width)`, without class token or final norm.
        grid: rows and columns of patches; `tokens == rows * columns` except while patch dropout is active.
    """

    pooled: Tensor
    tokens: Tensor
    grid: tuple[int, int]


class TextFeatures(NamedTuple):
    """What a text encoder gives.

    Attributes:
        pooled: one vector per text, `(batch, width)`, before any projection.
        tokens: the last layer at every position, `(batch, tokens, width)`.
        mask: `(batch, tokens)` bool, True at real tokens and False at padding.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor


class Embeddings(NamedTuple):
    """What a dual encoder gives.

    Attributes:
        image: L2-normalised `(batch, embed_dim)`.
        text: L2-normalised `(batch, embed_dim)`.
        logit_scale: scalar, the inverse temperature itself (already exponentiated).
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
