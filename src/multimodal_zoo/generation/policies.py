"""What may come at each step: free text, or a layout in which some ids are given and the others drawn from a slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids

#: Stands in `Step.forced` where an id is drawn.
FREE = -1


class Step(NamedTuple):
    """One step of every row.

    Attributes:
        forced: long (rows,), the id that must come, or `FREE`; None: every row draws.
        draws: whether any row draws.
    """

    forced: Tensor | None
    draws: bool


class Policy(Protocol):
    """What the loop asks at every step."""

    @property
    def limit(self) -> int:
        """Most steps."""
        ...

    @property
    def read(self) -> int:
        """Most tokens that the model has to read behind the prompt; ids that are given at the end are not read."""
        ...

    @property
    def rows(self) -> slice | None:
        """The ids that can be drawn, a range of the vocabulary; None for all."""
        ...

    @property
    def end(self) -> int | None:
        """The id that ends a row once it is drawn; None: rows end as the steps say."""
        ...

    @property
    def pad(self) -> int:
        """What comes behind the end of a row."""
        ...

    def at(self, step: int) -> Step:
        """What may come at a step, counted from 0."""
        ...

    def to(self, device: torch.device | str) -> Policy:
        """The same on another device."""
        ...


def allow(scores: Tensor, rows: slice | None, forced: Tensor | None) -> Tensor:
    """Scores of the whole vocabulary with -inf at what cannot come.

    Args:
        scores: (rows, vocab_size).
        rows: the ids that can be drawn; None for all.
        forced: as in `Step`.
    """
    allowed = torch.zeros_like(scores, dtype=torch.bool)
    allowed[:, slice(None) if rows is None else rows] = True
    if forced is not None:
        given = torch.zeros_like(allowed).scatter_(1, forced.clamp(min=0)[:, None], True)
        allowed = torch.where((forced == FREE)[:, None], allowed, given)
    return scores.masked_fill(~allowed, float("-inf"))


@dataclass(frozen=True)
class FreeText:
    """Any id, until one ends the row.

    Attributes:
        limit: most steps.
        end: the id that ends a row.
        pad: what comes behind it.
        rows: the ids that can be drawn; None for the whole vocabulary.
    """

    limit: int
    end: int | None
    pad: int
    rows: slice | None = None

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"max_new_tokens is {self.limit}; expected 1 or more")

    @property
    def read(self) -> int:
        """Most tokens that the model has to read behind the prompt: all but the last."""
        return self.limit - 1

    def at(self, step: int) -> Step:
        """Every row draws."""
        del step
        return Step(None, True)

    def to(self, device: torch.device | str) -> FreeText:
        """There is nothing to move."""
        del device
        return self


@dataclass(frozen=True, eq=False)
class Layout:
    """Steps that are known beforehand, for each row of the batch.

    Attributes:
        forced: long (rows, steps): the id that must come, or `FREE`; rows that end earlier are filled with `pad`.
        rows: the ids that can be drawn where it is free.
        pad: what comes behind the last step.
    """

    forced: Tensor
    rows: slice | None
    pad: int
    end: None = None

    @property
    def limit(self) -> int:
        """Number of steps."""
        return self.forced.shape[1]

    @cached_property
    def _draws(self) -> list[bool]:
        return (self.forced == FREE).any(0).tolist()

    @property
    def read(self) -> int:
        """Tokens that the model has to read behind the prompt: those before the last one that is drawn."""
        return max((step for step, draws in enumerate(self._draws) if draws), default=0)

    def at(self, step: int) -> Step:
        """What the layout says; padding behind its end."""
        if step >= self.limit:
            return Step(torch.full_like(self.forced[:, 0], self.pad), False)
        return Step(self.forced[:, step], self._draws[step])

    def to(self, device: torch.device | str) -> Layout:
        """The same on another device."""
        return replace(self, forced=self.forced.to(device))


def _stacked(rows: Sequence[Tensor], ids: Emu3Ids) -> Layout:
    longest = max(len(row) for row in rows)
    forced = torch.stack([F.pad(row, (0, longest - len(row)), value=ids.pad) for row in rows])
    return Layout(forced, ids.visual, ids.pad)


def _steps(ids: Emu3Ids, size: Sequence[int], given: Tensor | None) -> Tensor:
    """The steps of one picture (rows, columns) or clip (steps, rows, columns), long (tokens,)."""
    if len(size) not in (2, 3) or min(size) < 1:
        raise ValueError(f"a grid of {tuple(size)}; expected (rows, columns), or (steps, rows, columns) of a clip")
    # a picture is cut into its rows, each closed by a line end; a clip into its time steps
    parts, length = (size[0], size[1]) if len(size) == 2 else (size[0], size[1] * size[2])
    cells = torch.full((parts, length), FREE)
    if given is not None:
        _fill(cells, given, size, ids)
    if len(size) == 2:
        closing, ends = ids.end_of_line, [ids.end_of_frame, ids.image_end, ids.eos]
    else:
        closing, ends = ids.end_of_frame, [ids.image_end, ids.eos]
    return torch.cat([F.pad(cells, (0, 1), value=closing).flatten(), torch.tensor(ends)])


def _fill(cells: Tensor, given: Tensor, size: Sequence[int], ids: Emu3Ids) -> None:
    """Put given codes into the cells, the first rows or all of them, -1 where a code is still to be drawn."""
    given = torch.as_tensor(given).long().cpu()
    if given.dim() != len(size) or tuple(given.shape[1:]) != tuple(size[1:]) or given.shape[0] > size[0]:
        raise ValueError(f"given codes of shape {tuple(given.shape)} are no first rows of a grid of {tuple(size)}")
    if given.numel() and (given.min() < FREE or given.max() >= ids.codebook_size):
        raise ValueError(
            f"given codes run from {int(given.min())} to {int(given.max())}; expected 0 to {ids.codebook_size - 1}, "
            "or -1 for one to draw"
        )
    known = given.reshape(given.shape[0], -1)
    cells[: known.shape[0]] = torch.where(known == FREE, FREE, known + ids.visual_first)


def picture_layout(
    ids: Emu3Ids,
    grids: Sequence[Sequence[int]],
    *,
    given: Sequence[Tensor | None] | None = None,
    begun: Sequence[Tensor] | None = None,
) -> Layout:
    """Pictures in Emu3's published order: rows of visual tokens, a line end behind each, frame end, picture end, eos.

    Clips (three sizes) have UniVLA's order: visual tokens of each step, a frame end behind each, picture end, eos.

    Args:
        ids: which id means what.
        grids: (rows, columns) of each picture, or (steps, rows, columns) of each clip.
        given: codes that are not drawn: the first rows of each picture, or all with -1 where one is to be drawn; None
            for none.
        begun: ids that stand in each prompt behind its last image token; the steps go on behind them.

    Raises:
        ValueError: a grid of another form, codes that do not fit it, or a prompt that goes on in another way.
    """
    rows = []
    for number, size in enumerate(grids):
        steps = _steps(ids, size, None if given is None else given[number])
        done = torch.empty(0, dtype=torch.long) if begun is None else begun[number].cpu()
        if len(done) >= len(steps):
            raise ValueError(f"prompt {number} has {len(done)} ids behind its image token; {size} takes {len(steps)}")
        wanted = steps[: len(done)]
        wrong = torch.where(wanted == FREE, ~ids.is_visual(done), wanted != done).nonzero()
        if len(wrong):
            place = int(wrong[0])
            what = "a visual token" if wanted[place] == FREE else f"id {int(wanted[place])}"
            raise ValueError(
                f"prompt {number}: id {int(done[place])} stands at place {place} behind the image token, where a grid "
                f"of {tuple(size)} has {what}"
            )
        rows.append(steps[len(done) :])
    if not rows:
        raise ValueError("grids: expected one for each prompt, got none")
    return _stacked(rows, ids)


def behind_last(row: Tensor, token: int) -> Tensor:
    """What stands behind the last of some token in a prompt, long (n,).

    Args:
        row: ids of the prompt, without padding.
        token: the one looked for.

    Raises:
        ValueError: the prompt has no such token.
    """
    places = (row == token).nonzero()
    if not len(places):
        raise ValueError(f"the prompt has no image token (id {token}); a picture is drawn behind one")
    return row[int(places[-1]) + 1 :]
