"""A recognised checkpoint: what it is, what model it needs, and how to get at its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from multimodal_zoo.checkpoints.errors import CorruptCheckpoint
from multimodal_zoo.checkpoints.files import State, iterate_shards, manifest, read_file
from multimodal_zoo.checkpoints.locate import verify, weight_files
from multimodal_zoo.checkpoints.naming import Naming, Translator

#: Where a checkpoint of our training keeps the model's tensors: below this prefix, and the averaged ones apart.
LIGHTNING_PREFIX, LIGHTNING_AVERAGE = "model.", "ema"
#: The kind of a folder that this library wrote.
SAVED = "a folder by save_model"


@dataclass(frozen=True)
class Source:
    """A recognised checkpoint.

    Attributes:
        kind: what it is, in words.
        path: the file, index or folder that holds the weights.
        config: the complete model node that it needs; empty if the caller knows better.
        variant: the name of the variant with that configuration, if there is one.
        naming: the table from its names to ours; None if they are ours.
        weights: what a folder of ours says of its weights' origin.
        average: whether it is a training checkpoint whose averaged weights are read; None if it is none.
        known: names and shapes, where they have been read already.
        parts: part of the model -> the checkpoint that fills it, where several do; `path` and `naming` then tell
            nothing.
        pieces: checkpoints that each hold some of the model's tensors, in namings of their own; together they are read
            in our names, so that there is no `naming`.
    """

    kind: str
    path: Path
    config: dict[str, Any]
    variant: str | None = None
    naming: Naming | None = None
    weights: str | None = None
    average: bool | None = None
    known: State | None = field(default=None, compare=False, repr=False)
    parts: Mapping[str, Source] = field(default_factory=dict)
    pieces: tuple[Source, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files that hold the weights."""
        several = (*self.parts.values(), *self.pieces)
        return [file for one in several for file in one.files] or weight_files(self.path)

    def shapes(self) -> State:
        """Names and shapes, on the meta device, in the file's naming, or in those of all parts together."""
        if self.parts:
            return {name: tensor for one in self.parts.values() for name, tensor in one.shapes().items()}
        if self.pieces:
            return {
                name: tensor
                for one in self.pieces
                for shard in one._ours([one.shapes()])
                for name, tensor in shard.items()
            }
        if self.known is not None:
            return dict(self.known)
        return manifest(self.path) if self.average is None else self._training("meta")

    def verify(self, sha256: str) -> None:
        """Compare the file with the SHA-256 that a card gives.

        Raises:
            CorruptCheckpoint: it has another one, or there are several files.
        """
        if len(self.files) != 1:
            raise CorruptCheckpoint(f"{self.path}: one sha256 was given for {len(self.files)} files")
        verify(self.files[0], sha256)

    def check_depth(self, node: Mapping[str, Any]) -> None:
        """Refuse a model of more blocks than the files have tensors, before it is built for hours.

        Args:
            node: of the model.

        Raises:
            CorruptCheckpoint: a stack that is deeper.
        """
        deepest = max((depth for depth in _depths(node) if isinstance(depth, int)), default=0)
        if deepest > (tensors := len(self.shapes())):
            raise CorruptCheckpoint(f"{self.path}: its configuration has {deepest} blocks, the file {tensors} tensors")

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors in the file's naming, one file at a time; `passing` as in `iterate_shards`."""
        if self.pieces:
            for one in self.pieces:
                copied = None if one.naming is None else Translator(one.naming).copies
                yield from one._ours(one.shards(copied))
        elif self.average is None:
            yield from iterate_shards(self.path, passing=passing)
        else:
            yield self._training("cpu")

    def _ours(self, shards: Iterable[State]) -> Iterator[State]:
        """Shards in our names; names that the table does not know stay as they are, so that loading reports them."""
        if self.naming is None:
            yield from shards
            return
        translator = Translator(self.naming)
        for shard in shards:
            foreign = {name: tensor for name, tensor in shard.items() if not translator.knows(name)}
            yield {
                **translator.feed({name: tensor for name, tensor in shard.items() if name not in foreign}),
                **foreign,
            }
        incomplete = {name: torch.empty(0, device="meta") for name in translator.incomplete}
        yield {**translator.finish(), **incomplete}

    def _training(self, device: str) -> State:
        content = read_file(self.path, device=device)
        averaged = content.get(LIGHTNING_AVERAGE)
        if self.average and isinstance(averaged, Mapping):
            return dict(averaged["weights"])
        state = content.get("state_dict", {})
        return {n.removeprefix(LIGHTNING_PREFIX): t for n, t in state.items() if n.startswith(LIGHTNING_PREFIX)}


def _depths(node: Any) -> Iterator[Any]:
    """The numbers of blocks in a model node."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("depth", "depths"):
                yield from value if isinstance(value, (list, tuple)) else [value]
            yield from _depths(value)
    elif isinstance(node, (list, tuple)):
        for one in node:
            yield from _depths(one)
