"""What the library declares, read from file names only: no YAML is parsed and neither Hydra nor torch is imported."""

from __future__ import annotations

import difflib
import re
from fnmatch import fnmatch
from importlib.resources import files
from typing import Any


def _walk(folder: Any, prefix: str = "") -> list[str]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith(("_", ".")):
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            found.append(prefix + entry.name.removesuffix(".yaml"))
    return found


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def list_group(group: str, pattern: str = "*") -> list[str]:
    """Names of the YAML files in one group of `conf/` (`model`, `encoder`, `objective`, ...), naturally sorted."""
    folder = files("multimodal_zoo.conf").joinpath(group)
    return sorted((n for n in _walk(folder) if fnmatch(n, pattern)), key=_natural) if folder.is_dir() else []


def list_groups() -> list[str]:
    """Names of the groups in `conf/`."""
    return sorted(e.name for e in files("multimodal_zoo.conf").iterdir() if e.is_dir() and not e.name.startswith("_"))


def list_models(pattern: str = "*") -> list[str]:
    """Names of the published variants that match a shell pattern, naturally sorted."""
    return list_group("model", pattern)


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes (`quickstart`, `clip/...`) that match a shell pattern, naturally sorted."""
    return sorted((n for n in _walk(files("multimodal_zoo.recipes")) if fnmatch(n, pattern)), key=_natural)


def require(name: str, known: list[str], what: str, key: str) -> str:
    """Return `name` if it is known.

    Raises:
        KeyError: with the nearest known names and the key (or argument) to change.
    """
    if name in known:
        return name
    raise unknown(name, known, what, key)


def unknown(name: str, known: list[str], what: str, key: str) -> KeyError:
    """The error for a name that is not known, with the nearest known names and the key (or argument) to change."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"closest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
    return KeyError(f"{key}: no {what} named {name!r}; {hint}")
