"""Which parameters train, by shell patterns over their names (`image.blocks.*`, `*.adapter.*`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn


def matching(patterns: Sequence[str], names: Iterable[str], path: str) -> set[str]:
    """The names that match any of the patterns.

    Raises:
        ValueError: one pattern matches nothing; the message names it, its configuration key and some names.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            raise ValueError(f"{path}: pattern {pattern!r} matches no parameter; names look like {some_names(names)}")
        found.update(hits)
    return found


def freeze(
    parameters: Mapping[str, nn.Parameter], *, frozen: Sequence[str], only: Sequence[str], path: str
) -> list[str]:
    """Stop the gradient of some parameters and return their names.

    Args:
        parameters: all of them, by name.
        frozen: patterns of parameters that do not train.
        only: patterns of the parameters that train, where all others do not; empty for all.
        path: where the patterns were given, `optim.groups.` say, for messages.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    stopped = matching(frozen, parameters, f"{path}frozen")
    if only:
        stopped |= set(parameters) - matching(only, parameters, f"{path}only")
    for name in stopped:
        parameters[name].requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise ValueError(f"{path}frozen: {list(frozen)} leaves nothing to train")
    return sorted(stopped)


def some_names(names: Sequence[str]) -> str:
    """A few names from all over, for messages."""
    step = max(1, len(names) // 4)
    return ", ".join(list(names)[::step][:5])
