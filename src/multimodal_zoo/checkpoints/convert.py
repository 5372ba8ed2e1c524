"""Rewriting a checkpoint under other names, with the configuration that its readers expect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.errors import CheckpointError, UnknownCheckpoint
from multimodal_zoo.checkpoints.pieces import WRITERS, Piece
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.checkpoints.writing import require_floats, require_free, write_folder, write_safetensors
from multimodal_zoo.nn.low_rank import merge_adapters

#: What `naming` is called that needs no table: this library's names, with `config.yaml`.
OURS = "ours"
#: Largest file before the tensors are spread over several, in bytes.
SHARD_SIZE = 5_000_000_000

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
    require_free(folder, "out")
    if naming == OURS:
        return save_model(model, folder)
    try:
        pieces = _published(model, naming)
    except CheckpointError as error:
        fitting = ", ".join([OURS, *(name for name in WRITERS if _expresses(model, name))])
        raise type(error)(f"naming={naming}: {error}; this model can be written as {fitting}") from error

    def write(temporary: Path) -> None:
        """Weights first: a folder with a configuration is complete."""
        for piece, config, state in pieces:
            place = temporary / piece.folder
            place.mkdir(exist_ok=True)
            if format == "pt":
                torch.save({name: tensor.clone() for name, tensor in state.items()}, place / f"{piece.stem}.pt")
            else:
                write_shards(place, piece.stem, state, shard_size)
            if piece.beside is not None:
                piece.beside(model.config, place)  # type: ignore[arg-type]
            (place / piece.config_name).write_text(json.dumps(config, indent=2) + "\n")

    return write_folder(folder, write)


def merged(model: nn.Module) -> nn.Module:
    """The same model with its adapters in the matrices beside them, in place, and without them in its configuration."""
    merge_adapters(model)
    model.config = _without_adapters(model.config)  # type: ignore[assignment]
    return model


def _without_adapters(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_adapters(child) for key, child in node.items() if key != "adapter"}
    return [_without_adapters(child) for child in node] if isinstance(node, list) else node


def _published(model: nn.Module, naming: str) -> list[tuple[Piece, dict[str, Any], dict[str, Tensor]]]:
    """What is written, with configurations and tensors under a publisher's names."""
    node: Mapping[str, Any] = model.config  # type: ignore[assignment]
    pieces = [piece for piece in WRITERS[naming] if piece.concerns(node)]
    if not pieces:
        raise UnknownCheckpoint(f"the model has no {' and no '.join(str(one.part) for one in WRITERS[naming])}")
    return [(piece, piece.configuration(node), piece.state(model)) for piece in pieces]


def _expresses(model: nn.Module, naming: str) -> bool:
    """Whether a naming can hold the model."""
    try:
        return bool(_published(model, naming))
    except CheckpointError:
        return False


def names() -> list[str]:
    """What `naming` may be."""
    return [OURS, *WRITERS]


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
