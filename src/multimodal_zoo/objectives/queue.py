"""A queue of past features in which a new feature looks for its nearest neighbour.

The store of NNCLR (Dwibedi et al. 2021, arXiv:2104.14548, section 3.1), as DeCLIP uses it for texts
(Li et al. 2021, arXiv:2110.05208, section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_zoo.registry import OBJECTIVES


class Neighbours(NamedTuple):
    """What a look-up finds.

    Attributes:
        indices: (batch,) long, places in the queue.
        features: (batch, width), the entries there, as they were stored.
    """

    indices: Tensor
    features: Tensor


@OBJECTIVES.register_module(name="neighbour_queue")
class NeighbourQueue(nn.Module):
    """First in, first out, as published: a batch that reaches the end fills the rest of the queue and loses its own.

    Everything that it holds is a buffer: saved with the model, restored, and moved with it. Neither look-up nor update
    waits for an accelerator.

    Args:
        size: entries.
        width: of a feature.

    Attributes:
        entries: (size, width) float32, as they were given; at the start random unit rows.
        inverse_norms: (size,) float32, one over each entry's length.
        pointer: scalar long, where the next batch begins.
    """

    #: each process of a data-parallel run has a queue of its own
    rank_buffers = ("entries", "inverse_norms", "pointer")

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
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fill the queue with random unit rows."""
        self.entries.copy_(F.normalize(torch.randn_like(self.entries), dim=1))
        self.inverse_norms.fill_(1.0)
        self.pointer.zero_()

    @torch.no_grad()
    def nearest(self, features: Tensor, block_size: int = 8192) -> Neighbours:
        """The entry of highest cosine with each feature.

        Args:
            features: (batch, width), of any length; several views in one call share one product.
            block_size: entries compared at a time.

        Raises:
            ValueError: features of another shape.
        """
        self._check(features)
        with torch.autocast(features.device.type, enabled=False):
            indices = ((features.float() @ self.entries.T) * self.inverse_norms).argmax(1)
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
        number = torch.minimum(number, self.size - 1 - self.pointer)  # what overflows repeats the last entry that fits
        rows = features[number].float()
        self.entries[self.pointer + number] = rows
        self.inverse_norms[self.pointer + number] = rows.norm(dim=1).clamp(min=1e-12).reciprocal()
        ends = self.pointer + len(features)
        self.pointer.copy_(torch.where(ends >= self.size, 0, ends))

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(
                f"the queue holds features of width {self.width}, not of shape {tuple(features.shape)} "
                "(configuration key: queue.width)"
            )

    def extra_repr(self) -> str:
        """What print() shows."""
        return f"size={self.size}, width={self.width}"
