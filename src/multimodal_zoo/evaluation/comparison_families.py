"""Which methods of a comparison can stand in one table: those that share evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from multimodal_zoo.evaluation.methods import Method

T = TypeVar("T")

#: (evaluation, figure).
Column = tuple[str, str]


@dataclass(frozen=True)
class Family:
    """Methods with evaluations in common.

    Attributes:
        methods: in order of appearance.
        columns: (evaluation, figure) that their table shows.
    """

    methods: tuple[Method, ...]
    columns: tuple[Column, ...]


def families(methods: Sequence[Method], columns: Sequence[Column]) -> list[Family]:
    """Methods by the evaluations that they have; a method that has none is in no family.

    Args:
        methods: of any kind: a detector and a dual encoder share no evaluation, and no table.
        columns: (evaluation, figure) to show.
    """
    names = dict.fromkeys(evaluation for evaluation, _ in columns)
    marked = [(m, {name for name in names if any(name in run.results for run in m.runs)}) for m in methods]
    return [
        Family(tuple(members), tuple(column for column in columns if column[0] in marks))
        for members, marks in connected(marked)
    ]


def connected(marked: Iterable[tuple[T, set[str]]]) -> list[tuple[list[T], set[str]]]:
    """Groups of items that a chain of common marks joins, and the marks of each; items without a mark are left out."""
    found: list[tuple[list[tuple[int, T]], set[str]]] = []
    for place, (item, marks) in enumerate(marked):
        if not marks:
            continue
        same = [group for group in found if group[1] & marks]
        found = [group for group in found if not group[1] & marks]
        members = sorted([(place, item), *(one for group in same for one in group[0])], key=lambda one: one[0])
        found.append((members, marks.union(*(group[1] for group in same))))
    found.sort(key=lambda group: group[0][0][0])
    return [([item for _, item in members], marks) for members, marks in found]
