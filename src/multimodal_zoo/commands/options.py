"""Words of a command line that are no Hydra application: plain ones, and options `key=value`, mostly of a dataclass."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import fields
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar

from multimodal_zoo.commands.values import flag, listed, whole

T = TypeVar("T")


def taken(arguments: Sequence[str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The options with some names, as they stand, and all other words.

    Args:
        arguments: the words; of one option that stands twice the last counts.
        names: of the options.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if equals and key in names:
            values[key] = value
        else:
            rest.append(word)
    return values, rest


def separate(arguments: Sequence[str], kind: type[T]) -> tuple[list[str], T]:
    """Plain words, and the options.

    Args:
        arguments: the words; one with `=` that names a file, or begins like no option, is a plain one.
        kind: a dataclass whose fields are the options: texts, lists of texts, whole numbers, and true or false.

    Raises:
        ValueError: an unknown option, or a value that does not fit.
    """
    options, words = overridden(arguments, kind)
    for word in words:
        key, equals, _ = word.partition("=")
        if equals and re.fullmatch(r"[a-z_]+", key) and not Path(word).exists():
            raise ValueError(f"{word}: no option {key!r}; there are {', '.join(names(kind))}")
    return words, options


def overridden(arguments: Sequence[str], kind: type[T]) -> tuple[T, list[str]]:
    """The options, and all other words, which are overrides.

    Args:
        arguments: the words.
        kind: as in `separate`.

    Raises:
        ValueError: a value that does not fit.
    """
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    values, words = taken(arguments, known)
    return kind(**{key: _typed(key, value, known[key]) for key, value in values.items()}), words


def names(*kinds: type[Any]) -> list[str]:
    """The options of some dataclasses."""
    return [field.name for kind in kinds for field in fields(kind)]


def described(kind: type[Any]) -> str:
    """A line for each option: `key=DEFAULT`, and what the docstring says under Attributes.

    Args:
        kind: as in `separate`; of what it inherits the docstring counts too.
    """
    said: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        said |= dict(
            re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", cleandoc(one.__dict__.get("__doc__") or ""), re.MULTILINE)
        )
    keys = {field.name: f"{field.name}={_shown(field.default)}" for field in fields(kind)}
    width = max(map(len, keys.values()))
    return "\n".join(
        f"  {key:<{width}}  {' '.join(said.get(name, '').split())}".rstrip(" .") for name, key in keys.items()
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in (None, ()) else str(value)


def _typed(key: str, value: str, kind: str) -> Any:
    if kind.startswith("bool"):
        return flag(key, value)
    if kind.startswith("int"):
        return whole(key, value)
    return tuple(listed(value)) if kind.startswith("tuple") else value
