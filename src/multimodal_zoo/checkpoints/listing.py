"""Thousands of tensor names, told in a few lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

LINES = 20


def listed(title: str, names: Sequence[str]) -> str:
    """A title with the names below it; names that differ by their numbers only share a line.

    Args:
        title: the heading, which gets the count.
        names: one entry a tensor; text after the name (shapes) is kept.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        head, _, tail = name.partition(" ")
        groups.setdefault(f"{re.sub(r'(?<=[.])[0-9]+(?=[.])', '{}', head)} {tail}".rstrip(), []).append(head)
    lines = []
    for pattern, members in list(groups.items())[:LINES]:
        _, _, tail = pattern.partition(" ")
        if len(members) == 1:
            lines.append(f"  {members[0]} {tail}".rstrip())
        else:
            lines.append(f"  {pattern}  ({len(members)}: {_span(members)})")
    if len(groups) > LINES:
        hidden = sum(len(members) for members in list(groups.values())[LINES:])
        lines.append(f"  ... and {hidden} more")
    return "\n".join([f"{title}: {len(names)}", *lines])


def _span(names: Sequence[str]) -> str:
    """`0-11` or `0, 2, 5`: the numbers in which the names differ."""
    columns = list(zip(*(re.findall(r"(?<=[.])[0-9]+(?=[.])", name) for name in names), strict=True))
    varying = [sorted({int(n) for n in column}) for column in columns if len(set(column)) > 1]
    if len(varying) != 1:
        return f"{names[0]} ... {names[-1]}"
    numbers = varying[0]
    whole = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if whole else ", ".join(str(n) for n in numbers[:8])
