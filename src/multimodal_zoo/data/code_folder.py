"""A folder of encoded documents, written shard by shard; a later run goes on where an earlier one stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multimodal_zoo.data.code_shards import write_codes
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emu3_features import FEATURES, write_feature, write_list
from multimodal_zoo.data.shard_counts import SIZES
from multimodal_zoo.files import leftovers, read_record, reading, write_text

MANIFEST = "manifest.json"
#: Tar shards for the reader `visual_codes`, or Emu3's own layout for `emu3_features`.
FORMATS = ("shards", "features")


@dataclass
class Written:
    """How far a rank has come.

    Attributes:
        shards: parts that are written.
        documents: in them.
        place: of the last document that was looked at (`data.places`).
        names: files, in order: a tar of each part, or a feature file of each document.
        sizes: documents in each tar.
        skipped: unusable documents by reason.
        examples: some of them by reason.
        complete: whether the data are through.
    """

    shards: int = 0
    documents: int = 0
    place: list[int] | None = None
    names: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    complete: bool = False


class CodeFolder:
    """Where `mmzoo tokenize` writes.

    Args:
        path: the folder.
        format: a name of `FORMATS`.
        rank: this rank.
        ranks: number of ranks, each with files of its own.

    Raises:
        ValueError: an unknown format, a rank that does not exist, or several ranks for `features`.
    """

    def __init__(self, path: str | Path, format: str = "shards", rank: int = 0, ranks: int = 1) -> None:
        if format not in FORMATS:
            raise ValueError(f"format: {format!r}; choose one of {', '.join(FORMATS)}")
        if not 0 <= rank < ranks:
            raise ValueError(f"rank: {rank} of ranks: {ranks}; ranks count from 0")
        if Path(path).is_file():
            raise ValueError(f"out: {path} is a file; give a folder")
        self.path, self.format, self.rank, self.ranks = Path(path), format, rank, ranks

    def claim(self, same: Mapping[str, Any]) -> None:
        """Write the manifest, or make sure that the one that is there says the same.

        Args:
            same: what must not differ between runs into one folder: weights, data, settings.

        Raises:
            ValueError: the folder belongs to other weights, data or settings, or holds other things.
        """
        plain = json.loads(json.dumps({"format": self.format, "ranks": self.ranks, **same}, default=str))
        place = self.path / MANIFEST
        self._clear()
        if not place.is_file():
            if self.path.is_dir() and set(self.path.iterdir()) - set(leftovers(self.path)):
                raise ValueError(f"out: {self.path} holds other things; choose another out, or delete it")
            write_text(place, json.dumps(plain, indent=1))
            return
        before = read_record(place)
        differing = [key for key in plain if before.get(key) != plain[key]]
        if differing:
            raise ValueError(
                f"out: {self.path} was written with other {', '.join(differing)}; choose another out, or delete it"
            )

    def _clear(self) -> None:
        """Delete what a run has left that was killed while it wrote; other ranks may be at work on theirs."""
        own = [(self.path, f"{self.rank:03d}-*"), (self.path, self._state(self.rank).name)]
        shared = [(self.path, MANIFEST), (self.path, SIZES), (self.path / FEATURES, "*")] if self.ranks == 1 else []
        for folder, pattern in (*own, *shared):
            for half in leftovers(folder, pattern):
                half.unlink(missing_ok=True)

    def written(self) -> Written:
        """What this rank has written so far."""
        return self._read(self.rank) if self._state(self.rank).is_file() else Written()

    def _read(self, rank: int) -> Written:
        place = self._state(rank)
        with reading(place, "state of a rank", "choose another out, or delete the folder"):
            return Written(**read_record(place))

    def write(self, documents: Sequence[Document], state: Written) -> None:
        """Write a part and note it in `state`; killed in between, the next run writes the part again.

        Raises:
            ValueError: in Emu3's layout, a document that it has no place for.
        """
        if documents and self.format == "features":
            names = set(state.names)
            for document in documents:
                name = write_feature(self.path, document)
                if name in names:
                    raise ValueError(
                        f"two documents are named {document.key!r}; format=features has a file {name} for one: use "
                        "format=shards, or give each a name of its own"
                    )
                names.add(name)
                state.names.append(name)
        elif documents:
            name = f"{self.rank:03d}-{state.shards:05d}.tar"
            write_codes(self.path / name, documents, state.documents)
            state.names.append(name)
            state.sizes[name] = len(documents)
        state.shards += bool(documents)
        state.documents += len(documents)
        write_text(self._state(self.rank), json.dumps(asdict(state)))

    def finish(self) -> bool:
        """Write what readers ask for beside the files, once every rank is through; gives whether they are."""
        states = [self._read(r) for r in range(self.ranks) if self._state(r).is_file()]
        if len(states) < self.ranks or not all(state.complete for state in states):
            return False
        if self.format == "features":
            write_list(self.path, [name for state in states for name in state.names])
        else:
            sizes = {name: size for state in states for name, size in state.sizes.items()}
            write_text(self.path / SIZES, json.dumps(sizes, indent=1))
        return True

    def _state(self, rank: int) -> Path:
        return self.path / f"rank-{rank:03d}.json"
