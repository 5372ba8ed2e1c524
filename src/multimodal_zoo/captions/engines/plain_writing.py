"""Continuations by transformers' own `generate`, for models whose past is no plain cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.captions.engines.continuation import Continuation, Ending


class PlainWriting:
    """Writes behind batches padded on the left, nothing shared.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        pad: what fills shorter rows.
        beams: 1, or how many are searched.
        length_penalty: of the search.
    """

    def __init__(self, model: Any, pad: int, beams: int = 1, length_penalty: float = 1.0) -> None:
        self.model, self.pad, self.beams, self.length_penalty = model, pad, beams, length_penalty

    def __call__(
        self, rows: Sequence[list[int]], ending: Ending, seeds: Sequence[int] | None = None
    ) -> list[Continuation]:
        """A continuation of each prompt.

        Args:
            rows: the prompts.
            ending: when a continuation is over.
            seeds: not used: a row that is asked again gets the same answer.

        Raises:
            TimeoutError: `ending.deadline` is over.
        """
        from transformers import GenerationConfig, StoppingCriteriaList

        del seeds
        tokens, device = max(map(len, rows)), self.model.device
        ids = torch.tensor([[self.pad] * (tokens - len(row)) + row for row in rows], device=device)
        real = torch.tensor([[0] * (tokens - len(row)) + [1] * len(row) for row in rows], device=device)
        ends = list(ending.ends)
        settings = GenerationConfig(
            max_new_tokens=ending.limit,
            num_beams=self.beams,
            length_penalty=self.length_penalty,
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=self.pad,
        )

        def over(found: Tensor, scores: Any, **_: Any) -> Tensor:
            """Whether each row is over by what it says."""
            ending.check_time()
            says = [ending.stops is not None and ending.stops(row[tokens:].tolist()) for row in found]
            return torch.tensor(says, device=found.device)

        written = self.model.generate(
            input_ids=ids,
            attention_mask=real,
            generation_config=settings,
            stopping_criteria=StoppingCriteriaList([over]),
        )
        return [self._continuation(row[tokens:].tolist(), ending) for row in written]

    def _continuation(self, ids: list[int], ending: Ending) -> Continuation:
        kept: list[int] = []
        ended = any(ending.over(token, kept) for token in ids)  # up to the first one that ends it
        return Continuation(kept, ended)
