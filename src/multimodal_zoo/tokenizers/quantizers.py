"""Vector quantisation: the nearest entry of a codebook, and how codebook and encoder learn through it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.checks import outside
from multimodal_zoo.nn.processes import from_first, summed
from multimodal_zoo.registry import TOKENIZERS

#: Products of vectors and entries that are held at once: on a CPU they stay in its cache, elsewhere launches cost more.
CACHED, HELD = 1 << 20, 1 << 25


class Quantized(NamedTuple):
    """Vectors replaced by entries of a codebook.

    Attributes:
        vectors: (..., width), the entries; their gradient goes to the given vectors as it is (straight through).
        codes: (...), long.
        commitment: scalar, how far the given vectors are from their entries; draws the vectors.
        codebook: scalar, the same distance; draws the entries, and is 0 where they are averages.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    codebook: Tensor


@torch.no_grad()
def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The entry at the smallest Euclidean distance from each vector, the lowest number of equals.

    Distances differ by `|e|^2 / 2 - x.e` up to a constant of the vector; few vectors are compared at once.

    Args:
        vectors: (..., width).
        codebook: (entries, width).

    Returns:
        long, (...).
    """
    exact = torch.promote_types(vectors.dtype, torch.float32)
    flat, codebook = vectors.reshape(-1, vectors.shape[-1]).to(exact), codebook.to(exact)
    half = codebook.square().sum(1).mul_(-0.5)
    rows = max(1, (CACHED if flat.device.type == "cpu" else HELD) // len(codebook))
    found = [torch.addmm(half, part, codebook.T).argmax(1) for part in flat.split(rows)]
    return torch.cat(found).view(vectors.shape[:-1])


class Codebook(nn.Module):
    """What quantisers share: entries that vectors are replaced by.

    Attributes:
        codebook: `(codebook_size, width)`.
    """

    codebook: Tensor

    def __init__(self, codebook_size: int, width: int) -> None:
        super().__init__()
        self.codebook_size, self.width = codebook_size, width

    def first_entries(self) -> Tensor:
        """What a codebook begins with: uniform values, the smaller the more entries there are."""
        return torch.empty(self.codebook_size, self.width).uniform_(-1 / self.codebook_size, 1 / self.codebook_size)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Codes `(...)` of vectors `(..., width)`."""
        return nearest_codes(vectors, self.codebook)

    def look_up(self, codes: Tensor) -> Tensor:
        """Entries `(..., width)` of codes `(...)`.

        Raises:
            ValueError: codes outside the codebook; looked at on a CPU only.
        """
        if (run := outside(codes, len(self.codebook))) is not None:
            raise ValueError(f"codes run from {run[0]} to {run[1]}; the codebook has {len(self.codebook)} entries")
        return F.embedding(codes, self.codebook)


@TOKENIZERS.register_module(name="vector_quantizer")
class VectorQuantizer(Codebook):
    """A codebook that learns by gradient (VQ-VAE, arXiv 1711.00937, equation 3).

    Args:
        codebook_size: number of entries.
        width: of an entry.
    """

    def __init__(self, codebook_size: int, width: int) -> None:
        super().__init__(codebook_size, width)
        self.codebook = nn.Parameter(self.first_entries())

    def forward(self, vectors: Tensor) -> Quantized:
        """Replace vectors `(..., width)` by their entries."""
        codes = self.nearest(vectors)
        entries = self.look_up(codes)
        commitment, codebook = F.mse_loss(vectors, entries.detach()), F.mse_loss(entries, vectors.detach())
        return Quantized(straight_through(vectors, entries), codes, commitment, codebook)


@TOKENIZERS.register_module(name="ema_quantizer")
class EmaQuantizer(Codebook):
    """A codebook whose entries are moving averages of the vectors that chose them (arXiv 1711.00937, appendix A.1).

    An entry that hardly any vector chooses is replaced by a vector of the batch, so that none stays unused (Jukebox,
    arXiv 2005.00341, section 3.1). Several processes add up what theirs chose and keep one codebook.

    Args:
        codebook_size: number of entries.
        width: of an entry.
        decay: share of the average that a step keeps.
        revive_below: an entry whose average count per step falls below this is replaced; 0 replaces none.
    """

    #: Buffers that only training needs; no publisher's naming has them.
    training_state = ("counts", "sums")
    counts: Tensor
    sums: Tensor

    def __init__(self, codebook_size: int, width: int, decay: float = 0.99, revive_below: float = 1.0) -> None:
        super().__init__(codebook_size, width)
        if not 0 <= decay < 1:
            raise ValueError(f"quantizer.decay is {decay}; expected at least 0 and less than 1")
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("codebook", self.first_entries())
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, width))

    def forward(self, vectors: Tensor) -> Quantized:
        """Replace vectors `(..., width)` by their entries; while training, the entries then move."""
        codes = self.nearest(vectors)
        entries = self.look_up(codes)
        if self.training:
            self._update(vectors.detach().reshape(-1, self.width), codes.flatten())
        commitment = F.mse_loss(vectors, entries)
        return Quantized(straight_through(vectors, entries), codes, commitment, commitment.new_zeros(()))

    @torch.no_grad()
    def _update(self, vectors: Tensor, codes: Tensor) -> None:
        vectors = vectors.to(self.sums.dtype)
        chosen = torch.cat((self.counts.new_zeros(self.codebook_size, 1), torch.zeros_like(self.sums)), 1)
        chosen.index_add_(0, codes, torch.cat((vectors.new_ones(len(vectors), 1), vectors), 1))
        chosen = summed(chosen)
        self.counts.lerp_(chosen[:, 0], 1 - self.decay)
        self.sums.lerp_(chosen[:, 1:], 1 - self.decay)
        used = self.counts > torch.finfo(self.counts.dtype).tiny
        averages = self.sums / self.counts.where(used, 1.0)[:, None]
        self.codebook.copy_(averages.where(used[:, None], self.codebook))
        self._revive(vectors)

    def _revive(self, vectors: Tensor) -> None:
        idle = self.counts < self.revive_below
        drawn = from_first(vectors[torch.randint(len(vectors), (self.codebook_size,), device=vectors.device)])
        self.codebook.copy_(drawn.where(idle[:, None], self.codebook))
        self.sums.copy_((drawn * self.revive_below).where(idle[:, None], self.sums))
        self.counts.masked_fill_(idle, self.revive_below)


def straight_through(vectors: Tensor, entries: Tensor) -> Tensor:
    """The entries, with a gradient that goes to the vectors as it is."""
    return vectors + (entries - vectors).detach()
