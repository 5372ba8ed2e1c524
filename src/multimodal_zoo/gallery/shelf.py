"""Models in some folders: which there are, what each is good for, and the few that are in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.store import recognise
from multimodal_zoo.gallery.kept import Kept
from multimodal_zoo.zoo import from_pretrained

logger = logging.getLogger(__name__)

#: Folders of a run in which no further models lie, and how deep models are looked for.
CLOSED = frozenset(("checkpoints", "evaluation", "samples", "tensorboard", "detection"))
DEPTH = 4
#: Ability -> whether a model with such a node has it.
ABILITIES: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "retrieve": lambda node: node["type"] == "dual_encoder" and node.get("matching") is None,
    "zero_shot": lambda node: node["type"] == "dual_encoder",
    "chat": lambda node: node["type"] in ("emu3", "eve", "emu"),
    "generate": lambda node: bool(
        (node["type"] == "emu3" and node.get("vision_tokenizer"))
        or (node["type"] == "emu" and node.get("visual_decoder"))
    ),
    "detect": lambda node: node["type"] == "fast_bev",
    "fuse": lambda node: node["type"] == "language_model",
}


@dataclass(frozen=True)
class Entry:
    """One model on disk.

    Attributes:
        name: unique, as the page shows it.
        path: a run, or a folder of weights.
        abilities: names of `ABILITIES`.
        random: whether its weights were never trained.
    """

    name: str
    path: Path
    abilities: frozenset[str]
    random: bool


class Shelf:
    """The models of some folders.

    Args:
        folders: runs, folders of runs, folders of weights.
        keep: models that stay in memory.
        device: where they run.
        allow_random: whether models whose weights were never trained are there too.

    Raises:
        FileNotFoundError: a folder that is not there.
    """

    def __init__(self, folders: Sequence[Path], keep: int = 2, device: str = "cpu", allow_random: bool = False) -> None:
        self.folders = [folder.resolve(strict=True) for folder in folders]
        self.device = device
        found: dict[str, Entry] = {}
        for folder in self.folders:
            for entry in _entries(folder):
                name, number = entry.name, 1
                while name in found:
                    number += 1
                    name = f"{entry.name} ({number})"
                if allow_random or not entry.random:
                    found[name] = Entry(name, entry.path, entry.abilities, entry.random)
        self.entries = found
        self._kept: Kept[Any] = Kept(keep)

    def names(self, ability: str) -> list[str]:
        """The models that have an ability, one of `ABILITIES`."""
        return [name for name, entry in self.entries.items() if ability in entry.abilities]

    def entry(self, name: str | None, ability: str) -> Entry:
        """One of `names`.

        Raises:
            LookupError: none is chosen, or one without that ability.
        """
        if not name:
            raise LookupError("choose a model first")
        if name not in self.names(ability):
            raise LookupError(f"there is no model {name} that can {ability.replace('_', '-')} here")
        return self.entries[name]

    @contextmanager
    def lent(self, name: str | None, ability: str) -> Iterator[Any]:
        """A model in evaluation mode, for one block alone; read at first use.

        Raises:
            LookupError: see `entry`.
            CheckpointError: its files are broken.
        """
        entry = self.entry(name, ability)
        with self._kept.lent(entry.name, lambda: from_pretrained(entry.path, device=self.device)) as model:
            yield model


def _entries(root: Path) -> Iterator[Entry]:
    """Models in and below a folder; links that lead out of it are not followed."""
    for place in _candidates(root):
        try:
            source = recognise(place)
        except (CheckpointError, OSError, ValueError, LookupError) as error:
            logger.warning("%s is left out: %s", place, error)
            continue
        outside = [file for file in source.files if not file.resolve().is_relative_to(root)]
        if outside:
            logger.warning("%s is left out: %s leads out of %s", place, outside[0], root)
            continue
        able = frozenset(name for name, fits in ABILITIES.items() if "type" in source.config and fits(source.config))
        if able:
            name = place.relative_to(root.parent).as_posix()
            yield Entry(name, place, able, str(source.weights).startswith("random"))


def _candidates(root: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(root):  # follows no links
        place = Path(where)
        depth = len(place.relative_to(root).parts)
        if {"config.yaml", "model.safetensors"} <= set(files) or (
            "config.json" in files and any(name.endswith(".safetensors") for name in files)
        ):
            yield place
        elif (place / "model" / "config.yaml").is_file():
            yield place  # a run goes by its own name
            folders.remove("model") if "model" in folders else None
        closed = depth >= DEPTH
        folders[:] = [] if closed else sorted(one for one in folders if one not in CLOSED and not one.startswith("."))
