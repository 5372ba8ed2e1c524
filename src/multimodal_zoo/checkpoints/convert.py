"""Rewriting a checkpoint under other names, with the configuration that its readers expect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.checkpoints.tables import NAMINGS, declip, declip_write, eva_clip, eva_clip_write
from multimodal_zoo.checkpoints.writing import require_floats, write_folder, write_safetensors

#: What `naming` is called that needs no table: this library's names, with `config.yaml`.
OURS = "ours"
#: Largest file before the tensors are spread over several, in bytes.
SHARD_SIZE = 5_000_000_000
#: naming -> name of the weight file (without suffix), name of the configuration file, and what makes its content.
_WRITERS: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    **{
        naming.name: ("model", "eva_clip.json", eva_clip_write.original_config)
        for naming in (eva_clip.ORIGINAL, eva_clip.ROOT_TEXT, eva_clip.TEXT_SCALE)
    },
    eva_clip.HUB.name: ("model", "config.json", eva_clip_write.hub_config),
    eva_clip.HUB_SCALED.name: ("model", "config.json", eva_clip_write.hub_scaled_config),
    **{
        naming.name: ("open_clip_model", "open_clip_config.json", eva_clip_write.open_clip_config)
        for naming in (eva_clip.OPEN_CLIP_PACKED, eva_clip.OPEN_CLIP_SEPARATE)
    },
    **{naming.name: ("model", "declip.json", declip_write.original_config) for naming in declip.ALL},
}
FORMATS = ("safetensors", "pt")


def write_published(
    model: nn.Module, folder: str | Path, naming: str, *, shard_size: int = SHARD_SIZE, format: str = "safetensors"
) -> Path:
    """Write a model under a publisher's names, with the publisher's configuration; the folder appears whole or not.

    Args:
        model: with `config`, as `zoo.from_pretrained` gives it.
        folder: created; a folder that exists must be empty.
        naming: `ours`, or the name of a table with a configuration (`names()`).
        shard_size: most bytes of a file; more are spread over several with an index.
        format: `safetensors`, or `pt` for one pickled file.

    Raises:
        ValueError: a quantised model, an unknown naming or format, or a folder that is in use.
        CheckpointError: a model that the naming or its configuration cannot express.
    """
    require_floats(model, "write_published")
    if naming not in names():
        raise ValueError(f"naming={naming}: expected one of {', '.join(names())}")
    if format not in FORMATS or shard_size < 1:
        raise ValueError(
            f"format={format}, shard_size={shard_size}: expected {' or '.join(FORMATS)} and a size above 0"
        )
    if Path(folder).exists() and any(Path(folder).iterdir()):
        raise ValueError(f"out={folder}: the folder is not empty; name another")
    if naming == OURS:
        return save_model(model, folder)
    stem, config_name, _ = _WRITERS[naming]
    try:
        config, state = _published(model, naming)
    except CheckpointError as error:
        fitting = ", ".join([OURS, *(name for name in _WRITERS if _expresses(model, name))])
        raise type(error)(f"naming={naming}: {error}; this model can be written as {fitting}") from error

    def write(temporary: Path) -> None:
        """Weights first: a folder with a configuration is complete."""
        if format == "pt":
            torch.save({name: tensor.clone() for name, tensor in state.items()}, temporary / f"{stem}.pt")
        else:
            write_shards(temporary, stem, state, shard_size)
        (temporary / config_name).write_text(json.dumps(config, indent=2) + "\n")

    return write_folder(folder, write)


def _published(model: nn.Module, naming: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors under a publisher's names."""
    return _WRITERS[naming][2](model.config), published_state(model, NAMINGS[naming])  # type: ignore[arg-type]


def _expresses(model: nn.Module, naming: str) -> bool:
    """Whether a naming can hold the model."""
    try:
        return bool(_published(model, naming))
    except CheckpointError:
        return False


def names() -> list[str]:
    """What `naming` may be."""
    return [OURS, *_WRITERS]


def published_state(model: nn.Module, naming: Naming) -> dict[str, Tensor]:
    """A model's tensors under their published names, as views of the model's own.

    Raises:
        CheckpointError: tensors that the table has no name for, all listed.
    """
    try:
        return naming.save(model.state_dict())
    except CheckpointError as error:
        raise type(error)(f"naming={naming.name} cannot express this model: {error}") from error


def write_shards(folder: Path, stem: str, state: Mapping[str, Tensor], shard_size: int = SHARD_SIZE) -> list[Path]:
    """Write tensors as one safetensors file, or as several with an index where one would be larger than `shard_size`.

    No more than one file's tensors are copied at a time. A tensor larger than `shard_size` gets a file of its own.

    Args:
        folder: exists.
        stem: the files' name without suffix.
        state: what is written, in this order.
        shard_size: most bytes of a file.
    """
    groups = list(_groups(state, shard_size))
    if len(groups) == 1:
        return [write_safetensors(folder / f"{stem}.safetensors", state)]
    files, placed, total = [], {}, 0
    for number, group in enumerate(groups, start=1):
        file = folder / f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors"
        files.append(write_safetensors(file, {name: state[name] for name in group}))
        placed.update(dict.fromkeys(group, file.name))
        total += sum(state[name].nbytes for name in group)
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return files


def _groups(state: Mapping[str, Tensor], shard_size: int) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name, tensor in state.items():
        if group and size + tensor.nbytes > shard_size:
            yield group
            group, size = [], 0
        group.append(name)
        size += tensor.nbytes
    yield group
