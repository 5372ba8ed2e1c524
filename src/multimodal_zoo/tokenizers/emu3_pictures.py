"""Pictures and clips as ids of Emu3's vocabulary, and back; built from arrays of codes, never through strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids


def as_codes(codes: Tensor | np.ndarray, ids: Emu3Ids, dimensions: int) -> Tensor:
    """Codes as a long tensor, checked.

    Args:
        codes: integers of the codebook.
        ids: says how many codes there are.
        dimensions: 2 for a picture (rows, columns), 3 for a clip (steps, rows, columns).

    Raises:
        ValueError: another shape, an empty one, or codes outside of the codebook.
    """
    found = torch.as_tensor(np.ascontiguousarray(codes) if isinstance(codes, np.ndarray) else codes).long()
    if found.ndim != dimensions or not found.numel():
        wanted = "(rows, columns)" if dimensions == 2 else "(steps, rows, columns)"
        raise ValueError(f"codes have shape {tuple(found.shape)}; expected {wanted}, none of them 0")
    lowest, highest = int(found.min()), int(found.max())
    if lowest < 0 or highest >= ids.codebook_size:
        raise ValueError(f"codes lie from {lowest} to {highest}; the codebook has 0 to {ids.codebook_size - 1}")
    return found


def picture_ids(codes: Tensor, size: Sequence[int], ids: Emu3Ids) -> Tensor:
    """A picture as ids: start, size, image token, rows of visual tokens with a line end behind each, frame end, end.

    Args:
        codes: long (rows, columns), of the codebook.
        size: ids of the text "rows*columns".
        ids: which id means what.

    Returns:
        long (tokens,).
    """
    rows = torch.nn.functional.pad(codes.cpu() + ids.visual_first, (0, 1), value=ids.end_of_line)
    before = torch.tensor([ids.image_start, *size, ids.image_token])
    return torch.cat([before, rows.flatten(), torch.tensor([ids.end_of_frame, ids.image_end])])


def clip_ids(codes: Tensor, size: Sequence[int], ids: Emu3Ids) -> Tensor:
    """A clip as ids in the layout of UniVLA (arXiv 2506.19850): no line ends, a frame end behind each step.

    Args:
        codes: long (steps, rows, columns), of the codebook.
        size: ids of the text "steps*rows*columns".
        ids: which id means what.

    Returns:
        long (tokens,).
    """
    steps = torch.nn.functional.pad(codes.cpu().flatten(1) + ids.visual_first, (0, 1), value=ids.end_of_frame)
    before = torch.tensor([ids.image_start, *size, ids.image_token])
    return torch.cat([before, steps.flatten(), torch.tensor([ids.image_end])])


def _runs(ids: Sequence[int], separator: int, known: Emu3Ids) -> Iterator[list[int]]:
    """Codes of the visual tokens between separators; stretches without any are left out."""
    run: list[int] = []
    for number in [*ids, separator]:
        if number == separator:
            if run:
                yield run
            run = []
        elif known.visual_first <= number < known.visual_first + known.codebook_size:
            run.append(number - known.visual_first)


def read_picture(inside: Sequence[int], known: Emu3Ids) -> Tensor | None:
    """The codes of a picture, long (rows, columns), from what stands between its start and its end.

    Returns:
        None without visual tokens.

    Raises:
        ValueError: rows of different lengths.
    """
    rows = list(_runs(inside, known.end_of_line, known))
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"a picture of {len(rows)} rows has rows of {', '.join(map(str, lengths))} visual tokens")
    return torch.tensor(rows) if rows else None


def read_clip(inside: Sequence[int], size: Sequence[int], known: Emu3Ids) -> Tensor | None:
    """The codes of a clip, long (steps, rows, columns), from what stands between its start and its end.

    Args:
        inside: ids.
        size: steps, rows and columns, as written before the image token.
        known: which id means what.

    Returns:
        None without visual tokens.

    Raises:
        ValueError: another number of steps or of tokens in one.
    """
    steps = list(_runs(inside, known.end_of_frame, known))
    if not steps:
        return None
    wanted, rows, columns = size
    lengths = sorted({len(step) for step in steps})
    if len(steps) != wanted or lengths != [rows * columns]:
        found = ", ".join(map(str, lengths))
        raise ValueError(
            f"a clip of {wanted} x {rows} x {columns} codes has {len(steps)} steps of {found} visual tokens"
        )
    return torch.tensor(steps).view(wanted, rows, columns)


def spans(ids: Sequence[int], known: Emu3Ids) -> Iterator[tuple[int, int]]:
    """Where the pictures and clips stand: places of their start and behind their end; unfinished ones are none."""
    start = None
    for place, number in enumerate(ids):
        if number == known.image_start and start is None:
            start = place
        elif number == known.image_end and start is not None:
            yield start, place + 1
            start = None
