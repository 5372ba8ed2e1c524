"""GGUF files with weights that processors multiply faster: Q4_1 rewritten as Q8_0, once for each file.

llama.cpp has blocked kernels for Q8_0 but none for Q4_1, whose prompts cost as much a token as answers do. Both keep
groups of 32 weights; the eight bits hold the sixteen levels of the four to about three hundredths of a level.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.captions.engines.model_files import fingerprint
from multimodal_zoo.files import atomic_file
from multimodal_zoo.gguf_header import GgufTensor, read_header

logger = logging.getLogger(__name__)

Q4_1, Q8_0 = 3, 8
_Q4_1_BYTES, _GROUP = 20, 32
#: Changed when this module writes other bytes.
_EDITION = 1


def has_q4_1(path: Path) -> bool:
    """Whether some weights of a file are stored as Q4_1.

    Raises:
        ValueError: no GGUF file.
    """
    return any(one.kind == Q4_1 for one in read_header(path).tensors.values())


def with_q8_weights(path: Path) -> Path:
    """The same model with Q8_0 in place of Q4_1, from the user's cache or written there.

    Args:
        path: a GGUF file.

    Raises:
        OSError: the cache cannot be written to.
        ValueError: no GGUF file, or a damaged one.
    """
    from multimodal_zoo.data.emoji_pictures import cache_folder

    target = cache_folder() / "gguf" / f"{path.stem}-{fingerprint([path])[:16]}-q8-{_EDITION}.gguf"
    if not target.is_file():
        logger.info("writing %s with weights that are multiplied faster to %s", path.name, target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(target) as temporary:
                rewrite(path, temporary)
        except OSError as error:
            raise OSError(
                f"fusion_engine.weights is auto, and {target} cannot be written: {error}; set MMZOO_CACHE to another "
                "folder, or fusion_engine.weights=stored"
            ) from error
    return target


def rewrite(path: Path, target: Path) -> None:
    """Write a GGUF file anew with Q8_0 in place of Q4_1; facts and other tensors stay as they are.

    Args:
        path: of the file.
        target: of the new one.

    Raises:
        ValueError: no GGUF file, or a damaged one.
    """
    header = read_header(path)
    content: np.ndarray[Any, np.dtype[np.uint8]] = np.memmap(path, np.uint8, "r")
    step = int(header.facts.get("general.alignment", 32))
    ends = _ends(header.tensors, len(content))
    table, place = [], 0
    for name, one in header.tensors.items():
        kind = Q8_0 if one.kind == Q4_1 else one.kind
        spelled, sizes = name.encode(), one.shape[::-1]
        table.append(struct.pack("<Q", len(spelled)) + spelled + struct.pack("<I", len(sizes)))
        table.append(struct.pack(f"<{len(sizes)}QIQ", *sizes, kind, place))
        size = math.prod(one.shape) // _GROUP * (_GROUP + 2) if kind != one.kind else ends[name] - one.start
        place += _padded(size, step)
    start = content[: header.facts_end].tobytes() + b"".join(table)
    with target.open("wb") as file:
        file.write(start.ljust(_padded(len(start), step), b"\0"))
        for name, one in header.tensors.items():
            raw = content[one.start : ends[name]]
            piece = _q8_0(raw, one, path) if one.kind == Q4_1 else raw.tobytes()
            file.write(piece.ljust(_padded(len(piece), step), b"\0"))


def _ends(tensors: Mapping[str, GgufTensor], size: int) -> dict[str, int]:
    """Where the next tensor, or the end of the file, is for each of them."""
    starts = sorted({*(one.start for one in tensors.values()), size})
    after = dict(pairwise(starts))
    return {name: after.get(one.start, size) for name, one in tensors.items()}


def _padded(size: int, step: int) -> int:
    return math.ceil(size / step) * step


def _q8_0(raw: np.ndarray[Any, np.dtype[np.uint8]], tensor: GgufTensor, path: Path) -> bytes:
    """A tensor's Q4_1 as Q8_0: a half for the scale of 32 weights, then a signed byte each."""
    from multimodal_zoo.checkpoints.gguf import KINDS

    groups = math.prod(tensor.shape) // _GROUP
    if len(raw) < groups * _Q4_1_BYTES:
        raise ValueError(f"{path}: the file ends inside its weights; download it again")
    weights = KINDS[Q4_1].floats(np.array(raw[: groups * _Q4_1_BYTES]).reshape(groups, _Q4_1_BYTES))
    scale = (np.abs(weights).max(axis=1, keepdims=True) / 127).astype(np.float16)
    divisor = np.where(scale > 0, scale, 1).astype(np.float32)
    out = np.empty((groups, _GROUP + 2), np.uint8)
    out[:, :2] = scale.view(np.uint8)
    out[:, 2:] = np.clip(np.rint(weights / divisor), -127, 127).astype(np.int8).view(np.uint8)
    return out.tobytes()
