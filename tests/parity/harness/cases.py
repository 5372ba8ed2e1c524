"""Golden cases on disk: what a published implementation computed, and the weights that it computed it with."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

T = TypeVar("T")

#: Fields that every case may have; any other must be known to its system.
CASE_FIELDS = {"system", "what", "reference", "config", "manifest", "fixed", "calls", "pitfalls", "parameters", "note"}
#: Fields that every call may have.
CALL_FIELDS = {"method", "inputs", "outputs", "atol", "rtol", "note"}


def seeded(key: str, shape: Sequence[int]) -> Tensor:
    """The tensor that the goldens' rule gives for a checkpoint key: PCG64 seeded with the key's crc32."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    drawn = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
    x = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    if leaf == "running_var":
        return 1 + 0.1 * x.abs()
    if len(shape) >= 2:
        return x / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.02 * x if leaf in ("weight", "gamma") else 0.02 * x


@dataclass(frozen=True)
class Call:
    """One computation of the reference.

    Attributes:
        method: in the reference's words; decides which handler runs.
        inputs: names of tensors that it got.
        outputs: names of what it gave.
        atol: how far a value may be off.
        rtol: how far it may be off relative to its size.
        note: what the outputs are.
        extra: further fields.
    """

    method: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    atol: float = 0.0
    rtol: float = 0.0
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Case:
    """A case folder; tensors and weights are read when they are asked for.

    Args:
        folder: holds `case.json` and, for most cases, `io.safetensors`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"{folder.parent.name}/{folder.name}"
        self._built: dict[str, Any] = {}

    @cached_property
    def fields(self) -> dict[str, Any]:
        """All of `case.json`."""
        return json.loads((self.folder / "case.json").read_text())

    @property
    def system(self) -> str:
        """Which module of `systems` understands it."""
        return self.fields["system"]

    @property
    def config(self) -> dict[str, Any]:
        """The reference's configuration, in its own names."""
        return self.fields["config"]

    @property
    def manifest(self) -> dict[str, list[int]]:
        """Checkpoint key -> shape."""
        return self.fields.get("manifest", {})

    @property
    def extra(self) -> dict[str, Any]:
        """Fields that only some cases have (texts, class names, ...)."""
        return {name: value for name, value in self.fields.items() if name not in CASE_FIELDS}

    @cached_property
    def calls(self) -> list[Call]:
        """The computations, in order."""
        found = []
        for node in self.fields["calls"]:
            known = {name: node[name] for name in CALL_FIELDS & node.keys()}
            lists = {name: tuple(node.get(name, ())) for name in ("inputs", "outputs")}
            extra = {name: value for name, value in node.items() if name not in CALL_FIELDS}
            found.append(Call(**{**known, **lists}, extra=extra))
        return found

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Inputs and expected outputs."""
        file = self.folder / "io.safetensors"
        return load_file(file) if file.exists() else {}

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The weights: the rule's, and those that the case fixes."""
        state = {key: seeded(key, shape) for key, shape in self.manifest.items()}
        for key, value in (self.fields.get("fixed") or {}).items():
            fixed = torch.as_tensor(value)
            fixed = fixed.float() if key not in state else fixed.to(state[key].dtype)
            if key in state and fixed.shape != state[key].shape:
                raise ValueError(f"{self.name}: fixed {key} has shape {list(fixed.shape)}, not {self.manifest[key]}")
            state[key] = fixed
        return state

    def take(self, call: Call) -> list[Tensor]:
        """The inputs of a call, in its order; copies, so that no call changes what the next one gets."""
        return [self.tensors[name].clone() for name in call.inputs]

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives, computed at the first of a case's calls that asks for it."""
        if key not in self._built:
            self._built[key] = make()
        return self._built[key]


def goldens_folder() -> Path:
    """Where the cases lie: the environment variable `MMZOO_GOLDENS`, else `tests/goldens`."""
    return Path(os.environ.get("MMZOO_GOLDENS") or Path(__file__).parents[2] / "goldens")


def find_cases(folder: Path) -> list[Case]:
    """Every `<system>/<case>` folder that holds a `case.json`, or tensors that should have one, sorted."""
    files = [*folder.glob("*/*/case.json"), *folder.glob("*/*/io.safetensors")]
    return [Case(place) for place in sorted({file.parent for file in files})]
