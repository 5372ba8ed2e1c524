"""Pictures of what was found in embeddings on disk, whose manifest may name any data: read only where that is safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.data.shards import REMOTE, expand
from multimodal_zoo.evaluation.match_grid import Tile
from multimodal_zoo.evaluation.nearest import Hit
from multimodal_zoo.evaluation.searching import find_pictures

#: Readers that open nothing but what one of their keys names; a table, for one, may name any file of the machine.
READERS = {"folder_pictures": "folder", "webdataset_pairs": "sources"}


def tiles_of(manifest: Mapping[str, Any], hits: Sequence[Hit], folders: Sequence[Path]) -> list[Tile]:
    """A tile for each match, with its picture where that lies in one of some folders.

    Args:
        manifest: of the embeddings.
        hits: what was found.
        folders: resolved.
    """
    data, safe = manifest["data"], list(hits)
    if not _reads_within(data, folders):
        safe = []
    elif data["type"] == "folder_pictures":  # links in the folder may lead out of it
        safe = [hit for hit in hits if within(Path(data["folder"]).expanduser() / hit.key, folders)]
    (tiles,) = find_pictures(dict(manifest), [safe]) if safe else ([],)
    found = {hit.place: tile for hit, tile in zip(safe, tiles, strict=True)}
    return [found.get(hit.place) or Tile(None, hit.text or hit.key, f"{hit.score:.3f}") for hit in hits]


def within(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a path, links followed, lies in one of some folders."""
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def _reads_within(data: Any, folders: Sequence[Path]) -> bool:
    """Whether a reader opens nothing outside of some folders: no address, no command, no other reader inside it."""
    if not isinstance(data, Mapping) or any(isinstance(value, Mapping) for value in data.values()):
        return False
    places = data.get(READERS.get(str(data.get("type")), ""))
    listed = [places] if isinstance(places, str) else places
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        return False
    try:
        files = expand(listed, "data") if data["type"] == "webdataset_pairs" else listed
    except OSError:  # not there any more
        return False
    return not any(REMOTE.match(one) for one in files) and all(within(Path(one).expanduser(), folders) for one in files)
