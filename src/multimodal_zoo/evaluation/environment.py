"""Where and how a run took place: versions, processor, command; what a reader of a report needs to repeat it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import multimodal_zoo
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.files import write_text

PACKAGES = ("torch", "torchvision", "lightning", "timm", "open_clip_torch", "transformers", "numpy", "pillow")
#: Values of each tensor that enter a fingerprint.
PROBED = 1024


def environment() -> dict[str, str]:
    """Versions and hardware, without anything that names the machine or its user."""
    found = {"multimodal_zoo": multimodal_zoo.__version__, "python": platform.python_version()}
    if known := commit(Path(multimodal_zoo.__file__).parents[2]):
        found["commit"] = known
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["processor"] = f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used by torch"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found["accelerators"] = ", ".join(names)
    return found


def commit(checkout: Path) -> str | None:
    """The commit of a checkout of the library, read from git's own files; None if the folder is none.

    Changes that are not committed do not show in it.
    """
    git = checkout / ".git"
    if not (checkout / "pyproject.toml").is_file() or not (git / "HEAD").is_file():
        return None
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head[:12]
    branch = head.removeprefix("ref: ")
    if (git / branch).is_file():
        return (git / branch).read_text(encoding="utf-8").strip()[:12]
    packed = (git / "packed-refs").read_text(encoding="utf-8") if (git / "packed-refs").is_file() else ""
    return next((line[:12] for line in packed.splitlines() if line.endswith(f" {branch}")), None)


def command_line() -> str:
    """The command of this process as one could type it again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def record_run(
    folder: Path,
    model: nn.Module,
    command: str | None = None,
    choices: Mapping[str, str] | None = None,
    left_out: Mapping[str, Skips] | None = None,
    seconds: float | None = None,
) -> Path:
    """Write `run.json`: variant, weights, size, model node, environment and command; a report is made from it.

    Args:
        folder: the run folder.
        model: as `zoo.create` or `zoo.from_pretrained` gives it (with `config` and `weights`).
        command: None for the command line of this process.
        choices: group -> the file of `conf` that was chosen for it, which a report over several runs names.
        left_out: configuration key of a reader -> the samples that it could not use.
        seconds: that training took since it was last started; None without training.
    """
    content = {
        "variant": getattr(model, "variant", None),
        "weights": getattr(model, "weights", "unknown"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "model": getattr(model, "config", {}),
        "choices": dict(choices or {}),
        "left_out": {
            key: {reason: [count, skips.examples[reason]] for reason, count in skips.counts.most_common()}
            for key, skips in (left_out or {}).items()
        },
        "command": command or command_line(),
        "environment": environment(),
        "seconds": None if seconds is None else round(seconds, 1),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return write_text(folder / "run.json", json.dumps(content, indent=1, default=str))


def fingerprint(model: nn.Module) -> str:
    """A hash of the weights from names, shapes and up to 1,024 evenly spaced values of each tensor.

    Seconds for a model of any size; equal weights always agree, and training changes every tensor.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        flat = value.detach().reshape(-1)
        probe = flat[:: max(1, len(flat) // PROBED)].cpu()
        digest.update((probe.double() if probe.is_floating_point() else probe.long()).numpy().tobytes())
    return digest.hexdigest()[:16]


def ways_of(model: nn.Module) -> str:
    """How a model compares, where not by its embeddings: it has no weights, and yet decides every figure."""
    matching = getattr(model, "matching", None)
    return "" if matching is None else f" {matching!r}"


def require_vectors(model: nn.Module, command: str) -> None:
    """Refuse a model whose embeddings mean nothing.

    Raises:
        ValueError: the model compares tokens.
    """
    if getattr(model, "matching", None) is not None:
        raise ValueError(
            f"model.matching: this model compares images and texts by {type(model.matching).__name__}, not by one "
            f"vector each, and its embeddings were not trained: mmzoo {command} cannot use them. Tokens come from "
            "model.encode_image_tokens and model.encode_text_tokens; model.matching=null takes a variant's embeddings "
            "all the same"
        )


def config_hash(config: Mapping[str, Any], *also: str) -> str:
    """A hash of a configuration and of whatever else decides a result; the order of keys does not matter."""
    text = json.dumps([config, *also], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "processor unknown"
