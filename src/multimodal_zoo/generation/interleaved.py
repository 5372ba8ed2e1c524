"""Words and visual embeddings by turns: a model writes, imagines a picture where it opens one, and goes on writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from multimodal_zoo.generation.loop import Reader
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.regression import Imaginer
from multimodal_zoo.generation.sampling import Sampling, row_numbers, row_seeds


class Interleaver(Imaginer, Protocol):
    """What the loop needs of a model: `decoders.emu.Emu` is one."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of ids (batch, tokens), (batch, tokens, width)."""
        ...


@dataclass(frozen=True)
class PageLayout:
    """How words and pictures follow each other.

    Attributes:
        limit: most steps of a page: words, visual embeddings, and what closes pictures.
        opening: id that opens a picture when the model chooses it.
        closing: id that is read behind its last embedding.
        end: id that ends a page.
        places: embeddings of a picture.
        pictures: most of a page; a further one cannot be opened, nor one that has no room left.
        never: ids that are not words.

    Raises:
        ValueError: no steps, or a picture without embeddings.
    """

    limit: int
    opening: int
    closing: int
    end: int
    places: int
    pictures: int
    never: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.limit < 1 or self.places < 1 or self.pictures < 0:
            raise ValueError(
                f"a page of {self.limit} steps with {self.pictures} pictures of {self.places} embeddings; expected 1 "
                "step and 1 embedding or more, and no negative number of pictures"
            )


@dataclass(eq=False)
class WrittenPage:
    """What one row gave.

    Attributes:
        parts: long (n,) ids of words, without what opens, closes and ends; and float (places, visual_width) pictures.
        ended: whether the model ended it, and not the limit.
        steps: how many it took.
    """

    parts: list[Tensor] = field(default_factory=list)
    ended: bool = False
    steps: int = 0
    _words: list[int] = field(default_factory=list)
    _visual: list[Tensor] | None = None

    def may_open(self, layout: PageLayout) -> bool:
        """Whether a picture may be opened at this step."""
        pictures = sum(part.ndim == 2 for part in self.parts)
        return pictures < layout.pictures and self.steps + layout.places < layout.limit

    def take(self, word: int, visual: Tensor, layout: PageLayout) -> int | None:
        """Take what comes: the id that is read next, or None for the visual embedding.

        Args:
            word: the id chosen.
            visual: the embedding predicted, (visual_width,).
            layout: of the page.
        """
        if self.ended:
            return layout.end
        self.steps += 1
        if self._visual is None:
            return self._written(word, layout)
        if len(self._visual) < layout.places:
            self._visual.append(visual)
            return None
        self.close()
        return layout.closing

    def _written(self, word: int, layout: PageLayout) -> int:
        if word in (layout.opening, layout.end):
            self.close()
            self._visual = [] if word == layout.opening else None
            self.ended = word == layout.end
        else:
            self._words.append(word)
        return word

    def close(self) -> None:
        """Put the words or the picture that are under way among the parts."""
        if self._visual:
            self.parts.append(torch.stack(self._visual))
        if self._words:
            self.parts.append(torch.tensor(self._words))
        self._visual, self._words = None, []


@torch.no_grad()
def interleave(
    model: Interleaver,
    prompts: PromptBatch,
    layout: PageLayout,
    *,
    sampling: Sampling | None = None,
    seeds: Sequence[int] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[WrittenPage]:
    """Go on with words and pictures behind prompts; rows may be in words and in pictures at the same time.

    A model opens pictures by itself only where its training had the opening token as a target (`openings` of
    `learnt_elements`): the published losses of Emu and Emu2 leave it out.

    Args:
        model: in evaluation mode.
        prompts: embedded, (rows, tokens, width).
        layout: how words and pictures follow each other.
        sampling: how words are chosen; None takes the likeliest.
        seeds: one for each row; None for 0, 1, 2, ...
        on_step: called after every step with how many there are, and the limit.

    Raises:
        ValueError: more steps than the decoder has positions left, or seeds for another number of rows.
    """
    sampling, pages = sampling or Sampling(greedy=True), [WrittenPage() for _ in range(len(prompts))]
    dice = row_seeds(seeds, len(pages))
    reader = Reader(model.decoder, prompts, layout.limit - 1)
    numbers = None if sampling.greedy else row_numbers(dice, layout.limit, reader.state.device)
    for step in range(layout.limit):
        scores = _scores(model.decoder.head(reader.state), pages, layout)
        words = sampling.choose(scores, None if numbers is None else numbers[:, step], step).tolist()
        visual = model.regression_head(reader.state)
        taken = [page.take(word, seen, layout) for page, word, seen in zip(pages, words, visual, strict=True)]
        if on_step is not None:
            on_step(step + 1, layout.limit)
        if all(page.ended for page in pages) or step + 1 == layout.limit:
            break
        reader.read(_inputs(model, taken, visual, layout))
    for page in pages:
        page.close()
    return pages


def _scores(logits: Tensor, pages: Sequence[WrittenPage], layout: PageLayout) -> Tensor:
    """Logits (rows, vocab_size) with -inf at what is no word, and at pictures that may not be opened."""
    forbidden = torch.zeros_like(logits, dtype=torch.bool)
    forbidden[:, [layout.closing, *layout.never]] = True
    closed = [not page.may_open(layout) for page in pages]
    forbidden[:, layout.opening] = torch.tensor(closed, device=logits.device)
    return logits.float().masked_fill(forbidden, float("-inf"))


def _inputs(model: Interleaver, taken: Sequence[int | None], visual: Tensor, layout: PageLayout) -> Tensor:
    """What every row reads next, (rows, 1, width)."""
    ids = torch.tensor([layout.end if one is None else one for one in taken], device=visual.device)
    states = model.embed(ids[:, None])
    pictures = torch.tensor([one is None for one in taken], device=visual.device)
    return torch.where(pictures[:, None, None], model.project(visual)[:, None].to(states.dtype), states)
