"""Fused rows as an Arrow table of one schema for all units of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multimodal_zoo.captions.row_rules import SURROGATE
from multimodal_zoo.captions.rows import FusedRow

#: Columns that every table has, with the names of their Arrow types.
OWN = {
    "key": "string",
    "raw": "string",
    "synthetic": "list",
    "fused": "string",
    "status": "string",
    "reason": "string",
    "flags": "list",
    "attempts": "int32",
    "words_cut": "int32",
}
#: Values that fit no column of their own, as a JSON object; null where there are none.
MORE = "more"
#: Kinds of columns that are carried along and the Python types of their values; whatever else is written as JSON text.
KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (float, int),
    "truth": (bool,),
    "bytes": (bytes,),
    "json": (object,),
}
#: Whole numbers that a column of a kind holds exactly lie below these.
LARGEST = {"integer": 2**63, "number": 2**53}
ARROW = {
    "text": "string",
    "integer": "int64",
    "number": "float64",
    "truth": "bool_",
    "bytes": "binary",
    "json": "string",
}


def infer_kinds(samples: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The kind of each key of some objects: the narrowest that all its values fit; text where all are missing."""
    seen: dict[str, set[str]] = {}
    for sample in samples:
        for name, value in sample.items():
            kinds = seen.setdefault(name, set())
            if value is not None:
                kinds.add(_kind(value))
    found = {}
    for name, kinds in seen.items():
        numbers = kinds <= {"integer", "number"}
        found[name] = "text" if not kinds else kinds.pop() if len(kinds) == 1 else "number" if numbers else "json"
    return found


def _kind(value: Any) -> str:
    return next(kind for kind in ("text", "truth", "integer", "number", "bytes", "json") if _fits(value, kind))


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind in ("integer", "number"):
        return False
    if isinstance(value, int) and kind in LARGEST and not -LARGEST[kind] <= value < LARGEST[kind]:
        return False
    return isinstance(value, KINDS[kind])


def column_names(extra: Iterable[str]) -> dict[str, str]:
    """Names of the columns that are carried along by their names in the source; `source_` sets them off from ours."""
    taken = {*OWN, MORE}
    names = {}
    for name in extra:
        column = name
        while column in taken:
            column = f"source_{column}"
        taken.add(column)
        names[name] = column
    return names


def as_json(value: Any) -> str:
    """JSON that every reader takes, encodable as UTF-8, whatever the value holds; null for NaN and infinity."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        value = _finite(value)
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    return json.dumps(value, default=_plain) if SURROGATE.search(text) else text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class UnitTable:
    """Collects the rows of a unit, without their pictures, as columns.

    Args:
        kinds: of the columns that are carried along; None: inferred from the rows.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kinds: Mapping[str, str] | None = None) -> None:
        for name, kind in (kinds or {}).items():
            if kind not in KINDS:
                raise ValueError(f"kind of column {name!r} is {kind!r}; it must be one of {', '.join(KINDS)}")
        self.kinds = None if kinds is None else dict(kinds)
        self.own: dict[str, list[Any]] = {name: [] for name in OWN}
        self.extra: list[Mapping[str, Any]] = []

    def add(self, rows: Sequence[FusedRow]) -> None:
        """Add rows; a comprehension for each column costs less than a loop over the rows."""
        sources = [row.row for row in rows]
        own = self.own
        own["key"] += [row.key for row in sources]
        own["raw"] += [row.raw for row in sources]
        own["synthetic"] += [row.synthetic for row in sources]
        own["fused"] += [row.fused for row in rows]
        own["status"] += [row.status for row in rows]
        own["reason"] += [row.reason for row in rows]
        own["flags"] += [row.flags for row in rows]
        own["attempts"] += [row.attempts for row in rows]
        own["words_cut"] += [row.words_cut for row in rows]
        self.extra += [row.extra for row in sources]

    def arrow(self) -> Any:
        """The table: our columns, those that are carried along, and `more`."""
        import pyarrow as pa

        strings, lists = pa.string(), pa.list_(pa.string())
        types = {"string": strings, "list": lists, "int32": pa.int32()}
        columns = {}
        for name, kind in OWN.items():
            columns[name] = _own_array(self.own[name], types[kind])
        kinds = infer_kinds(self.extra) if self.kinds is None else self.kinds
        more: dict[int, dict[str, Any]] = {}
        for name, column in column_names(kinds).items():
            columns[column] = _array([extra.get(name) for extra in self.extra], name, kinds[name], more)
        known = set(kinds)
        for number, extra in enumerate(self.extra):
            if not known.issuperset(extra):
                unknown = {name: value for name, value in extra.items() if name not in known and value is not None}
                more.setdefault(number, {}).update(unknown)
        rest = [as_json(more[number]) if more.get(number) else None for number in range(len(self.extra))]
        columns[MORE] = pa.array(rest, strings)
        return pa.table(columns)


def _own_array(values: list[Any], type_: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, type_)
    except UnicodeEncodeError:  # an answer with half a character in it; rows were cleaned when they were read
        return pa.array([_clean(value) for value in values], type_)


def _clean(value: Any) -> Any:
    """Texts with lone surrogates replaced, as they cannot be written."""
    if isinstance(value, str):
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole
    return [_clean(one) for one in value]


def _array(values: list[Any], name: str, kind: str, more: dict[int, dict[str, Any]]) -> Any:
    """One column; values of another kind go to `more` of their row."""
    import pyarrow as pa

    type_ = getattr(pa, ARROW[kind])()
    if kind == "json":
        return pa.array([None if value is None else as_json(value) for value in values], type_)
    if kind in ("text", "bytes") or not any(isinstance(value, bool) for value in values) or kind == "truth":
        try:
            return pa.array(values, type_)
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
            pass
    kept: list[Any] = []
    for number, value in enumerate(values):
        fits = value is None or _fits(value, kind)
        kept.append((_clean(value) if kind == "text" and value is not None else value) if fits else None)
        if not fits:
            more.setdefault(number, {})[name] = value
    return pa.array(kept, type_)
