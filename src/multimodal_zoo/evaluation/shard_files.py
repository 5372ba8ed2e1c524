"""One shard of embeddings as a file: columns, and facts about them that can be read without the columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_zoo.files import atomic_file, reading
from multimodal_zoo.packages import needed

Columns = Mapping[str, "Sequence[Any] | np.ndarray"]
#: Under this name the facts are kept beside the columns.
ABOUT = "mmzoo"


class Format(NamedTuple):
    """How shards of one suffix are written and read."""

    write: Callable[[Path, Columns, str], None]
    read: Callable[[Path, Sequence[str]], dict[str, np.ndarray]]
    about: Callable[[Path], str]


def _write_npz(path: Path, columns: Columns, about: str) -> None:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays, **{ABOUT: np.asarray(about)})  # type: ignore[arg-type]


def _read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names if name in arrays}


def _about_npz(path: Path) -> str:
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays[ABOUT])


def _pyarrow() -> Any:
    needed("pyarrow.parquet", "format=parquet", "eval", "choose format=npz")
    return needed("pyarrow", "format=parquet", "eval", "choose format=npz")


def _write_parquet(path: Path, columns: Columns, about: str) -> None:
    pa = _pyarrow()
    arrays, fields = [], []
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            kind = pa.list_(pa.field("item", flat.type, nullable=False), values.shape[1])  # reads faster than nullable
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
        else:
            arrays.append(pa.array(values, pa.string()))
        fields.append(pa.field(name, arrays[-1].type, nullable=False))
    table = pa.table(arrays, schema=pa.schema(fields, {ABOUT: about}))
    words = [field.name for field in fields if field.type == pa.string()]
    # embeddings look like noise: compressing them costs time on both ends and gains nothing
    packed = {field.name: "snappy" if field.name in words else "none" for field in fields}
    pa.parquet.write_table(table, path, compression=packed, use_dictionary=words, write_statistics=words)


def _read_parquet(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    pa = _pyarrow()
    with pa.parquet.ParquetFile(path, memory_map=True) as file:
        wanted = [name for name in names if name in file.schema_arrow.names]
        table = file.read(columns=wanted)
    found = {}
    for name in wanted:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            found[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        else:
            found[name] = column.to_numpy(zero_copy_only=False)
    return found


def _about_parquet(path: Path) -> str:
    return _pyarrow().parquet.read_schema(path).metadata[ABOUT.encode()].decode()  # type: ignore[no-any-return]


#: Format of shards -> its suffix is the name.
FORMATS: dict[str, Format] = {
    "parquet": Format(_write_parquet, _read_parquet, _about_parquet),
    "npz": Format(_write_npz, _read_npz, _about_npz),
}


def require_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ValueError: an unknown one.
        ModuleNotFoundError: the library that it needs is missing.
    """
    if name not in FORMATS:
        raise ValueError(f"format: {name!r} is unknown; choose {' or '.join(FORMATS)}")
    if name == "parquet":
        _pyarrow()
    return FORMATS[name]


def write_shard(path: Path, columns: Columns, about: Mapping[str, Any]) -> None:
    """Write a shard; it appears under its name only when it is complete.

    Args:
        path: its suffix is the format.
        columns: lists of texts, or arrays `(rows, width)`.
        about: facts that JSON can hold.
    """
    with atomic_file(path) as partial:
        FORMATS[path.suffix[1:]].write(partial, columns, json.dumps(about))


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a shard as arrays; those that it does not have are left out.

    Raises:
        ValueError: the file is damaged.
    """
    return _guarded(path, lambda: FORMATS[path.suffix[1:]].read(path, names))  # type: ignore[no-any-return]


def read_about(path: Path) -> dict[str, Any]:
    """The facts beside the columns.

    Raises:
        ValueError: the file is damaged, or nothing that `write_shard` wrote.
    """
    return _guarded(path, lambda: json.loads(FORMATS[path.suffix[1:]].about(path)))  # type: ignore[no-any-return]


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    with reading(path, "shard of embeddings", "delete it to have it made again"):
        return read()
