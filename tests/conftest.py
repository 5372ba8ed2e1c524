"""Shared fixtures: one thread, fixed seeds, nothing downloaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # what all tests share

if not torch.cuda.is_available():
    # Fake tensors put a GPU that is not there in its place, for good; autograd would start a thread for it and then
    # refuse to work in processes that are forked later (tests/forked.py). No test traces kernels of a GPU.
    torch._C._ensureCUDADeviceGuardSet = lambda: None  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
