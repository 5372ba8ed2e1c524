"""Sequences of ids that may be written, as a tree: what may come next behind those so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class Trie:
    """A tree of allowed sequences.

    Args:
        sequences: the ids of each, its end among them where one is to be written.

    Raises:
        ValueError: no sequence, or an empty one.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        self.root: dict[int, Any] = {}
        for sequence in sequences:
            if not len(sequence):
                raise ValueError("a tree of allowed sequences got an empty one: each needs an id at least")
            node = self.root
            for number in sequence:
                node = node.setdefault(int(number), {})
        if not self.root:
            raise ValueError("a tree of allowed sequences got none")

    def after(self, prefix: Sequence[int]) -> list[int]:
        """The ids that may come behind a prefix, in the order of the sequences; none behind a whole or an unknown one.

        Args:
            prefix: what is written so far, without the prompt.
        """
        node = self.root
        for number in prefix:
            if int(number) not in node:
                return []
            node = node[int(number)]
        return list(node)
