"""The batch of models that learn to draw pictures from visual embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.nn.movable import moved, pinned


@dataclass
class DrawingBatch:
    """Pictures to draw, and what they are drawn from; row i of every field belongs to picture i.

    Seeds and prompts stay where they are when the batch goes to a device.

    Attributes:
        targets: (batch, 3, height, width), float, -1 to 1.
        framings: (batch, 6), long: height and width of the whole picture, top and left edge of the part that is drawn
            (in pixels of the resized picture), height and width of that part.
        seeds: (batch,), long: all that is drawn by chance for a picture depends on its seed alone.
        seen: the same parts as the image encoder reads them.
        keys: name of each picture in its data set.
        prompts: ids of the text of each picture up to what opens it, long (tokens,) each; empty where no model
            imagines the picture from a text.
        empty: ids of such a prompt without text; None as before.

    Raises:
        ValueError: the fields do not have the same number of rows.
    """

    to, pin_memory = moved, pinned

    stays: ClassVar[frozenset[str]] = frozenset({"seeds", "prompts", "empty"})

    targets: Tensor
    framings: Tensor
    seeds: Tensor
    seen: CountedImages
    keys: list[str]
    prompts: list[Tensor] = field(default_factory=list)
    empty: Tensor | None = None

    def __post_init__(self) -> None:
        rows = {name: len(getattr(self, name)) for name in ("targets", "framings", "seeds", "seen", "keys")}
        if self.prompts or self.empty is not None:
            rows["prompts"] = len(self.prompts)
        if len(set(rows.values())) != 1:
            raise ValueError(f"DrawingBatch needs as many rows in every field, not {rows}")

    def __len__(self) -> int:
        return len(self.targets)
