"""Packages that only some features need; the standard library only."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(module: str, purpose: str, extra: str, instead: str = "") -> Any:
    """A module of a package that is not always installed.

    Args:
        module: its name, `transformers` or `py3langid.langid`.
        purpose: what needs it, for the error: the name of a command, part or key.
        extra: of this library, with which it is installed.
        instead: what else can be done.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        name = error.name or module  # packages that raise the error themselves seldom say its name
        way = f"{purpose} needs the package {name}: pip install 'multimodal_zoo[{extra}]'"
        raise ModuleNotFoundError(f"{way}, or {instead}" if instead else way, name=name) from None
