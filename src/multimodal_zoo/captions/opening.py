"""Opening whatever holds captions: a file, a folder, a pattern or a list of them, of any kind that is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from multimodal_zoo.captions.columns import as_columns
from multimodal_zoo.captions.json_source import JsonSource
from multimodal_zoo.captions.parquet_source import ParquetSource
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.sources import Source
from multimodal_zoo.captions.tar_source import TarSource
from multimodal_zoo.data.shards import REMOTE, expand
from multimodal_zoo.registry import CAPTIONS

#: Kinds of files by their suffixes, in the order in which a folder is searched: img2dataset puts parquet and JSON files
#: about its work beside its tars, so that tars go first.
KINDS: dict[str, tuple[type[Source], tuple[str, ...]]] = {
    "tars": (TarSource, (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")),
    "parquet": (ParquetSource, (".parquet", ".pq")),
    "json lines": (JsonSource, (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")),
    "json": (JsonSource, (".json", ".json.gz")),
}

#: What a run writes first into its folder.
MANIFEST = "manifest.json"


@CAPTIONS.register_module(name="caption_source")
def open_source(
    path: str | os.PathLike[str] | Sequence[str],
    *,
    raw: str | None = None,
    synthetic: str | Sequence[str] | None = None,
    url: str | None = None,
    key: str | None = None,
    image: str | None = None,
    extra: str | Sequence[str] = "all",
    rules: RowRules | None = None,
    broken_files: str = "error",
) -> Source:
    """A source of captions: the kind of file is recognised, and so are the columns that are not named.

    Args:
        path: a file, a folder, a pattern (`part-{00..03}.parquet`, `*.tar`) or a list of them; files of one kind.
        raw: column of the web caption.
        synthetic: column or columns of the captions that models wrote.
        url: column of the picture's address, from which keys are made.
        key: column of keys, unique in the source.
        image: column of the encoded picture; tars have it as a member.
        extra: columns to carry along: all, or a list.
        rules: what a row must be; see `RowRules`.
        broken_files: "error", or "report": what cannot be read of a file becomes a unit with a problem.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: files of an unknown kind or of several kinds, a remote address, an unknown word.
    """
    files = find_files(path)
    kinds = {file: kind_of(file) for file in files}
    if len(set(kinds.values())) != 1:
        raise ValueError(f"source.path: {path!r} has files of several kinds: {', '.join(sorted(set(kinds.values())))}")
    columns = as_columns(raw, synthetic, url, key, image, extra)
    return KINDS[kinds[files[0]]][0](files, columns, rules, broken_files)


def find_files(path: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """The files of a path, folder, pattern or list, in order, each once.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a remote address.
    """
    listed = [os.fspath(path)] if isinstance(path, (str, os.PathLike)) else [os.fspath(one) for one in path]
    for one in listed:
        if REMOTE.match(one):
            raise ValueError(
                f"source.path is {one!r}; captions are read from local or mounted files: download it first"
            )
    found: dict[str, None] = {}
    for one in expand(listed, "source.path"):
        found.update(dict.fromkeys(_in_folder(Path(one)) if os.path.isdir(one) else [one]))
    if not found:
        raise FileNotFoundError(f"source.path: nothing at {path!r}")
    return list(found)


def kind_of(file: str) -> str:
    """The kind of a file by its suffix.

    Raises:
        ValueError: an unknown suffix.
    """
    for kind, (_, suffixes) in KINDS.items():
        if file.lower().endswith(suffixes):
            return kind
    known = ", ".join(suffix for _, suffixes in KINDS.values() for suffix in suffixes)
    raise ValueError(f"source.path: {file} is of no kind that is known by its suffix; known are {known}")


def _is_output(folder: Path) -> bool:
    """Whether a run writes its results there, finished or not."""
    return any((folder / name).is_dir() for name in ("records", "work"))


def _in_folder(folder: Path) -> list[str]:
    """Files of the first kind that a folder has, those of its folders among them; a run's output is its parquet.

    Outputs of runs inside the folder are left out: a run into a folder below its data would else read itself.

    Raises:
        FileNotFoundError: no file of any kind.
    """
    if (folder / "records").is_dir() and (folder / "parquet").is_dir():
        folder = folder / "parquet"
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]
    outputs = {path.parent for path in files if path.name == MANIFEST and _is_output(path.parent)} - {folder}
    names = sorted(str(path) for path in files if outputs.isdisjoint(path.parents))
    for kind, (_, suffixes) in KINDS.items():
        found = [name for name in names if name.lower().endswith(suffixes)]
        if found and kind == "json":
            found = [name for name in found if not name.endswith("_stats.json")]
        if found:
            return found
    raise FileNotFoundError(f"source.path: {folder} has no file of captions: tars, parquet, JSON lines or JSON")
