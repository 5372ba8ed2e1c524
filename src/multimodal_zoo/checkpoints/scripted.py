"""Tensors out of a TorchScript archive (the format of OpenAI's CLIP files) without running its code.

`torch.load(weights_only=True)` refuses such archives, `torch.jit.load` compiles the program inside. The archive is a
zip whose `data.pkl` describes nested objects and whose `data/` holds raw storages; here the objects become inert
records and only torch's own tensor builders are admitted.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CorruptCheckpoint, UnsafeCheckpoint
from multimodal_zoo.files import reading

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Record:
    """Stands for any scripted object: keeps its attributes, has no behaviour.

    `saved` names the attributes that belong to the state dict: a scripted object also keeps tensors that do not.
    """

    saved: frozenset[str] | None = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _strided(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_ignored: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _first(value: Any, *_ignored: Any) -> Any:
    return value


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _strided,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("torch", "device"): _first,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Reader(pickle.Unpickler):
    """Admits the builders above and scripted classes as records; everything else is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str, device: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root, self.device = archive, root, device
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A builder, a storage's dtype or an inert record."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "__torch__" or module.startswith("__torch__."):
            return type("_Record", (_Record,), {"saved": self._saved(module, name)})
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        raise UnsafeCheckpoint(f"{self.archive.filename}: refused: it would load {module}.{name}, which can run code")

    def _saved(self, module: str, name: str) -> frozenset[str] | None:
        """The parameters and buffers that the class declares, read off its source text."""
        member = f"{self.root}/code/{module.replace('.', '/')}.py"
        if member not in self.archive.namelist():
            return None
        source = self.archive.read(member).decode()
        declared = re.search(
            rf"class {re.escape(name)}\(Module\):\s+__parameters__ = \[(.*?)\]\s+__buffers__ = \[(.*?)\]",
            source,
            re.DOTALL,
        )
        return frozenset(re.findall(r'"(\w+)"', " ".join(declared.groups()))) if declared else None

    def persistent_load(self, reference: tuple[Any, ...]) -> Tensor:
        """One storage as a flat tensor, read once however many tensors share it."""
        _, dtype, key, _, numel = reference
        if key not in self.storages:
            if self.device == "meta":
                self.storages[key] = torch.empty(numel, dtype=dtype, device="meta")
            else:
                raw = bytearray(self.archive.read(f"{self.root}/data/{key}"))
                self.storages[key] = (
                    torch.frombuffer(raw, dtype=dtype, count=numel) if raw else torch.empty(0, dtype=dtype)
                )
        return self.storages[key]


def read_scripted(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Names to tensors of a TorchScript archive; names as in the scripted module's state dict.

    Raises:
        UnsafeCheckpoint: the description names anything but tensors and scripted objects.
        CorruptCheckpoint: a damaged archive.
    """
    with (
        reading(path, "complete TorchScript archive", kind=CorruptCheckpoint, passing=(UnsafeCheckpoint,)),
        zipfile.ZipFile(path) as archive,
    ):
        description = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if description is None:
            raise ValueError("it has no data.pkl")
        top = _Reader(archive, description.removesuffix("/data.pkl"), device).load()
        found: dict[str, Any] = {}
        _collect(top, "", found)
    return found


def _collect(value: Any, prefix: str, found: dict[str, Any]) -> None:
    saved = getattr(value, "saved", None)
    for name, child in getattr(value, "attributes", {}).items():
        if isinstance(child, Tensor) and (saved is None or name in saved):
            found[prefix + name] = child
        elif isinstance(child, _Record):
            _collect(child, f"{prefix}{name}.", found)
