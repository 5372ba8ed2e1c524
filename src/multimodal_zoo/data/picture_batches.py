"""Samples with pictures to batches: each in a row of its own, or several in a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_zoo.data.picture_sequences import PictureSample, restored
from multimodal_zoo.data.token_batches import joined_rows, rows_batch
from multimodal_zoo.data.token_loader import SampleKind
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.patch_cells import joined
from multimodal_zoo.objectives.batch import PictureTokenBatch


def picture_rows_batch(
    rows: Sequence[Sequence[PictureSample]], pad_id: int, length: int | None = None
) -> PictureTokenBatch:
    """A batch of rows, each of some samples one behind the other, filled up on the right.

    Rows without a picture need none in its place.

    Args:
        rows: the samples of each row.
        pad_id: stands at padding.
        length: tokens of every row; None: of the longest.

    Raises:
        ValueError: no row, one that is longer than `length`, or a teacher's view of some pictures only.
    """
    samples = [sample for row in rows for sample in row]
    tokens = rows_batch(rows, pad_id, length)
    vision = joined_rows([[sample.vision for sample in row] for row in rows], tokens.ids.shape[1], 0, torch.bool)
    cells = [sample.cells for sample in samples if sample.cells is not None]
    teacher, boxes = _seen(samples)
    rest = (vision, joined(cells) if cells else None, teacher, boxes)
    return PictureTokenBatch(tokens.ids, tokens.weights, tokens.documents, tokens.positions, tokens.keys, *rest)


def _seen(samples: Sequence[PictureSample]) -> tuple[Tensor | None, list[Box]]:
    shown = [sample for sample in samples if sample.cells is not None]
    seen = [sample.teacher for sample in shown if sample.teacher is not None]
    if not seen:
        return None, []
    if len(seen) != len(shown):
        raise ValueError(f"{len(seen)} of {len(shown)} samples with pictures have a teacher's view; all must, or none")
    return torch.cat(seen), [box for sample in shown for box in sample.boxes]


#: Samples of ids and pictures.
PICTURES = SampleKind(picture_rows_batch, restored)
