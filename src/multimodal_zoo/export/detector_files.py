"""Files of a detector's graph: how each format is written and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from multimodal_zoo.export.detector import DetectorGraph
from multimodal_zoo.export.formats import LARGE, missing, quiet

#: What runs a file: tensors by name to results by name.
Runner = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def write_graph(graph: DetectorGraph, path: Path, format: str) -> None:
    """Write a graph of fixed sizes into one file (weights above 1 GiB go beside it).

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
        missing("onnx", "onnxscript")
        weights = sum(p.numel() * p.element_size() for p in graph.parameters())
        made = torch.onnx.export(program, dynamo=True, input_names=list(inputs), output_names=outputs, verbose=False)
        assert made is not None
        made.save(str(path), external_data=weights > LARGE)


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
        with quiet():
            module = torch.export.load(path).module()
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
    missing("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The session's results."""
        feed = {name: tensor.numpy() for name, tensor in given.items() if name in taken}
        return {name: torch.from_numpy(one) for name, one in zip(outputs, session.run(outputs, feed), strict=True)}

    return run
