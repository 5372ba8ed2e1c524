"""What a diffusion network is told beside the visual embeddings that it attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from multimodal_zoo.registry import DECODERS


@dataclass(frozen=True)
class Framing:
    """What of which picture is drawn.

    Attributes:
        original: height and width of the whole picture, in pixels.
        crop: top and left edge of the part that is drawn.
        size: height and width of this part.
    """

    original: tuple[int, int]
    crop: tuple[int, int]
    size: tuple[int, int]

    @property
    def numbers(self) -> list[int]:
        """The six numbers in the order of SDXL (arXiv 2307.01952, section 2.2)."""
        return [*self.original, *self.crop, *self.size]


class Conditioning(Protocol):
    """Further conditions of a diffusion network."""

    def check(self, unet: nn.Module) -> None:
        """Refuse a network that takes other conditions."""
        ...

    def added(self, condition: Tensor, numbers: Tensor) -> dict[str, Tensor] | None:
        """What the network gets beside embeddings (rows, tokens, width) of framings (rows, 6); None for nothing."""
        ...


@DECODERS.register_module(name="embeddings_alone")
class EmbeddingsAlone:
    """Nothing more: Emu, Stable Diffusion 1."""

    def check(self, unet: nn.Module) -> None:
        """Refuse a network that takes more.

        Raises:
            ValueError: with the key to change.
        """
        _check(unet, None, "sized_pictures")

    def added(self, condition: Tensor, numbers: Tensor) -> dict[str, Tensor] | None:
        """Nothing, see `Conditioning`."""
        del condition, numbers
        return None


@DECODERS.register_module(name="sized_pictures")
class SizedPictures:
    """The mean of the embeddings, and which part of a picture of which size is drawn: Emu2-Gen, SDXL."""

    def check(self, unet: nn.Module) -> None:
        """Refuse a network that does not take these.

        Raises:
            ValueError: with the key to change.
        """
        _check(unet, "text_time", "embeddings_alone")

    def added(self, condition: Tensor, numbers: Tensor) -> dict[str, Tensor] | None:
        """`text_embeds` (rows, width) and `time_ids` (rows, 6), see `Conditioning`.

        The numbers stay float32: bfloat16 has no 683.
        """
        return {"text_embeds": condition.mean(1), "time_ids": numbers.to(condition.device, torch.float32)}


def _check(unet: Any, wanted: str | None, instead: str) -> None:
    found = unet.config.addition_embed_type
    if found != wanted:
        raise ValueError(
            f"visual_decoder.unet.config.addition_embed_type is {found!r}, visual_decoder.conditioning goes with "
            f"{wanted!r}: set conditioning.type={instead}"
        )


def rows_of(framing: Framing, rows: int, device: torch.device) -> Tensor:
    """One framing for several rows, long (rows, 6)."""
    return torch.tensor(framing.numbers, device=device).expand(rows, -1)
