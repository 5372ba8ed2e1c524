"""Golden cases: a published implementation's numbers, with weights that follow from the names of its tensors."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDENS = Path(os.environ.get("MMZOO_GOLDENS", Path(__file__).parents[1] / "goldens"))


class Golden(NamedTuple):
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    state: dict[str, Tensor]


def seeded(key: str, shape: list[int]) -> Tensor:
    """The tensor that a golden case's rule gives for a key."""
    drawn = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
    x = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    if len(shape) >= 2:
        return x / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.02 * x if key.rsplit(".", 1)[-1] in ("weight", "gamma") else 0.02 * x


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    def read(name: str) -> Golden:
        case = json.loads((GOLDENS / name / "case.json").read_text())
        state = {key: seeded(key, shape) for key, shape in case["manifest"].items()}
        state |= {key: torch.tensor(value) for key, value in case["fixed"].items()}
        return Golden(case["config"], load_file(GOLDENS / name / "io.safetensors"), state)

    return read
