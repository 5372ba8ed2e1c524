"""A checkpoint seen otherwise than it is: one part of it alone, or with tensors fitted to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.files import State
from multimodal_zoo.checkpoints.naming import Naming, Translator
from multimodal_zoo.checkpoints.source import Source

Change = Callable[[str, Tensor], Tensor]


class View:
    """A checkpoint in our names, shard by shard; what it does not show is never read.

    Names that nothing accounts for are shown as they are, so that loading reports them.

    Args:
        source: the checkpoint.
        naming: the table from its names to ours; None if they are ours.
        parts: our first words that are shown (`image`, `image_projection`); None for all. A file of ours without any
            of them is taken for the first part alone.
        change: applied to each tensor, given its name in our naming.
    """

    def __init__(
        self, source: Source, naming: Naming | None, parts: Sequence[str] | None = None, change: Change | None = None
    ) -> None:
        self.source, self.naming, self.parts, self.change = source, naming, parts, change
        self.left_out: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the checkpoint is, for errors."""
        return self.source.path

    def shapes(self) -> State:
        """Names and shapes, on the meta device; sets `left_out`, the names in the file that are not shown."""
        state: State = {}
        for shard in self._shown([self.source.shapes()]):
            state.update(shard)
        return state

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors, one file at a time; the view knows by itself which of them its naming copies."""
        copied = passing if self.naming is None else Translator(self.naming).copies
        yield from self._shown(self.source.shards(copied))

    def _shown(self, shards: Iterable[State]) -> Iterator[State]:
        left_out: list[str] = []
        if self.naming is None:
            alone = self.parts is not None and not any(self._chosen(name) for name in self.source.shapes())
            for shard in shards:
                mine = {name: tensor for name, tensor in shard.items() if alone or self._chosen(name)}
                left_out += [name for name in shard if name not in mine]
                prefix = f"{self.parts[0]}." if alone and self.parts else ""
                yield self._changed({prefix + name: tensor for name, tensor in mine.items()})
        else:
            shown, hidden = self._split(self.naming)
            translator, others = Translator(shown), Translator(hidden)
            for shard in shards:
                skipped = [name for name in shard if others.knows(name)]
                left_out += skipped
                mine = {name: tensor for name, tensor in shard.items() if name not in set(skipped)}
                foreign = {name: tensor for name, tensor in mine.items() if not translator.knows(name)}
                yield {**self._changed(translator.feed(mine)), **foreign}
            incomplete = {name: torch.empty(0, device="meta") for name in translator.incomplete}
            yield {**self._changed(translator.finish()), **incomplete}
        self.left_out = tuple(left_out)

    def _chosen(self, name: str) -> bool:
        return self.parts is None or name.split(".", 1)[0] in self.parts

    def _split(self, naming: Naming) -> tuple[Naming, Naming]:
        """The rules that fill what is shown, and the others."""
        kept = [rule for rule in naming.rules if self.parts is None or any(self._chosen(name) for name in rule.ours)]
        rest = [rule for rule in naming.rules if rule not in kept]
        return Naming(naming.name, kept, naming.fallbacks), Naming(naming.name, rest)

    def _changed(self, state: Mapping[str, Tensor]) -> State:
        change = self.change
        return dict(state) if change is None else {name: change(name, tensor) for name, tensor in state.items()}
