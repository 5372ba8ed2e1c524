"""Columns of parquet files: opening, what they can hold, and judging captions a column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal_zoo.captions.sources import ADVICE, BrokenFileError
from multimodal_zoo.packages import needed

#: Bytes of a column that are read at a time: a column of a row group may be larger than memory.
BUFFER = 1 << 20
#: Bytes that make a caption suspicious: ASCII control characters but for white space.
SUSPICIOUS = np.array([(byte < 32 and not 9 <= byte <= 13) or byte == 127 for byte in range(256)])


def open_parquet(file: str) -> Any:
    """A parquet file that is read piece by piece.

    Raises:
        ModuleNotFoundError: pyarrow is missing.
        BrokenFileError: the file is no parquet file, or cut off.
        FileNotFoundError: it is not there.
    """
    pa, parquet = (needed(name, file, "captions") for name in ("pyarrow", "pyarrow.parquet"))
    try:
        return parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8
        raise BrokenFileError(f"{file} is no whole parquet file: {error}; {ADVICE}") from error


def clean_texts(column: Any, longest: int) -> list[str] | None:
    """A column as texts if each row has one: UTF-8, not blank, not over-long, without control characters.

    The column is judged as one piece of memory, which costs a hundredth of judging its rows.

    Args:
        column: an Arrow array of strings, shorter than its whole or not.
        longest: characters allowed.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type != pa.string() and column.type != pa.large_string():
        return None
    if column.null_count or not len(column):
        return None
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return None
    _, offsets, data = column.buffers()
    width = np.int32 if column.type == pa.string() else np.int64
    ends = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1]
    content = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.zeros(0, np.uint8)
    lengths = np.diff(ends)
    if lengths.max() > longest and pc.max(pc.utf8_length(column)).as_py() > longest:
        return None
    if SUSPICIOUS[content].any() or pc.any(pc.utf8_is_space(column)).as_py() or lengths.min() == 0:
        return None
    texts: list[str] = column.to_pylist()
    return texts


def values_of(column: Any) -> list[Any]:
    """A column as Python values; text that is not UTF-8 as bytes, dates and decimals as text."""
    import pyarrow as pa

    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_value(one) for one in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if hasattr(scalar, "as_buffer"):
            return scalar.as_buffer().to_pybytes()
        return [_value(one) for one in scalar.values]  # a list of texts


def holds_texts(type_: Any) -> bool:
    """Whether a column of this type can hold captions."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(type_):
        return holds_texts(type_.value_type)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return holds_texts(type_.value_type)
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(check(type_) for check in texts) or types.is_binary(type_) or types.is_large_binary(type_)


def holds_pictures(type_: Any) -> bool:
    """Whether a column of this type can hold encoded pictures: bytes, or a struct with a field `bytes`."""
    import pyarrow as pa

    if pa.types.is_struct(type_):
        return any(type_.field(number).name == "bytes" for number in range(type_.num_fields))
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_null(type_)


def kind_of(type_: Any) -> str:
    """The kind of a column that is carried along, by its Arrow type."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_boolean(type_):
        return "truth"
    if types.is_integer(type_):
        return "json" if type_ == pa.uint64() else "integer"
    if types.is_floating(type_):
        return "number"
    if types.is_binary(type_) or types.is_large_binary(type_):
        return "bytes"
    plain = (
        types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_) or types.is_null(type_)
    )
    return "text" if plain or types.is_temporal(type_) or types.is_decimal(type_) else "json"
