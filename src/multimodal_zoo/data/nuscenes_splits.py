"""Which scenes of nuScenes belong to which split: as published (arXiv 1903.11027, nuscenes-devkit), or by a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from multimodal_zoo.files import parsed, reading

#: The official splits of v1.0-mini.
MINI = {
    "mini_train": (
        "scene-0061", "scene-0553", "scene-0655", "scene-0757", "scene-0796", "scene-1077", "scene-1094", "scene-1100",
    ),
    "mini_val": ("scene-0103", "scene-0916"),
}  # fmt: skip
#: Numbers of the scenes of v1.0-trainval (`train`, 700, and `val`, 150) and v1.0-test (`test`, 150).
NUMBERS = Path(__file__).with_name("nuscenes_splits.json.gz")
#: The split of all scenes that a version holds.
ALL = "all"


def scenes_of(split: str, folders: Sequence[Path], splits: str | Path | None, available: Sequence[str]) -> list[str]:
    """Names of the scenes of a split, in the order of the data set.

    Args:
        split: `all`, or a name in the file, or an official one: `train`, `val`, `test`, `mini_train`, `mini_val`.
        folders: of the data set and of its tables; the first `splits.json` in them is used where no file is given.
        splits: JSON or YAML file, split -> list of scene names.
        available: names of the scenes that the version holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such split, or none of its scenes is there.
    """
    if split == ALL:
        return list(available)
    known: dict[str, Sequence[str]] = {**official(), **_read(folders, splits)}
    if split not in known:
        raise ValueError(
            f"data.train.split is {split!r}; known: {', '.join([ALL, *known])}. Others stand in a JSON or YAML file of "
            "split -> scene names that data.train.splits names"
        )
    found = [name for name in available if name in set(known[split])]
    if not found:
        raise ValueError(
            f"data.train.split={split!r} names {len(known[split])} scenes, {list(known[split])[:3]} and so on, none of "
            f"which this version holds: it has {list(available)[:3]} and so on (data.train.version)"
        )
    return found


def official() -> dict[str, Sequence[str]]:
    """The published splits of all versions, split -> scene names."""
    numbers = json.loads(gzip.decompress(NUMBERS.read_bytes()))
    return {**MINI, **{split: [f"scene-{number:04d}" for number in found] for split, found in numbers.items()}}


def _read(folders: Sequence[Path], splits: str | Path | None) -> dict[str, Sequence[str]]:
    places = [folder / "splits.json" for folder in folders] if splits is None else [Path(splits).expanduser()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if splits is None:
            return {}
        raise FileNotFoundError(f"data.train.splits: {places[0]} does not exist")
    with reading(path, "list of scenes", "see data.train.splits"):
        text = path.read_text(encoding="utf-8")
        found = parsed(text) if path.suffix == ".json" else yaml.safe_load(text)
    usual = isinstance(found, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in found.values()
    )
    if not usual:
        raise ValueError(f"{path}: expected split -> list of scene names, as in {{'train': ['scene-0001']}}")
    return found
