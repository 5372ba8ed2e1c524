"""A plain decoder's weights for blocks that have weights of their own for pictures (EVE v2, arXiv 2502.06788)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from multimodal_zoo.checkpoints.files import State
from multimodal_zoo.checkpoints.views import Seen
from multimodal_zoo.nn.decoupled import DecoupledBlock
from multimodal_zoo.nn.transformer import Transformer

#: First words of names inside of a decoupled block.
SIDES = ("text", "vision")


class Branched:
    """A checkpoint in our names whose plain blocks fill the text's weights and, as a copy, those of pictures.

    Blocks that have both kinds already are shown as they are.

    Args:
        view: the checkpoint.
        branches: prefix of a stack's blocks -> the parts that pictures have for themselves; of `branches_of`.
        own: whether each copy gets memory of its own; without, it shares the text's.
    """

    def __init__(self, view: Seen, branches: Mapping[str, Sequence[str]], own: bool = True) -> None:
        self.view, self.branches, self.own = view, dict(branches), own

    @property
    def path(self) -> Path:
        """Where the checkpoint is, for errors."""
        return self.view.path

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names in the file that are not shown."""
        return self.view.left_out

    def shapes(self) -> State:
        """Names and shapes, on the meta device."""
        return self._both(self.view.shapes(), own=False)

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors, one file at a time."""
        for shard in self.view.shards(passing):
            yield self._both(shard, self.own)

    def _both(self, state: State, own: bool) -> State:
        both: State = {}
        for name, tensor in state.items():
            places = self._places(name)
            both |= {place: tensor.clone() if own and place is not places[0] else tensor for place in places}
        return both

    def _places(self, name: str) -> list[str]:
        """Where a tensor goes: the text's place first."""
        for prefix, parts in self.branches.items():
            number, _, rest = name.removeprefix(prefix).partition(".")
            first = rest.split(".", 1)[0]
            if name.startswith(prefix) and number.isdigit() and first not in SIDES:
                sides = SIDES if first in parts else SIDES[:1]
                return [f"{prefix}{number}.{side}.{rest}" for side in sides]
        return [name]


def branches_of(model: nn.Module) -> dict[str, list[str]]:
    """Prefix of the blocks' names -> what pictures have for themselves, of stacks of decoupled blocks in a model."""
    return {
        f"{name}.layers.": list(stack.layers[0].vision)
        for name, stack in model.named_modules()
        if isinstance(stack, Transformer) and len(stack.layers) and isinstance(stack.layers[0], DecoupledBlock)
    }


def require_plain(shapes: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse a checkpoint whose pictures have weights already, which a copy would throw away.

    Args:
        shapes: in our names.
        what: the checkpoint, for the message.

    Raises:
        ValueError: with the key to change.
    """
    if any(".vision." in name and ".blocks.layers." in name for name in shapes):
        raise ValueError(
            f"initial_weights.copy_vision_branch=true: {what} has weights for pictures already; leave the key out to "
            "take these"
        )
