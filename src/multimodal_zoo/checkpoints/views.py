"""A checkpoint seen otherwise than it is: one part of it alone, or with tensors fitted to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.files import State
from multimodal_zoo.checkpoints.load import Shards
from multimodal_zoo.checkpoints.naming import Naming, Translator
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.nn.transformer import Transformer

Change = Callable[[str, Tensor], Tensor]


class Seen(Shards, Protocol):
    """A checkpoint in our names (`View`, and what is put around one)."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names in the file that are not shown; known once `shapes` or `shards` has run."""
        ...


class View:
    """A checkpoint in our names, shard by shard; what it does not show is never read.

    Names that nothing accounts for are shown as they are, so that loading reports them.

    Args:
        source: the checkpoint.
        naming: the table from its names to ours; None if they are ours.
        parts: our first words that are shown (`image`, `image_projection`); None for all. A file of ours without any
            of them is taken for the first part alone.
        change: applied to each tensor, given its name in our naming.
        without: our first words that are not shown.
    """

    def __init__(
        self,
        source: Source,
        naming: Naming | None,
        parts: Sequence[str] | None = None,
        change: Change | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.source, self.naming, self.parts, self.change = source, naming, parts, change
        self.without = tuple(without)
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
        first = name.split(".", 1)[0]
        return first not in self.without and (self.parts is None or first in self.parts)

    def _split(self, naming: Naming) -> tuple[Naming, Naming]:
        """The rules that fill what is shown, and the others."""
        kept = [
            rule
            for rule in naming.rules
            if any(self._chosen(name) for name in rule.ours) or (self.parts is None and not rule.ours)
        ]
        rest = [rule for rule in naming.rules if rule not in kept]
        return Naming(naming.name, kept, naming.fallbacks), Naming(naming.name, rest)

    def _changed(self, state: Mapping[str, Tensor]) -> State:
        change = self.change
        return dict(state) if change is None else {name: change(name, tensor) for name, tensor in state.items()}


class Without:
    """A checkpoint in our names without those below a prefix, for a model that has no use for them.

    Args:
        view: the checkpoint.
        prefix: of names in ours.
    """

    def __init__(self, view: Seen, prefix: str) -> None:
        self.view, self.prefix = view, prefix
        self.left_out: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the checkpoint is, for errors."""
        return self.view.path

    def shapes(self) -> State:
        """Names and shapes, on the meta device; sets `left_out`: names in the file, and in ours those below."""
        found = self.view.shapes()
        self.left_out = (*self.view.left_out, *(name for name in found if name.startswith(self.prefix)))
        return self._kept(found)

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors, one file at a time."""
        for shard in self.view.shards(passing):
            yield self._kept(shard)

    def _kept(self, state: State) -> State:
        return {name: tensor for name, tensor in state.items() if not name.startswith(self.prefix)}


class OuterBlocks:
    """A checkpoint in our names, for a model whose stacks of blocks are less deep: their first and last blocks.

    Half of a stack is taken from each end: the first blocks read the embeddings and the last ones speak to the head, so
    that a decoder loses least without those between. A stack of equal depth is taken whole.

    Args:
        view: the checkpoint.
        depths: prefix of a stack's blocks (`decoder.blocks.layers.`) -> how many there are; of `depths_of`.
    """

    def __init__(self, view: Seen, depths: Mapping[str, int]) -> None:
        self.view, self.depths = view, dict(depths)
        self.left_out: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the checkpoint is, for errors."""
        return self.view.path

    def shapes(self) -> State:
        """Names and shapes, on the meta device; sets `left_out`: names in the file, and in ours those between."""
        found = self.view.shapes()
        name_of = self._names(found)
        self.left_out = (*self.view.left_out, *(name for name in found if name_of[name] is None))
        return _renamed(found, name_of)

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors, one file at a time."""
        name_of = self._names(self.view.shapes())
        for shard in self.view.shards(passing):
            yield _renamed(shard, name_of)

    def _names(self, names: Iterable[str]) -> dict[str, str | None]:
        """Name -> the name in the less deep model; None for what it has no place for."""
        found: dict[str, str | None] = {name: name for name in names}
        for prefix, depth in self.depths.items():
            numbers = {
                name: int(match[1]) for name in found if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))
            }
            beyond = max(numbers.values(), default=-1) + 1 - depth
            for name, number in numbers.items() if beyond > 0 else ():
                first, last = number < depth - depth // 2, number >= beyond + depth - depth // 2
                rest = name.removeprefix(f"{prefix}{number}.")
                found[name] = name if first else f"{prefix}{number - beyond}.{rest}" if last else None
        return found


def depths_of(model: nn.Module) -> dict[str, int]:
    """Prefix of the blocks' names -> number of blocks, of every stack (`Transformer`) in a model."""
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, Transformer)}
    return {f"{name}.layers.": len(stack.layers) for name, stack in stacks.items()}


def _renamed(state: State, name_of: Mapping[str, str | None]) -> State:
    return {new: tensor for name, tensor in state.items() if (new := name_of[name]) is not None}
