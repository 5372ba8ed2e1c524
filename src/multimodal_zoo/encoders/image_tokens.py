"""All tokens of an image encoder's last layer, whatever the encoder: what connectors read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from multimodal_zoo.encoders.pooling import ClassTokenPool
from multimodal_zoo.nn.norms import Identity


class ImageTokens(NamedTuple):
    """What an image encoder gives a connector.

    Attributes:
        tokens: `(images, prefix + rows * columns, width)`, no norm behind the last layer.
        grid: rows and columns of patches.
        prefix: number of tokens in front of the patches (class token).
    """

    tokens: Tensor
    grid: tuple[int, int]
    prefix: int

    @property
    def patches(self) -> Tensor:
        """The patches as a grid, `(images, width, rows, columns)`."""
        return self.tokens[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)


def token_width(encoder: nn.Module) -> int:
    """Width of an image encoder's tokens, which is that of its pooled features unless it says otherwise.

    Raises:
        ValueError: it gives none.
    """
    width = getattr(encoder, "token_width", encoder.width)
    if width is None:
        raise ValueError(f"{type(encoder).__name__} gives no tokens; choose another image encoder")
    return int(width)


def image_tokens(encoder: nn.Module, images: Tensor) -> ImageTokens:
    """Tokens of images `(images, 3, height, width)`.

    A vision transformer of this library gives its class token too; other encoders give their patches.
    """
    if hasattr(encoder, "embed") and hasattr(encoder, "prefix_length"):
        tokens, rotation, grid = encoder.embed(images)
        return ImageTokens(encoder.blocks(tokens, rotation=rotation), grid, encoder.prefix_length)
    features = encoder(images)
    return ImageTokens(features.tokens, features.grid, 0)


def unpooled(encoder: nn.Module) -> nn.Module:
    """An image encoder whose tokens alone are read: the norm in front of its pooled vector goes, its weights too.

    Weights that no gradient reaches would stop processes that train together. Encoders of other libraries stay whole.
    """
    if hasattr(encoder, "pool") and hasattr(encoder, "prefix_length"):
        encoder.pool = ClassTokenPool(Identity())
    return encoder
