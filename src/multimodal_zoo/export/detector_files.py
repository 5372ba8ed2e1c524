"""Files of a detector's graph: how each format is written and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from multimodal_zoo.export.detector import DetectorGraph
from multimodal_zoo.export.formats import load_program, onnx_session, quiet, write_onnx

#: What runs a file: tensors by name to results by name.
Runner = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def write_graph(graph: DetectorGraph, path: Path, format: str) -> None:
    """Write a graph of fixed sizes into one file (large weights of an ONNX graph go beside it).

    Args:
        graph: in evaluation mode, on the CPU.
        path: of the file.
        format: `onnx`, or `torch_export`.
    """
    inputs, outputs = graph.inputs(), graph.outputs()
    with torch.no_grad(), quiet():
        program = torch.export.export(graph, tuple(inputs.values()))
        if format == "torch_export":
            torch.export.save(program, path)
            return
    write_onnx(program, path, list(inputs), outputs)


def load_graph(path: Path, graph: DetectorGraph, format: str, threads: int) -> Runner:
    """A function that runs a file.

    Args:
        path: of the file.
        graph: gives the names.
        format: of the file.
        threads: of onnxruntime; a torch program runs on torch's own.
    """
    outputs = graph.outputs()
    if format == "torch_export":
        module = load_program(path)
        names = list(graph.inputs())

        def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            """The program's results."""
            with torch.no_grad():
                return dict(zip(outputs, module(*(given[name] for name in names)), strict=True))

        return run
    return onnx_runner(path, outputs, threads)


def onnx_runner(path: Path, outputs: list[str], threads: int) -> Runner:
    """A function that runs an ONNX file on the CPU.

    Args:
        path: of the file.
        outputs: names of its results, in order.
        threads: of onnxruntime.
    """
    session = onnx_session(path, threads)
    taken = {one.name for one in session.get_inputs()}

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The session's results."""
        feed = {name: tensor.numpy() for name, tensor in given.items() if name in taken}
        return {name: torch.from_numpy(one) for name, one in zip(outputs, session.run(outputs, feed), strict=True)}

    return run
