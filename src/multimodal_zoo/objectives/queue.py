"""A queue of past features, among which a new feature finds its nearest neighbour.

The support set of NNCLR (Dwibedi et al. 2021, arXiv:2104.14548, section 3.1), as DeCLIP keeps it for texts (Li et al.
2021, arXiv:2110.05208, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_zoo.nn.processes import gather, world_size
from multimodal_zoo.registry import OBJECTIVES


class Neighbours(NamedTuple):
    """What a look-up finds.

    Attributes:
        indices: (batch,) long, places in the queue.
        features: (batch, width), the entries there, of the length that they were stored with.
    """

    indices: Tensor
    features: Tensor


@OBJECTIVES.register_module(name="neighbour_queue")
class NeighbourQueue(nn.Module):
    """First in, first out, as published: of a batch that passes the end the rest is lost, and the next starts anew.

    All that it holds are buffers: they are saved, restored and moved with the model. Neither a look-up nor an update
    waits for an accelerator. Processes of a data-parallel run have a queue each; they stay alike where each stores the
    features of all.

    Args:
        size: entries.
        width: of a feature.

    Attributes:
        entries: (size, width), as they were given; at the start random unit vectors.
        inverse_norms: (size,), one over each entry's length.
        pointer: scalar long, the place of the next entry.

    Raises:
        ValueError: sizes below one.
    """

    #: what data parallelism must not make equal, and checkpoints hold for every process
    rank_buffers: tuple[str, ...] = ("entries", "inverse_norms", "pointer")

    entries: Tensor
    inverse_norms: Tensor
    pointer: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        for key, value in (("size", size), ("width", width)):
            if value < 1:
                raise ValueError(f"{key} is {value}; it must be at least 1 (configuration key: queue.{key})")
        self.size = size
        self.width = width
        self.register_buffer("entries", torch.empty(size, width, dtype=torch.float32))
        self.register_buffer("inverse_norms", torch.empty(size, dtype=torch.float32))
        self.register_buffer("pointer", torch.empty((), dtype=torch.long))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin anew with random unit vectors."""
        self.entries.copy_(F.normalize(torch.randn_like(self.entries), dim=1))
        self.inverse_norms.copy_(_inverse_norms(self.entries))
        self.pointer.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NeighbourQueue:
        """Move the queue; a change to half precision leaves it in float32, where near neighbours stay apart."""
        kept = {name: getattr(self, name) for name in ("entries", "inverse_norms")}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            moved = getattr(self, name)
            if moved.dtype != before.dtype:
                setattr(self, name, before.to(moved.device))
        return self

    def stored(self, batch: int) -> int:
        """How many entries a step of `batch` rows on each process stores at a time."""
        return batch

    @torch.no_grad()
    def nearest(self, features: Tensor, block_size: int = 4096) -> Neighbours:
        """The entry of highest cosine to each feature, as a constant; of equal ones the first.

        Args:
            features: (batch, width), of any length. Several views in one call cost one pass over the queue.
            block_size: entries compared at a time; changes memory and speed, not the result.

        Raises:
            ValueError: features of another shape, a `block_size` below one.
        """
        self._check(features)
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; it must be at least 1 (configuration key: queue.block_size)")
        queries = features.to(self.entries.dtype)
        highest = queries.new_full((len(queries),), -torch.inf)
        indices = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        with torch.autocast(features.device.type, enabled=False):
            for start in range(0, self.size, block_size):
                block = slice(start, start + block_size)
                best, where = (queries @ self.entries[block].T).mul_(self.inverse_norms[block]).max(1)
                indices = torch.where(best > highest, where + start, indices)
                highest = torch.maximum(best, highest)
        return Neighbours(indices, self.entries[indices])

    @torch.no_grad()
    def enqueue(self, features: Tensor) -> None:
        """Store a batch, as it is.

        Args:
            features: (batch, width).

        Raises:
            ValueError: features of another shape.
        """
        self._check(features)
        number = torch.arange(min(len(features), self.size), device=features.device)
        number = torch.minimum(number, self.size - 1 - self.pointer)  # what overflows repeats the last one that fits
        self._store(self.pointer + number, features[number])
        following = self.pointer + len(features)
        self.pointer.copy_(torch.where(following < self.size, following, 0))

    def _store(self, places: Tensor, features: Tensor) -> None:
        features = features.to(self.entries.dtype)
        self.entries[places] = features
        self.inverse_norms[places] = _inverse_norms(features)

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(
                f"features must be (batch, {self.width}), not {tuple(features.shape)} (configuration key: queue.width)"
            )

    def extra_repr(self) -> str:
        """What print() shows."""
        return f"size={self.size}, width={self.width}"


@OBJECTIVES.register_module(name="wrapping_queue")
class WrappingQueue(NeighbourQueue):
    """A queue that loses nothing: a batch that passes the end goes on at the beginning.

    Arguments and attributes are `NeighbourQueue`'s.
    """

    @torch.no_grad()
    def enqueue(self, features: Tensor) -> None:
        """Store a batch, as it is; of a batch larger than the queue its last rows.

        Args:
            features: (batch, width).

        Raises:
            ValueError: features of another shape.
        """
        self._check(features)
        surplus = max(len(features) - self.size, 0)
        number = torch.arange(surplus, len(features), device=features.device)
        self._store((self.pointer + number) % self.size, features[surplus:])
        self.pointer.add_(len(features)).remainder_(self.size)


@OBJECTIVES.register_module(name="shared_queue")
class SharedQueue(NeighbourQueue):
    """One queue for all processes of a data-parallel run: each stores the features of all, in rank order.

    Several processes then find what one process finds on the whole batch, and a checkpoint holds the queue once.
    Arguments and attributes are `NeighbourQueue`'s.
    """

    rank_buffers = ()
    #: the same on every process without being sent there
    alike_buffers = NeighbourQueue.rank_buffers

    def stored(self, batch: int) -> int:
        """How many entries a step of `batch` rows on each process stores at a time."""
        return batch * world_size()

    @torch.no_grad()
    def enqueue(self, features: Tensor) -> None:
        """Store the batches of all processes, as they are.

        Args:
            features: (batch, width), of the same shape on every process.

        Raises:
            ValueError: features of another shape.
        """
        self._check(features)
        super().enqueue(gather(features))


def _inverse_norms(features: Tensor) -> Tensor:
    return features.norm(dim=1).clamp(min=1e-12).reciprocal()
