"""A folder of embeddings of one model and one data set: numbered shards, and `manifest.json` that says what they hold.

Each rank has shards of its own, `000-00000.parquet`, `000-00001.parquet`, ..., and when it is through `rank-000.json`;
whoever comes last adds everything up in the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.data.skips import Skips
from multimodal_zoo.evaluation.shard_files import FORMATS, Columns, read_about, write_shard
from multimodal_zoo.files import leftovers, read_record, reading, write_text

MANIFEST = "manifest.json"


class EmbeddingFolder:
    """Where the shards of a run lie.

    Args:
        path: the folder.
        suffix: format of the shards.
        rank: this rank.
        ranks: number of ranks.
    """

    def __init__(self, path: str | Path, suffix: str, rank: int = 0, ranks: int = 1) -> None:
        self.path = Path(path)
        self.suffix, self.rank, self.ranks = suffix, rank, ranks

    @classmethod
    def open(cls, path: str | Path) -> tuple[EmbeddingFolder, dict[str, Any]]:
        """A folder that a run has written, and its manifest.

        Raises:
            FileNotFoundError: no manifest there.
            ValueError: a manifest of something else.
        """
        place = Path(path)
        if not (place / MANIFEST).is_file():
            raise FileNotFoundError(f"{place} holds no {MANIFEST}; give a folder that mmzoo embed has written")
        manifest = read_record(place / MANIFEST)
        if (
            not {"format", "model", "data", "weights", "ranks"} <= set(manifest)
            or str(manifest["format"]) not in FORMATS
        ):
            raise ValueError(f"{place / MANIFEST} does not describe embeddings; give a folder that mmzoo embed wrote")
        with reading(place / MANIFEST, "manifest of embeddings", "give a folder that mmzoo embed wrote"):
            return cls(place, manifest["format"], ranks=int(manifest["ranks"])), manifest

    def shard(self, number: int) -> Path:
        """The file of one of this rank's shards."""
        return self.path / f"{self.rank:03d}-{number:05d}.{self.suffix}"

    def shards(self) -> list[Path]:
        """The shards of all ranks that are there, in order."""
        return sorted(self.path.glob(f"[0-9][0-9][0-9]-[0-9]*.{self.suffix}"))

    def claim(self, same: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write the manifest, or make sure that the one that is there says the same.

        Args:
            same: what must not differ between runs into one folder: weights, data, settings.
            facts: what is noted beside it.

        Raises:
            ValueError: the folder belongs to other weights, data or settings, or holds shards but no manifest.
        """
        plain = json.loads(json.dumps(dict(same), default=str))
        if (self.path / MANIFEST).is_file():
            before = read_record(self.path / MANIFEST)
            differing = [key for key in plain if before.get(key) != plain[key]]
            if differing:
                raise ValueError(
                    f"out: {self.path} was written with other {', '.join(differing)}; choose another out, or delete it"
                )
        elif self.shards():
            raise ValueError(f"out: {self.path} holds shards but no {MANIFEST}; choose another out, or delete it")
        else:
            self._note(self.path / MANIFEST, {**plain, **facts, "complete": False})
        for pattern in (f"{self.rank:03d}-*", f"rank-{self.rank:03d}.json", *([MANIFEST] if self.ranks == 1 else [])):
            for half in leftovers(self.path, pattern):  # of a run that was killed while it wrote
                half.unlink(missing_ok=True)

    def write(self, number: int, columns: Columns, about: Mapping[str, Any]) -> None:
        """Write one shard; it appears under its name only when it is complete."""
        write_shard(self.shard(number), columns, about)

    def about(self, number: int) -> dict[str, Any] | None:
        """What a shard says of itself, None if it is not there."""
        path = self.shard(number)
        return read_about(path) if path.is_file() else None

    def finished(self) -> dict[str, Any] | None:
        """What this rank noted when it was through, None before that or when shards were deleted since."""
        path = self._state(self.rank)
        if not path.is_file():
            return None
        state = read_record(path)
        with reading(path, "state of a rank", "delete it, and the rank is counted anew"):
            return state if all(self.shard(n).is_file() for n in range(state["shards"])) else None

    def finish(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Note that this rank is through; the last of the ranks completes the manifest.

        Args:
            state: `shards`, `documents`, `images`, `texts`, `skipped` (by reason), `examples`, `seconds`.

        Returns:
            The manifest.
        """
        self._note(self._state(self.rank), state)
        states = [read_record(self._state(r)) for r in range(self.ranks) if self._state(r).is_file()]
        manifest = read_record(self.path / MANIFEST)
        if len(states) < self.ranks:
            return manifest
        counts = {key: sum(s[key] for s in states) for key in ("images", "texts")}
        totals: dict[str, Any] = {"documents": sum(s["documents"] for s in states), "counts": counts}
        skips = Skips()
        for each in states:
            skips.update(Skips.of(each["skipped"], each["examples"]))
        totals["skipped"], totals["skipped_examples"] = dict(skips.counts), skips.examples
        seconds = {kind: sum(s["seconds"][kind] for s in states) / self.ranks for kind in ("images", "texts")}
        totals["per_second"] = {kind: round(counts[kind] / taken, 2) for kind, taken in seconds.items() if taken}
        manifest = {**manifest, **totals, "shards": sum(s["shards"] for s in states), "complete": True}
        self._note(self.path / MANIFEST, manifest)
        return manifest

    def _state(self, rank: int) -> Path:
        return self.path / f"rank-{rank:03d}.json"

    def _note(self, path: Path, facts: Mapping[str, Any]) -> None:
        write_text(path, json.dumps(facts, indent=1, default=str, ensure_ascii=False))
