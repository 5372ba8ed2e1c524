"""Shared fixtures: one thread, fixed seeds, nothing downloaded."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from multimodal_zoo import catalogue, config

#: Those whose tests are over.
MODULES = itertools.count()
sys.path.insert(0, str(Path(__file__).parent))  # what all tests share

if not torch.cuda.is_available():
    # Fake tensors put a GPU that is not there in its place, for good; autograd would start a thread for it and then
    # refuse to work in processes that are forked later (tests/forked.py). No test traces kernels of a GPU.
    torch._C._ensureCUDADeviceGuardSet = lambda: None  # type: ignore[attr-defined]
    # They also ask for GPUs each time, and look for the driver's library in all folders.
    torch.cuda._raw_device_count_nvml = lambda: -1


def pytest_configure(config: pytest.Config) -> None:
    """Several processes take files in the order below, not those of many tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process waits for another one's at the end."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _rarely_collected() -> Iterator[None]:
    """Python's collector takes a tenth of the time: it looks at all that torch imports again and again."""
    gc.set_threshold(50_000, 20, 100)
    yield
    if next(MODULES) % 4 == 3:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="module")
def pixels() -> Iterator[None]:
    """Charts and matrices of a module's reports are a pixel."""
    from undrawn import undrawn

    with undrawn():
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _yaml_is_parsed_once() -> Iterator[None]:
    """Hydra reads the same small files for every composition; equal text is parsed once."""
    load, known = OmegaConf.load, dict[str, bytes]()

    def remembered(source: Any) -> Any:
        if not hasattr(source, "read"):
            return load(source)
        text = source.read()
        source.seek(0)
        if text not in known:
            known[text] = pickle.dumps(load(source))
        return pickle.loads(known[text])

    OmegaConf.load = remembered  # type: ignore[method-assign, assignment]
    yield
    OmegaConf.load = load  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def _plugins_of_lightning_are_looked_up_once() -> None:
    """Each of its trainers reads the entry points of all that is installed."""
    if registry := sys.modules.get("lightning.fabric.utilities.registry"):
        registry.entry_points = functools.cache(registry.entry_points)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="session")
def _equal_words_are_composed_once() -> Iterator[None]:
    """As long as the same packages hold the YAML; what lies in a folder of a test may change."""
    before = {name: getattr(config, name) for name in ("compose_whole", "_without_hydra")}
    known = dict[Any, bytes]()

    def remembering(name: str) -> Callable[..., DictConfig]:
        def remembered(recipe: str | None, overrides: Sequence[str], folder: str | None = None) -> DictConfig:
            if folder is not None:
                return before[name](recipe, overrides, folder)
            lists = map(tuple, (catalogue.packages("recipes"), catalogue.packages("conf")))
            words = (name, recipe, tuple(overrides), *lists)
            if words not in known:
                known[words] = pickle.dumps(before[name](recipe, overrides, None))
            return pickle.loads(known[words])

        return remembered

    for name in before:
        setattr(config, name, remembering(name))
    yield
    for name, function in before.items():
        setattr(config, name, function)
