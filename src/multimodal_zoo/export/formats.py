"""The formats of exported towers: how a file is written, and how it is run to check it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.export.towers import Tower
from multimodal_zoo.packages import needed

#: Bytes of weights above which an ONNX graph keeps them in a file of their own (protobuf ends at 2 GiB).
LARGE = 2**30
#: Sizes that a tower is traced with; 0 and 1 would be taken for constants.
TRACED = {"batch": 2, "tokens": 5}


class Format(NamedTuple):
    """One format.

    Attributes:
        suffix: of its files.
        write: the tower into a file.
        load: a function that runs such a file with a number of CPU threads.
        packages: whose versions matter.
    """

    suffix: str
    write: Callable[[Tower, Path], None]
    load: Callable[[Path, int], Callable[[Tensor], Tensor]]
    packages: tuple[str, ...]


def program_of(tower: Tower) -> torch.export.ExportedProgram:
    """The tower as a torch program whose named sizes stay open."""
    from torch.export import Dim

    dims = {
        name: Dim.DYNAMIC(min=1) if most is None else Dim(name, min=1, max=most) for name, most in tower.limits.items()
    }
    shapes = {place: dims[size] for place, size in enumerate(tower.shape) if isinstance(size, str)}
    sizes = {name: min(TRACED[name], most or TRACED[name]) for name, most in tower.limits.items()}
    with torch.no_grad(), quiet():
        return torch.export.export(tower.module, (tower.probe(sizes),), dynamic_shapes=(shapes,))


def _write_program(tower: Tower, path: Path) -> None:
    with quiet():
        torch.export.save(program_of(tower), path)


def load_program(path: Path) -> nn.Module:
    """A torch program from a file; it runs on torch's own threads."""
    with quiet():
        return torch.export.load(path).module()


def _load_program(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    del threads
    module = load_program(path)
    return lambda tensor: module(tensor)


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shape: Sequence[int | str] | None = None,
) -> None:
    """Write a program as an ONNX graph; weights above `LARGE` go beside it.

    Args:
        program: traced.
        path: of the file.
        inputs: names of what it takes, in order.
        outputs: names of what it gives, in order.
        shape: of the only input, open sizes by name, as users read them in the graph; None leaves the tracer's names.
    """
    missing("onnx", "onnxscript")
    weights = sum(p.numel() * p.element_size() for p in program.parameters())
    with torch.no_grad(), quiet():
        graph = torch.onnx.export(
            program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
        )
        assert graph is not None
        if shape is not None:
            from onnx_ir import Shape, SymbolicDim

            named = [SymbolicDim(size) if isinstance(size, str) else size for size in shape]
            graph.model.graph.inputs[0].shape = Shape(named)
        graph.save(str(path), external_data=weights > LARGE)


def _write_onnx(tower: Tower, path: Path) -> None:
    write_onnx(program_of(tower), path, [tower.input], [tower.output], tower.shape)


def onnx_session(path: Path, threads: int) -> Any:
    """An onnxruntime session of a file on the CPU.

    Args:
        path: of the file.
        threads: of onnxruntime.
    """
    missing("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _load_onnx(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    session = onnx_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda tensor: torch.from_numpy(session.run(None, {name: tensor.numpy()})[0])


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", _write_onnx, _load_onnx, ("torch", "onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format(".pt2", _write_program, _load_program, ("torch",)),
}


def missing(*packages: str) -> None:
    """Make sure that packages are installed.

    Raises:
        ModuleNotFoundError: one is not, with what to install.
    """
    for package in packages:
        needed(package, "format=onnx", "export", "choose format=torch_export")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own chatter; a failure still raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
