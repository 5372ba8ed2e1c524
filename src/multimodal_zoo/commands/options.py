"""Words of a command line that are no Hydra application: plain ones, and options `key=value` of a dataclass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from multimodal_zoo.commands.values import flag, whole

T = TypeVar("T")


def separate(arguments: Sequence[str], kind: type[T]) -> tuple[list[str], T]:
    """Plain words, and the options.

    Args:
        arguments: the words; one with `=` that names a file, or begins like no option, is a plain one.
        kind: a dataclass whose fields are the options: texts, whole numbers, and true or false.

    Raises:
        ValueError: an unknown option, or a value that does not fit.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    words: list[str] = []
    values: dict[str, Any] = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if equals and key in known:
            values[key] = _typed(key, value, str(known[key].type))
        elif equals and re.fullmatch(r"[a-z_]+", key) and not Path(word).exists():
            raise ValueError(f"{word}: no option {key!r}; there are {', '.join(known)}")
        else:
            words.append(word)
    return words, kind(**values)


def _typed(key: str, value: str, kind: str) -> Any:
    if kind.startswith("bool"):
        return flag(key, value)
    if kind.startswith("int"):
        return whole(key, value)
    return value
