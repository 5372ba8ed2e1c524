"""A writer of small GGUF files, independent of the reader under test: one struct after the other."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8
#: Value with its type's number in the file.
Typed = tuple[int, str, Any]


def u32(value: int) -> Typed:
    return 4, "I", value


def f32(value: float) -> Typed:
    return 6, "f", value


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(given: Any) -> bytes:
    """A type's number and a value: a text, a truth value, a list of texts or of whole numbers, or a `Typed`."""
    if isinstance(given, str):
        return struct.pack("<I", 8) + text(given)
    if isinstance(given, bool):
        return struct.pack("<I?", 7, given)
    if isinstance(given, list) and given and isinstance(given[0], str):
        return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
    if isinstance(given, list):
        return struct.pack(f"<IIQ{len(given)}i", 9, 5, len(given), *given)
    number, code, plain = given
    return struct.pack(f"<I{code}", number, plain)


def halves(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).view(np.uint8).reshape(len(values), 2)


def packed(weights: np.ndarray, kind: int) -> bytes:
    """Weights in one of the four forms; rounded to what the form can hold."""
    if kind == F32:
        return weights.astype(np.float32).tobytes()
    if kind == F16:
        return weights.astype(np.float16).tobytes()
    groups = weights.astype(np.float32).reshape(-1, 32)
    if kind == Q8_0:
        scale = np.abs(groups).max(1) / 127
        codes = np.rint(groups / np.where(scale, scale, 1)[:, None]).astype(np.int8)
        return np.concatenate([halves(scale), codes.view(np.uint8)], 1).tobytes()
    low = groups.min(1)
    scale = (groups.max(1) - low) / 15
    codes = np.rint((groups - low[:, None]) / np.where(scale, scale, 1)[:, None]).clip(0, 15).astype(np.uint8)
    return np.concatenate([halves(scale), halves(low), codes[:, :16] | codes[:, 16:] << 4], 1).tobytes()


def write_gguf(
    path: Path, facts: Mapping[str, Any], tensors: Mapping[str, tuple[np.ndarray, int]], version: int = 3
) -> Path:
    """A file of facts and of tensors `(rows first, kind)`."""
    step = dict(facts).get("general.alignment", (4, "I", 32))[2]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts))
    head += b"".join(text(key) + value(given) for key, given in facts.items())
    body = b""
    for name, (weights, kind) in tensors.items():
        sizes = weights.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(body))
        body += packed(weights, kind)
        body += bytes(-len(body) % step)
    path.write_bytes(head + bytes(-len(head) % step) + body)
    return path
