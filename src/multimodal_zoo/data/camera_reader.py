"""Readers of key frames, as parts: the tables of nuScenes, or a file of key frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_zoo.data.camera_cache import StaleCacheError, read_infos, write_infos
from multimodal_zoo.data.camera_infos import SceneInfo, Sweep
from multimodal_zoo.data.camera_layouts import infos_of
from multimodal_zoo.data.camera_pickle import read_pickle
from multimodal_zoo.data.nuscenes_infos import HistoryLists, InfoBuilder
from multimodal_zoo.data.nuscenes_splits import scenes_of
from multimodal_zoo.data.nuscenes_tables import NuScenesTables
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.files import parsed, reading
from multimodal_zoo.registry import DATASETS

logger = logging.getLogger(__name__)


class KeyFrame(NamedTuple):
    """One key frame and where its pictures lie.

    Attributes:
        info: the record.
        root: folder that its paths are relative to.
    """

    info: SceneInfo
    root: Path


class KeyFrames:
    """Key frames by number.

    Args:
        infos: the records.
        root: folder that their paths are relative to.

    Attributes:
        skips: what could not be used.
    """

    def __init__(self, infos: list[SceneInfo], root: Path) -> None:
        self.infos, self.root, self.skips = infos, root, Skips()

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: int) -> KeyFrame:
        return KeyFrame(self.infos[index], self.root)

    def __iter__(self) -> Iterator[KeyFrame]:
        return (self[index] for index in range(len(self)))


@DATASETS.register_module(name="nuscenes_scenes")
def nuscenes_scenes(
    folder: str,
    version: str,
    split: str,
    splits: str | None = None,
    cache: str | None = None,
    spacing: int = 3,
    most: int = 20,
) -> KeyFrames:
    """Key frames of a split of nuScenes (arXiv 1903.11027), or of a data set with the same tables.

    Args:
        folder: holds the tables in a folder named after the version, `samples` and `sweeps`.
        version: e.g. `v1.0-trainval`.
        split: `all`, a name in `splits`, or an official one (`train`, `val`, `test`, `mini_train`, `mini_val`).
        splits: JSON or YAML file, split -> scene names; None looks for `splits.json` in the folder and
            beside the tables.
        cache: file to keep the key frames in (`.jsonl.gz`), made where it is missing or was made from other tables or
            settings; None reads the tables each time. Where it cannot be written that is said, and nothing is kept.
        spacing: every how many pictures of the front camera another time is listed, 12 a second.
        most: entries of the lists of earlier and of later times.

    Raises:
        FileNotFoundError: no folder of tables.
        ValueError: no such split, damaged tables, or a damaged cache.
    """
    root = Path(folder).expanduser()
    tables = NuScenesTables(root, version)
    with reading(root / version, "set of nuScenes tables"):
        names = [str(row["name"]) for row in tables.table("scene").values()]
    scenes = scenes_of(split, [root, root / version], splits, names)
    lists = HistoryLists(spacing, most)
    settings = {"version": version, "scenes": scenes, "spacing": spacing, "most": most, "tables": tables.state()}
    kept = None if cache is None else Path(cache).expanduser()
    if kept is not None and kept.exists():
        try:
            return KeyFrames(read_infos(kept, settings), root)
        except StaleCacheError as error:
            logger.warning("%s; it is made anew", error)
    builder, wanted = InfoBuilder(tables, lists), set(scenes)
    with reading(root / version, "set of nuScenes tables"):
        chosen = [scene for scene in tables.table("scene").values() if str(scene["name"]) in wanted]
        infos = [info for scene in chosen for info in builder.scene(scene)]
    if kept is not None:
        try:
            write_infos(kept, infos, settings)
        except OSError as error:  # a shared data set is often read-only; minutes of reading are not thrown away for it
            logger.warning("the key frames were not kept (%s); set `cache` to a place that can be written to", error)
    return KeyFrames(infos, root)


@DATASETS.register_module(name="camera_info_file")
def camera_info_file(file: str, folder: str, prefix: str = "") -> KeyFrames:
    """Key frames of a file: our own (`.jsonl.gz`), or one of mmdetection3d's layouts as JSON or pickle.

    Of a pickle only numpy arrays and plain containers are read.

    Args:
        file: the file.
        folder: that its paths of pictures are relative to.
        prefix: what its paths begin with and is taken off: published files have `./data/nuscenes/` there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, an unknown layout, a pickle that holds anything else, or a path without the prefix.
    """
    path, root = Path(file).expanduser(), Path(folder).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"data.train.file: {path} does not exist")
    infos = read_infos(path) if path.name.endswith(".jsonl.gz") else infos_of(_content(path), str(path))
    return KeyFrames([_without(info, prefix) for info in infos] if prefix else infos, root)


def _content(path: Path) -> Any:
    if path.suffix in (".pkl", ".pickle"):
        return read_pickle(path)
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or neither JSON, .jsonl.gz nor a pickle: {error}") from None


def _without(info: SceneInfo, prefix: str) -> SceneInfo:
    """The key frame with the beginning of all paths taken off."""

    def _cut(path: str) -> str:
        if not path.startswith(prefix):
            raise ValueError(f"data.train.prefix is {prefix!r}, but a path of sample {info.token} is {path!r}")
        return path.removeprefix(prefix)

    def _moved(sweep: Sweep) -> Sweep:
        return replace(sweep, paths={name: _cut(path) for name, path in sweep.paths.items()})

    return replace(
        info,
        cameras={name: replace(camera, path=_cut(camera.path)) for name, camera in info.cameras.items()},
        previous=[_moved(sweep) for sweep in info.previous],
        following=[_moved(sweep) for sweep in info.following],
    )
