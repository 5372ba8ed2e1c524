"""What is declared, read from file names only: no YAML is parsed and neither Hydra nor torch is imported.

Declarations lie in packages of YAML files: the library's own `multimodal_zoo.conf` and `multimodal_zoo.recipes`, and
those that installed packages name under the entry point groups of the same names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any


@cache
def packages(kind: str) -> tuple[str, ...]:
    """The packages that hold YAML files of a kind, `conf` or `recipes`; a name in several is taken from the first.

    Raises:
        ImportError: an installed package names one that cannot be imported, with the entry point.
    """
    own = f"multimodal_zoo.{kind}"
    named = entry_points(group=own)
    for entry in named:
        try:
            files(entry.value)
        except (ImportError, TypeError) as error:
            raise ImportError(f"{own}: the entry point {entry.name} = {entry.value} names no package") from error
    return (own, *sorted({entry.value for entry in named}))


def _folders(kind: str) -> list[Any]:
    return [files(package) for package in packages(kind)]


def _walk(folder: Any, prefix: str = "") -> list[str]:
    found = []
    for entry in folder.iterdir():
        if _is_group(entry):
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            found.append(prefix + entry.name.removesuffix(".yaml"))
    return found


def _is_group(entry: Any) -> bool:
    """Whether an entry of a folder is a folder of YAML files: no cache of Python, nor one that an editor hides."""
    return bool(entry.is_dir()) and not entry.name.startswith(("_", "."))


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def list_group(group: str, pattern: str = "*") -> list[str]:
    """Names of the YAML files in one group of `conf/` (`model`, `encoder`, `objective`, ...), naturally sorted."""
    folders = [folder.joinpath(group) for folder in _folders("conf")]
    names = {name for folder in folders if folder.is_dir() for name in _walk(folder)}
    return sorted((n for n in names if fnmatch(n, pattern)), key=_natural)


def declared_file(group: str, name: str) -> Any:
    """The YAML file of a name from `list_group(group)`."""
    places = [folder.joinpath(group).joinpath(f"{name}.yaml") for folder in _folders("conf")]
    return next(place for place in places if place.is_file())


def list_groups() -> list[str]:
    """Names of the groups in `conf/`."""
    entries = [entry for folder in _folders("conf") for entry in folder.iterdir()]
    return sorted({entry.name for entry in entries if _is_group(entry)})


def list_models(pattern: str = "*") -> list[str]:
    """Names of the published variants that match a shell pattern, naturally sorted."""
    return list_group("model", pattern)


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes (`quickstart`, `clip/...`) that match a shell pattern, naturally sorted."""
    names = {name for folder in _folders("recipes") for name in _walk(folder)}
    return sorted((n for n in names if fnmatch(n, pattern)), key=_natural)


def require(name: str, known: list[str], what: str, key: str) -> str:
    """Return `name` if it is known.

    Raises:
        KeyError: with the nearest known names and the key (or argument) to change.
    """
    if name in known:
        return name
    raise unknown(name, known, what, key)


def chosen(names: Sequence[str], patterns: Sequence[str] | None, what: str, key: str) -> list[str]:
    """The names that fit any of some shell patterns, in their own order; all of them for None.

    Raises:
        KeyError: a pattern that no name fits, see `unknown`.
    """
    for pattern in patterns or ():
        if not any(fnmatch(name, pattern) for name in names):
            raise unknown(pattern, list(names), what, key)
    return [name for name in names if patterns is None or any(fnmatch(name, pattern) for pattern in patterns)]


def unknown(name: str, known: list[str], what: str, key: str) -> KeyError:
    """The error for a name that is not known, with the nearest known names and the key (or argument) to change."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"closest: {', '.join(near)}" if near else f"known: {', '.join(known)}" if known else "there is none"
    return KeyError(f"{key}: no {what} named {name!r}; {hint}")
