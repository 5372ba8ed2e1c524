"""Convolutions of an exported detector in 8 bits, with what that changes (onnxruntime's static quantisation)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.export.formats import missing

#: Part of the names of weights that stay in float: those of the head, whose results are boxes and scores.
KEPT = ".head."
#: Metres between the centres of an object found in float and the same found in 8 bits.
NEAR = 0.5


def quantise(source: Path, target: Path, samples: Sequence[Mapping[str, Tensor]]) -> None:
    """Write a graph again with its convolutions in 8 bits: weights per channel, activations by observed ranges.

    The head, the view transform and everything between convolutions stay in float.

    Args:
        source: an ONNX file.
        target: the file to write.
        samples: inputs by name whose values set the ranges; the more like real ones the better.

    Raises:
        ValueError: no sample.
        ModuleNotFoundError: onnx or onnxruntime is missing.
    """
    if not samples:
        raise ValueError("int8: no sample to take ranges from; name calibration files of recorded scenes")
    missing("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    nodes = onnx.load(str(source), load_external_data=False).graph.node
    kept = [node.name for node in nodes if node.op_type == "Conv" and KEPT in node.input[1]]
    with _without_advice():
        quantize_static(
            str(source),
            str(target),
            _reader(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _reader(samples: Sequence[Mapping[str, Tensor]]) -> Any:
    """What onnxruntime asks for one sample after the other."""
    from onnxruntime.quantization import CalibrationDataReader

    class Samples(CalibrationDataReader):
        """The samples in order, once."""

        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            """The next sample's arrays; None behind the last."""
            given = next(self.left, None)
            return None if given is None else {name: tensor.numpy() for name, tensor in given.items()}

    return Samples()


def drift(model: FastBEV, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Any]:
    """What 8 bits change in one sample.

    Args:
        model: gives the choice of objects.
        found: results in 8 bits.
        expected: results in float.

    Returns:
        mean and largest differences of box centres (metres) and of scores; how many objects the float results have,
        and the share of them that is found again, of the same class within `NEAR` metres.
    """
    centres = (found["boxes"] - expected["boxes"])[:, :3].norm(dim=1)
    scores = (found["scores"] - expected["scores"]).abs()
    objects, again = _objects(model, expected), _objects(model, found)
    share = None
    if len(objects):
        near = torch.cdist(objects[:, :2], again[:, :2]) <= NEAR
        same = objects[:, None, 2] == again[None, :, 2]
        share = float((near & same).any(1).float().mean())
    return {
        "centre_mean": float(centres.mean()),
        "centre_largest": float(centres.max()),
        "score_mean": float(scores.mean()),
        "score_largest": float(scores.max()),
        "objects": len(objects),
        "found_again": share,
    }


def _objects(model: FastBEV, answer: Mapping[str, Tensor]) -> Tensor:
    """Centre x, y and label of each object, (n, 3)."""
    boxes, scores = answer["boxes"], answer["scores"]
    best = scores.amax(1).topk(min(len(scores), model.head.selection.candidates or len(scores))).indices
    rows, labels = model.head.selection.chosen(boxes[best], scores[best])
    return torch.cat((boxes[best][rows, :2], labels[:, None].to(boxes)), dim=1)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without the quantiser's hint to prepare the graph first, which the exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
