"""From ids with a placeholder for each picture to rows in which pictures stand with all their tokens (LLaVA, EVE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: The id that stands for a picture in published files; none of a vocabulary.
PLACEHOLDER = -200


@dataclass(frozen=True, eq=False)
class PictureRow:
    """One row, pictures' tokens counted.

    Attributes:
        ids: long (tokens,); 0 at tokens of pictures.
        vision: bool (tokens,), where tokens of pictures stand.
        source: long (tokens,), the place in the short row that each token came from: labels and masks follow by it.
        kept: how many tokens of each picture the row holds.
    """

    ids: Tensor
    vision: Tensor
    source: Tensor
    kept: tuple[int, ...]

    def follow(self, values: Tensor, at_pictures: float) -> Tensor:
        """Values (ids,) of the short row, at every token of this one.

        Args:
            values: labels, a mask, ...
            at_pictures: stands at tokens of pictures.
        """
        return values[self.source].masked_fill(self.vision, at_pictures)


def expanded(
    ids: Tensor, tokens: Sequence[int], placeholder: int = PLACEHOLDER, limit: int | None = None
) -> PictureRow:
    """Put pictures in the places of their placeholders.

    Args:
        ids: long (ids,), without padding.
        tokens: of each picture, in the order of the placeholders.
        placeholder: the id of a picture.
        limit: most tokens of the row, the rest is cut off, pictures too; None for no limit.

    Raises:
        ValueError: another number of placeholders than of pictures, with both.
    """
    places = ids == placeholder
    if int(places.sum()) != len(tokens):
        raise ValueError(f"{int(places.sum())} placeholders for {len(tokens)} pictures: each picture needs one")
    counts = torch.ones_like(ids)
    counts[places] = torch.tensor(tokens, dtype=ids.dtype)
    source = torch.repeat_interleave(torch.arange(len(ids)), counts)[:limit]
    held = torch.bincount(source, minlength=len(ids))
    vision = places[source]
    return PictureRow(ids[source].masked_fill(vision, 0), vision, source, tuple(held[places].tolist()))


def shown(rows: Sequence[Tensor], pictures: int, placeholder: int = PLACEHOLDER) -> list[list[int]]:
    """Which pictures of a published batch's list each row shows.

    The list goes by the rows; a row without placeholder has a blank picture there, which is passed over.

    Args:
        rows: long (ids,), without padding.
        pictures: how many there are in the list.
        placeholder: the id of a picture.

    Raises:
        ValueError: a list of another length than the rows need.
    """
    found, start = [], 0
    for row in rows:
        count = int((row == placeholder).sum())
        found.append(list(range(start, start + count)))
        start += max(count, 1)
    if start != pictures:
        raise ValueError(f"{len(rows)} rows need {start} pictures, blank ones counted, and there are {pictures}")
    return found
