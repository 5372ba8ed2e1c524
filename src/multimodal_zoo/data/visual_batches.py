"""Samples of words and visual embeddings to batches: each in a row of its own, or several in a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from multimodal_zoo.data.token_batches import joined_rows, rows_batch
from multimodal_zoo.data.token_loader import SampleKind
from multimodal_zoo.data.visual_sequences import VisualSample, restored
from multimodal_zoo.nn.counted_images import joined_images
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch


def visual_rows_batch(
    rows: Sequence[Sequence[VisualSample]], pad_id: int, length: int | None = None
) -> VisualTokenBatch:
    """A batch of rows, each of some samples one behind the other, filled up on the right.

    Args:
        rows: the samples of each row.
        pad_id: stands at padding.
        length: tokens of every row; None: of the longest.

    Raises:
        ValueError: no row, or one that is longer than `length`.
    """
    tokens = rows_batch(rows, pad_id, length)
    width = tokens.ids.shape[1]
    vision = joined_rows([[sample.vision for sample in row] for row in rows], width, 0, torch.bool)
    regression = joined_rows([[sample.regression for sample in row] for row in rows], width, 0, torch.float32)
    samples = [sample for row in rows for sample in row]
    images = [sample.images for sample in samples if sample.images is not None]
    visual = [sample.visual for sample in samples if sample.visual is not None]
    return VisualTokenBatch(
        tokens.ids,
        tokens.weights,
        tokens.documents,
        tokens.positions,
        tokens.keys,
        vision,
        regression,
        joined_images(images) if images else None,
        torch.cat(visual) if visual else None,
    )


#: Samples of words and visual embeddings.
VISUALS = SampleKind(visual_rows_batch, restored)
