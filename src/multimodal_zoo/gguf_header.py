"""What a GGUF file says in front of its tensors: facts of the model, its vocabulary, and where each tensor lies.

GGUF is the container of llama.cpp (versions 2 and 3): a magic word, counts, key-value pairs, a table of tensors, then
their blocks of quantised weights. The standard library only; nothing behind the table is read.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC, VERSIONS = b"GGUF", (2, 3)
#: Types of values -> how `struct` calls them; texts and lists are apart.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
        shape: as torch has it, rows first; the file says it the other way round.
        kind: the number of its type (`checkpoints.gguf.KINDS`).
        start: of its first byte, from the beginning of the file.
    """

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """What stands in front of the tensors.

    Attributes:
        facts: key -> number, truth value, text, or a list of one of them.
        tensors: name -> where it lies.
        facts_end: of the key-value pairs, in bytes from the beginning of the file.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    facts_end: int

    @property
    def architecture(self) -> str:
        """The family of the model (`llama`, `qwen2`), before the keys of its sizes."""
        return str(self.facts.get("general.architecture", ""))

    def size(self, key: str, default: Any = None) -> Any:
        """A fact of the architecture: `size("block_count")` reads `llama.block_count`."""
        return self.facts.get(f"{self.architecture}.{key}", default)


class _Cursor:
    """Reads values one behind the other.

    Args:
        content: the file's bytes.
        path: for errors.
    """

    def __init__(self, content: mmap.mmap | bytes, path: Path) -> None:
        self.content, self.path, self.place = content, path, 0

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            ValueError: the file ends before them.
        """
        if count > len(self.content) - self.place:
            raise ValueError(f"{self.path}: the file ends inside its header; download it again")
        start, self.place = self.place, self.place + count
        return self.content[start : self.place]

    def scalars(self, kind: str, count: int = 1) -> tuple[Any, ...]:
        """The next numbers or truth values of one type."""
        return struct.unpack(f"<{count}{kind}", self.take(count * struct.calcsize(kind)))

    def number(self, kind: str) -> int:
        """The next whole number."""
        return int(self.scalars(kind)[0])

    def text(self) -> str:
        """The next string; bytes that are no UTF-8 become replacement characters."""
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        """The next value of a type.

        Raises:
            ValueError: a type that GGUF does not have.
        """
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            inner, count = self.number("I"), self.number("Q")
            if inner in _SCALARS:
                return list(self.scalars(_SCALARS[inner], count))
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"{self.path}: a value of type {kind}, which GGUF does not have; the file is damaged")
        return self.scalars(_SCALARS[kind])[0]


def read_header(path: str | Path) -> GgufHeader:
    """All that stands in front of the tensors of a GGUF file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no GGUF file, another version, or a damaged one.
    """
    file = Path(path)
    with file.open("rb") as opened:
        start = opened.read(8)
        version = struct.unpack("<I", start[4:])[0] if len(start) == 8 else 0
        if start[:4] != MAGIC or version not in VERSIONS:
            found = f"version {version} (or one for big-endian machines)" if start[:4] == MAGIC else repr(start[:4])
            raise ValueError(f"{file}: found {found}; expected GGUF of version {' or '.join(map(str, VERSIONS))}")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _header(_Cursor(content, file))
            except RecursionError:
                raise ValueError(f"{file}: lists of lists without end; the file is damaged") from None


def _header(cursor: _Cursor) -> GgufHeader:
    cursor.take(8)
    count, pairs = cursor.number("Q"), cursor.number("Q")
    facts: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.text()
        facts[key] = cursor.value(cursor.number("I"))
    facts_end = cursor.place
    listed = []
    for _ in range(count):
        name, dimensions = cursor.text(), cursor.number("I")
        shape = tuple(int(size) for size in reversed(cursor.scalars("Q", dimensions)))
        listed.append((name, shape, cursor.number("I"), cursor.number("Q")))
    step = facts.get("general.alignment", 32)
    if not isinstance(step, int) or step < 1:
        raise ValueError(
            f"{cursor.path}: general.alignment is {step!r}; expected a number above 0: the file is damaged"
        )
    first = math.ceil(cursor.place / step) * step
    tensors = {name: GgufTensor(shape, kind, first + offset) for name, shape, kind, offset in listed}
    return GgufHeader(facts, tensors, facts_end)


def without_tensors(path: str | Path) -> bytes:
    """A GGUF file with the facts of another one and no tensor: all that a tokenizer needs."""
    header = read_header(path)
    with Path(path).open("rb") as file:
        content = file.read(header.facts_end)
    return content[:8] + struct.pack("<Q", 0) + content[16:]
