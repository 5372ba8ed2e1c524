"""What detectors with anchors learn from: the objects of a batch, checked, and what their losses are divided by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.bev.boxes import HEIGHT, VX, WIDTH
from multimodal_zoo.bev.head_maps import HeadRows
from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.detection_batch import DetectionBatch

#: What losses are divided by: the count over all processes, or each process's own as in the published training.
NORMALISERS = ("all", "process")


class Objects(NamedTuple):
    """The objects of one sample that have a class.

    Attributes:
        boxes: (n, 7 or 9), float32 or float64, see `bev.boxes`.
        labels: long (n,).
        counted: (n, 7 or 9), 1, or 0 for numbers that are not known.
    """

    boxes: Tensor
    labels: Tensor
    counted: Tensor


def objects_of(batch: DetectionBatch, classes: int, numbers: int, legacy_nan_velocity: bool) -> list[Objects]:
    """The objects of each sample; those of label -1 are left out.

    Args:
        batch: boxes, labels and which velocities are known.
        classes: number of classes of the head.
        numbers: of a box of the head, 7 or 9.
        legacy_nan_velocity: count velocities that are not known, as the published training does.

    Raises:
        ValueError: numbers that are not finite, sizes that are not positive, labels that the head does not have, with
            the sample's key.
    """
    parts = zip(batch.keys, batch.boxes, batch.labels, batch.velocity_known, strict=True)
    return [
        sample_objects(key, boxes[:, :numbers], labels, known | legacy_nan_velocity, classes)
        for key, boxes, labels, known in parts
    ]


def sample_objects(key: str, boxes: Tensor, labels: Tensor, known: Tensor, classes: int) -> Objects:
    """The objects of one sample.

    Args:
        key: of the sample, for error messages.
        boxes: (n, 7 or 9), see `bev.boxes`.
        labels: long (n,); -1 for objects that do not count.
        known: bool (n,), False where the velocity must not count.
        classes: number of classes of the head.

    Raises:
        ValueError: as `objects_of`.
    """
    if len(boxes) and not bool((boxes.isfinite().all(1) & (boxes[:, WIDTH : HEIGHT + 1] > 0).all(1)).all()):
        raise ValueError(f"sample {key}: boxes need finite numbers and sizes above 0: {boxes.tolist()}")
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"sample {key}: labels {labels.tolist()}; the head has {classes} classes, -1 is for none")
    counted = torch.ones_like(boxes)
    counted[:, VX:] = known[:, None].to(counted.dtype)
    named = labels >= 0
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    return Objects(boxes[named], labels[named], counted[named].to(boxes.dtype))


def normaliser(count: Tensor, normalise: str) -> tuple[Tensor, int]:
    """The count that a sum over this process's samples is divided by, and what it is multiplied by.

    With "all" the mean over processes of the results is the loss of all samples in one process.

    Args:
        count: scalar, of this process.
        normalise: a name of `NORMALISERS`.
    """
    if normalise == "process":
        return count, 1
    return summed(count), world_size()


def check_normaliser(normalise: str) -> str:
    """The name, if it is one.

    Raises:
        ValueError: with the names there are.
    """
    if normalise not in NORMALISERS:
        raise ValueError(f"objective.normalise is {normalise!r}; it takes {', '.join(NORMALISERS)}")
    return normalise


def check_detector(model: nn.Module, name: str) -> None:
    """Refuse a model without an anchor head.

    Args:
        model: what trains.
        name: of the objective, for the message.

    Raises:
        ValueError: with what it lacks.
    """
    if not hasattr(getattr(model, "head", None), "anchors"):
        raise ValueError(
            f"objective {name} needs a detector with an anchor head, not {type(model).__name__}: choose "
            "model=fast_bev_tiny, say"
        )


def row_chunks(rows: int, columns: int, held: int) -> Iterator[slice]:
    """Ranges of rows of which a matrix holds about `held` numbers."""
    step = max(1, held // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def head_anchors(head: Any, size: Sequence[int], like: Tensor) -> Tensor:
    """The anchors `(n, 7 or 9)` of a head for a map of `size`, on the device and in the precision of a tensor."""
    return head.anchors.boxes((size[0], size[1]), like.device, like.dtype)


def precise_rows(rows: HeadRows) -> HeadRows:
    """Rows in float32 at least."""
    dtype = torch.promote_types(rows.boxes.dtype, torch.float32)
    directions = None if rows.directions is None else rows.directions.to(dtype)
    return HeadRows(rows.classes.to(dtype), rows.boxes.to(dtype), directions)


def sample_rows(rows: HeadRows, number: int) -> HeadRows:
    """Rows of one sample, without the batch's dimension."""
    directions = None if rows.directions is None else rows.directions[number]
    return HeadRows(rows.classes[number], rows.boxes[number], directions)
