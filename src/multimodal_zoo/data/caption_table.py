"""Captions of documents by key: what `mmzoo fuse` wrote, or any table with the same columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.data.shards import expand
from multimodal_zoo.data.tables import PARQUET, parquet_file, rows_of
from multimodal_zoo.files import parsed
from multimodal_zoo.registry import DATASETS

#: What a caption can be, by the names of the columns that `mmzoo fuse` writes; `rewrite` is another run's.
KINDS = ("raw", "synthetic", "rewrite", "fused")
STATUS, ACCEPTED = "status", "fused"
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", *PARQUET)


def texts_of(row: Mapping[str, Any], kind: str) -> list[str]:
    """The captions of one kind in a row: none that are blank, and no fused one that was rejected.

    Args:
        row: a text or a list of texts for each of `KINDS`; `status` as `mmzoo fuse` writes it, if there is one.
        kind: one of `KINDS`.
    """
    if kind == ACCEPTED and row.get(STATUS) not in (ACCEPTED, None):
        return []
    value = row.get(kind)
    values = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]


@DATASETS.register_module(name="caption_table")
class CaptionTable:
    """Captions by key, in memory: parquet as Arrow, and sixteen bytes a key to find it.

    Of several rows with one key the first one counts.

    Args:
        path: a .parquet, .jsonl, .csv or .tsv file, a pattern or a folder of such, or a folder that `mmzoo fuse` wrote.
        key: column of the keys.
        columns: column of each of `KINDS` where it has another name, e.g. `{rewrite: fused}` for a run that rewrote
            captions, `{raw: laion_2b, synthetic: laion_coco, fused: capsfusion}` for CapsFusion-120M.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a column that it does not have, or no row with a key.
    """

    def __init__(self, path: str, key: str = "key", columns: Mapping[str, str] | None = None) -> None:
        named = dict(columns or {})
        if unknown := sorted(set(named) - set(KINDS)):
            raise ValueError(f"caption_table.columns has {unknown[0]!r}; known: {', '.join(KINDS)}")
        self.path = path
        names = {kind: named.get(kind, kind) for kind in KINDS}
        needed, wanted = [key, *named.values()], [STATUS, *names.values()]
        self._parts = [_Part(_columns(file, needed, wanted), key, names) for file in _files(path)]
        self.kinds = tuple(kind for kind in KINDS if any(kind in part.columns for part in self._parts))
        self._starts = np.cumsum([0, *(len(part.keys) for part in self._parts)])
        hashes = np.concatenate([_hashes(part.keys) for part in self._parts])
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        if not len(self):
            raise ValueError(f"caption_table.key: {path} has no row with text in its column {key!r}")

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def row(self, key: str) -> dict[str, Any]:
        """The captions of a key by kind, for `texts_of`.

        Raises:
            ValueError: no row has this key.
        """
        found = self._find(key)
        if found is None:
            raise ValueError(
                f"data.captions.texts: no row of {self.path} has the key {key!r}; it has {len(self):,} rows, "
                f"{self.item(0)[0]!r} for one. Its column and the documents' fact are named by "
                "data.captions.texts.key and data.captions.by; data.captions.otherwise says what others get"
            )
        part, number = found
        return {kind: _plain(column[number]) for kind, column in part.columns.items()}

    def item(self, index: int) -> tuple[str, dict[str, Any]]:
        """The key and the captions of a row by its number, in the order of the files.

        Raises:
            IndexError: no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"caption_table has {len(self)} rows, no number {index}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part, row = self._parts[number], index - int(self._starts[number])
        return str(_plain(part.keys[row])), {kind: _plain(column[row]) for kind, column in part.columns.items()}

    def _find(self, key: str) -> tuple[_Part, int] | None:
        wanted = _hash(key)
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            index = int(self._order[place])
            number = int(np.searchsorted(self._starts, index, side="right")) - 1
            part, row = self._parts[number], index - int(self._starts[number])
            if str(_plain(part.keys[row])) == key:
                return part, row
            place += 1
        return None


class _Part:
    """One file's columns, without the rows that have no key."""

    def __init__(self, found: dict[str, Any], key: str, names: Mapping[str, str]) -> None:
        self.keys = found[key]
        self.columns = {kind: found[name] for kind, name in names.items() if name in found}
        if STATUS in found:
            self.columns[STATUS] = found[STATUS]


def _files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_dir():
        inner = place / "parquet" if (place / "parquet").is_dir() else place
        names = (file for file in inner.iterdir() if not file.name.startswith("."))
        files = sorted(file for file in names if file.suffix.lower() in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"caption_table.path: {path} holds no {', '.join(SUFFIXES)} file")
        return files
    files = [Path(file) for file in expand(str(place), "caption_table.path")]
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise ValueError(f"caption_table.path is {str(file)!r}; it must end in {', '.join(SUFFIXES)}")
    return files


def _columns(file: Path, needed: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """Needed columns (the key's first) and those of the wanted ones that a file has; rows without a key left out."""
    key, names = needed[0], dict.fromkeys([*needed, *wanted])
    if file.suffix.lower() in PARQUET:
        opened = parquet_file(file)
        known = _check_columns(file, opened.schema_arrow.names, needed)
        table = opened.read(columns=[name for name in names if name in known])
        table = table.filter(table.column(key).is_valid())
        return {name: table.column(name) for name in table.column_names}
    rows = list(rows_of(file))
    known = _check_columns(file, list(dict.fromkeys(name for row in rows for name in row)), needed)
    rows = [row for row in rows if row.get(key) not in (None, "")]
    return {name: [_listed(row.get(name)) for row in rows] for name in names if name in known}


def _check_columns(file: Path, known: list[str], needed: Sequence[str]) -> list[str]:
    for name in needed:
        if name not in known:
            raise ValueError(f"caption_table: {file} has no column {name!r}; it has {', '.join(known) or 'none'}")
    return known


def _listed(value: Any) -> Any:
    """A cell; lists of texts stand in tables of text files as JSON."""
    if isinstance(value, str) and value.startswith("["):
        try:
            found = parsed(value)
        except ValueError:
            return value
        return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else value
    return value


def _plain(value: Any) -> Any:
    return value.as_py() if hasattr(value, "as_py") else value


def _hash(key: str) -> np.uint64:
    content = str(key).encode("utf-8", "surrogatepass")
    return np.uint64(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))


def _hashes(keys: Any) -> np.ndarray:
    return np.fromiter((_hash(_plain(key)) for key in keys), np.uint64, len(keys))
