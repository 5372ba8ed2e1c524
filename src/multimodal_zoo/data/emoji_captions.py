"""Emoji with captions to fuse, as the tar shards of img2dataset: real data where none is at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.emoji_pictures import STYLES, load_pictures
from multimodal_zoo.data.emoji_table import SPLITS, load_table
from multimodal_zoo.data.emoji_triples import Triple, specific_names, triples
from multimodal_zoo.data.export import WebdatasetExport
from multimodal_zoo.files import atomic_folder

SIDE = 72


def write_captions(
    folder: str | Path, rows: int | None = None, seed: int = 0, style: str = "twemoji", split: str = "all"
) -> tuple[list[Path], int]:
    """Write pictures with their captions; gives the shards and the number of rows.

    Each sample is a picture (.jpg), the raw caption (.txt) and a .json with `caption` (raw), `synthetic`,
    `fused_target`, `names` (the specific ones), `key`, split, concept, group and subgroup.

    Args:
        folder: where the tars go: a new one, or an empty one; it is there with all of them, or not at all.
        rows: how many, chosen by a hash; left out, all.
        seed: of the captions.
        style: `twemoji` or `openmoji`.
        split: `train`, `val`, `test` or `all`.

    Raises:
        FileExistsError: the folder holds something.
        ModuleNotFoundError: the packages of the extra `quickstart` are not installed.
        ValueError: an unknown style or split, fewer than one row.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}; it must be one of {', '.join(STYLES)}")
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}, all")
    if rows is not None and rows < 1:
        raise ValueError(f"rows is {rows}; it must be at least 1")
    place = Path(folder).expanduser().resolve()  # a link cannot be replaced by a folder
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise FileExistsError(f"{folder} holds something already; name a new folder, or delete it")
    made = triples(SPLITS if split == "all" else split, style, seed)
    if rows is not None:
        made = sorted(made, key=lambda one: hashlib.sha256(one.key.encode()).digest())[:rows]
    with atomic_folder(place) as draft:
        shards = WebdatasetExport(str(draft), suffix="jpg")(_documents(made, style))
    return [place / shard.name for shard in shards], len(made)


def _documents(made: Iterable[Triple], style: str) -> Iterator[Document]:
    sequences = [row.sequence for row in load_table() if not row.toned]
    pictures = load_pictures(style, sequences, SIDE)
    places = {sequence: i for i, sequence in enumerate(sequences)}
    for one in made:
        meta = {
            "key": one.key,
            "synthetic": one.synthetic,
            "fused_target": one.fused,
            "names": specific_names(one.row),
            "split": one.row.split,
            "concept": one.row.concept,
            "group": one.row.group,
            "subgroup": one.row.subgroup,
        }
        yield pair(pictures[places[one.row.sequence]].transpose(1, 2, 0), one.raw, meta)
