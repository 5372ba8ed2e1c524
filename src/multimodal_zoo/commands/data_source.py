"""What the DATA word of a command means: a folder, a table, tar shards or a data configuration, as overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.catalogue import list_group, unknown
from multimodal_zoo.config import quoted
from multimodal_zoo.data.shards import REMOTE

TARS = re.compile(r"\.(tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".txt")
#: What columns of paths and of captions are called, in the order in which they are looked for.
IMAGE_COLUMNS = ("filepath", "image", "path", "image_path", "file_name", "filename", "file")
TEXT_COLUMNS = ("title", "caption", "text", "captions", "TEXT")


def data_overrides(word: str) -> list[str]:
    """The overrides that choose the data which a word names.

    Args:
        word: a folder of pictures or of tar shards, a table, tar shards (paths or addresses with braces, globs and
            `::`), or a file name of `conf/data`.

    Raises:
        FileNotFoundError: a path that is not there.
        KeyError: no such data configuration, with the nearest.
        ValueError: a folder or file that holds none of these.
    """
    path = Path(word).expanduser()
    if REMOTE.match(word) or TARS.search(word):
        return _tars(word)
    if path.is_dir():
        return _folder(path.resolve())
    if path.is_file():
        if path.suffix.lower() in TABLES:
            return _table(path.resolve())
        raise ValueError(f"data: {word} is no table ({', '.join(TABLES)}) and no tar shard")
    if word in list_group("data"):
        return [f"data={word}"]
    if os.sep in word or path.suffix:
        raise FileNotFoundError(f"data: nothing at {word}; give a folder, a table, tar shards or a data configuration")
    raise unknown(word, list_group("data"), "data configuration or path", "data")


def _tars(pattern: str) -> list[str]:
    parts = [p if REMOTE.match(p) else os.path.abspath(os.path.expanduser(p)) for p in pattern.split("::")]
    return _set("webdataset", {"sources": "::".join(parts)}, need_caption=False)


def _folder(path: Path) -> list[str]:
    from multimodal_zoo.data.folder_pictures import pictures_below

    if next(pictures_below(path), None) is not None:
        return _set("pictures", {"folder": str(path)}, need_caption=False)
    tars = sorted(entry.name for entry in path.iterdir() if TARS.search(entry.name))
    if tars:
        return _set("webdataset", {"sources": [str(path / name) for name in tars]}, need_caption=False)
    raise ValueError(f"data: {path} holds neither pictures nor tar shards")


def _table(path: Path) -> list[str]:
    if path.suffix.lower() in (".parquet", ".pq") and _holds_pictures(path):
        return ["data=huggingface", f"data.train.path={quoted(str(path))}"]
    columns = _columns(path)
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    text = next((name for name in TEXT_COLUMNS if name in columns), None)
    if image is None and text is None:
        raise ValueError(
            f"data: {path.name} has columns {', '.join(columns)}; name those of paths and captions yourself: "
            f"data=folder data.train.table={path.name} data.train.folder=. data.train.image=... data.train.text=..."
        )
    named = {"table": str(path), "folder": str(path.parent), "image": image, "text": text}
    return _set("folder", named, need_caption=image is None)


def _columns(path: Path) -> list[str]:
    from multimodal_zoo.data.tables import rows_of

    return [str(name) for name in next(rows_of(path), {})]


def _holds_pictures(path: Path) -> bool:
    import pyarrow as pa

    from multimodal_zoo.data.tables import parquet_file

    schema = parquet_file(path).schema_arrow
    return any(pa.types.is_struct(field.type) or pa.types.is_binary(field.type) for field in schema)


def _set(option: str, values: dict[str, Any], *, need_caption: bool) -> list[str]:
    words = [f"data={option}", f"data.train.need_caption={str(need_caption).lower()}"]
    for key, value in values.items():
        words.append(f"data.train.{key}={_written(value)}")
    return words


def _written(value: str | Sequence[str] | None) -> str:
    if value is None:
        return "null"
    return quoted(value) if isinstance(value, str) else f"[{','.join(map(quoted, value))}]"
