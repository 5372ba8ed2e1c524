"""Visual embeddings one after another: each prediction is read as the next input, over a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from multimodal_zoo.generation.loop import Decoder, Reader
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.undisturbed import undisturbed


class Imaginer(Protocol):
    """What the loop needs of a model: `decoders.emu.Emu` is one."""

    decoder: Decoder

    def regression_head(self, hidden: Tensor) -> Tensor:
        """The next visual embedding of states (rows, width), (rows, visual_width)."""
        ...

    def project(self, visual: Tensor) -> Tensor:
        """A visual embedding as the decoder reads it."""
        ...


def imagine(
    model: Imaginer, prompts: PromptBatch, count: int, on_embedding: Callable[[int, int], None] | None = None
) -> Tensor:
    """Visual embeddings behind prompts that end with what opens a picture, `(rows, count, visual_width)`.

    Every row comes out as it would alone. Each step reads one embedding; states of earlier ones stay in the cache, and
    those of inner layers are not kept.

    Args:
        model: in evaluation mode.
        prompts: embedded, (rows, tokens, width).
        count: embeddings of each row.
        on_embedding: called after every step with how many there are, and `count`.

    Raises:
        ValueError: no embedding asked for, or more tokens than the decoder has positions.
    """
    if count < 1:
        raise ValueError(f"{count} visual embeddings asked for; expected 1 or more")
    found: list[Tensor] = []
    with undisturbed(model.decoder):
        reader = Reader(model.decoder, prompts, count - 1)
        for step in range(count):
            if step:
                reader.read(model.project(found[-1])[:, None])
            found.append(model.regression_head(reader.state))
            if on_embedding is not None:
                on_embedding(step + 1, count)
        whole = torch.stack(found, dim=1)
    return whole.clone()
