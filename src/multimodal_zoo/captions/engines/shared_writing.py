"""Continuations over one cache that is filled in place: what prompts begin with is read once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.continuing import Beginnings, continue_greedily
from multimodal_zoo.captions.engines.continuing_beams import BeamRules, continue_by_beams
from multimodal_zoo.generation.undisturbed import undisturbed


class SharedWriting:
    """Writes behind prompts, batch by batch.

    Args:
        decoder: a `generation.loop.Decoder` in evaluation mode: a `CausalDecoder`, or a `TransformersDecoder`.
        beams: 1 for the likeliest token at every step, or how many are searched.
        length_penalty: of the search.

    Attributes:
        beginnings: what prompts began with so far.
    """

    def __init__(self, decoder: Any, beams: int = 1, length_penalty: float = 1.0) -> None:
        self.decoder, self.beginnings = decoder, Beginnings(decoder)
        self.rules = BeamRules(beams, length_penalty) if beams > 1 else None

    def __call__(
        self, rows: Sequence[list[int]], ending: Ending, seeds: Sequence[int] | None = None
    ) -> list[Continuation]:
        """A continuation of each prompt.

        Args:
            rows: the prompts.
            ending: when a continuation is over.
            seeds: for each row, what its tokens are drawn by, instead of searched for; None searches for all.

        Raises:
            ValueError: more tokens than the decoder has positions, or an empty prompt.
            TimeoutError: `ending.deadline` is over.
        """
        with _still(self.decoder):
            if self.rules is None or seeds is not None:
                return continue_greedily(self.decoder, rows, ending, self.beginnings, seeds)
            return continue_by_beams(self.decoder, rows, ending, self.rules, self.beginnings)


@contextmanager
def _still(decoder: Any) -> Iterator[None]:
    """No gradients, and no bookkeeping where it can be left out: for a decoder always in the same way."""
    if isinstance(decoder, nn.Module):
        with undisturbed(decoder):
            yield
    else:
        with torch.inference_mode():
            yield
