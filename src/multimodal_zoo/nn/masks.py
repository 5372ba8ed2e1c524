"""Attention masks as descriptions; a kernel turns a description into what it needs.

`Causal() & Padding(lengths)` describes a mask that allows what both allow. Query `i` of a call is the row, key `j` the
column; every tensor form broadcasts to `(batch, heads, queries, keys)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.nn.checks import may_look


class Mask:
    """A description of which keys each query may see, and of what is added to the logits."""

    def __and__(self, other: Mask) -> Combined:
        """Allow what both masks allow and add both biases."""
        return Combined(_members(self) + _members(other))

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """A boolean tensor, True where a query may see a key, or None when nothing is forbidden."""
        del queries, keys, device
        return None

    def bias(self) -> Tensor | None:
        """What is added to the scaled logits, or None."""
        return None


def _members(mask: Mask) -> tuple[Mask, ...]:
    return mask.members if isinstance(mask, Combined) else (mask,)


@dataclass(frozen=True, eq=False)
class Causal(Mask):
    """Query `i` sees the keys `0 .. i + offset`.

    Args:
        offset: how many keys came before the first query (the filled length of a KV cache); 0 without a cache.
    """

    offset: int = 0

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """The lower triangle, shifted by `offset`; None when every query sees every key."""
        if self.offset >= keys - 1:
            return None
        rows = torch.arange(queries, device=device)[:, None] + self.offset
        return torch.arange(keys, device=device)[None, :] <= rows


@dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Only real keys are seen.

    Args:
        real: `(batch,)` integer lengths of right-padded rows, or `(batch, keys)` bool that is True at real keys.
    """

    real: Tensor

    def __post_init__(self) -> None:
        if self.real.dim() != (2 if self.real.dtype == torch.bool else 1):
            raise ValueError(
                f"Padding takes integer lengths (batch,) or a bool (batch, keys) that is True at real keys; "
                f"got {self.real.dtype} of shape {tuple(self.real.shape)}"
            )

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """`(batch, 1, 1, keys)`."""
        if self.real.dtype != torch.bool:
            return (torch.arange(keys, device=device)[None, :] < self.real.to(device)[:, None])[:, None, None]
        if self.real.shape[1] != keys:
            raise ValueError(f"Padding describes {self.real.shape[1]} keys, the attention call has {keys}")
        return self.real.to(device)[:, None, None]


class Run(NamedTuple):
    """Neighbouring tokens of one document.

    Attributes:
        length: number of tokens.
        real: False for padding.
    """

    length: int
    real: bool


#: The runs of each row.
Runs = tuple[tuple[Run, ...], ...]


@dataclass(frozen=True, eq=False)
class Document(Mask):
    """Tokens see tokens of their own document only, for several texts packed into one row.

    Args:
        ids: `(batch, keys)` integers, the document of each key; the queries are the last of the keys. A negative one is
            padding: no document sees it, and what its own queries get is of no use.
    """

    ids: Tensor

    @cached_property
    def runs(self) -> Runs | None:
        """The documents of each row from left to right; None where one does not lie in one piece."""
        if self.ids.device.type == "meta":
            return None
        ids = self.ids.cpu()
        found = []
        for row in ids:
            names, lengths = (part.tolist() for part in row.unique_consecutive(return_counts=True))
            documents = [name for name in names if name >= 0]
            if len(set(documents)) != len(documents):
                return None
            found.append(tuple(Run(length, name >= 0) for name, length in zip(names, lengths, strict=True)))
        return tuple(found)

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """`(batch, 1, queries, keys)`."""
        if self.ids.dim() != 2 or self.ids.shape[1] != keys or queries > keys:
            raise ValueError(
                f"Document ids of shape {tuple(self.ids.shape)} do not describe {keys} keys with {queries} queries; "
                "expected (batch, keys) and no more queries than keys"
            )
        ids = self.ids.to(device)
        return (ids[:, keys - queries :, None] == ids[:, None, :])[:, None]


@dataclass(frozen=True, eq=False)
class Bias(Mask):
    """Values added to the scaled logits (relative positions, say); -inf forbids.

    Args:
        tensor: floating point, broadcastable to `(batch, heads, queries, keys)`.
    """

    tensor: Tensor

    def __post_init__(self) -> None:
        if not self.tensor.is_floating_point():
            raise ValueError(f"Bias takes a floating-point tensor, got {self.tensor.dtype}; use Padding for booleans")

    def bias(self) -> Tensor | None:
        """The tensor itself."""
        return self.tensor


def pick(tokens: Tensor, places: Tensor | None) -> Tensor:
    """The tokens `(batch, tokens, width)` at places `(batch, n)`, or all of them when `places` is None."""
    if places is None:
        return tokens
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


@dataclass(frozen=True, eq=False)
class At(Mask):
    """The rows of another mask at some places, for a call that computes only a few queries of a sequence.

    Args:
        mask: describes the whole sequence, as many queries as keys.
        places: `(batch, queries)`, the place of each query.
    """

    mask: Mask
    places: Tensor

    def _rows(self, full: Tensor) -> Tensor:
        if full.dim() < 2 or full.shape[-2] == 1:
            return full  # the same for every query
        heads, keys = (full.shape[-3] if full.dim() > 2 else 1), full.shape[-1]
        full = full.expand(self.places.shape[0], heads, -1, -1)
        return full.gather(2, self.places[:, None, :, None].expand(-1, heads, -1, keys))

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """`(batch, heads or 1, queries, keys)`."""
        del queries
        if isinstance(self.mask, Causal):  # the common case, without the square
            return (torch.arange(keys, device=device) <= self.places[:, :, None] + self.mask.offset)[:, None]
        full = self.mask.allowed(keys, keys, device)
        return None if full is None else self._rows(full)

    def bias(self) -> Tensor | None:
        """The rows of the bias."""
        full = self.mask.bias()
        return None if full is None else self._rows(full)


@dataclass(frozen=True, eq=False)
class Combined(Mask):
    """Several masks at once, as `&` makes them."""

    members: tuple[Mask, ...]

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """What every member allows."""
        result: Tensor | None = None
        for member in self.members:
            part = member.allowed(queries, keys, device)
            if part is not None:
                result = part if result is None else result & part
        return result

    def bias(self) -> Tensor | None:
        """The sum of the members' biases."""
        members = [member.bias() for member in self.members]
        parts = [part for part in members if part is not None]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0) if len(parts) > 1 else next(iter(parts), None)


@dataclass(frozen=True, eq=False)
class Dense:
    """A mask as tensors, with no row left empty.

    Attributes:
        allowed: bool, or None when nothing is forbidden; rows that forbid everything are opened here.
        bias: added to the logits, or None.
        alive: bool `(..., queries, 1)`, False where the row forbids everything and the result must be 0; or None.
    """

    allowed: Tensor | None
    bias: Tensor | None
    alive: Tensor | None

    def additive(self, dtype: torch.dtype) -> Tensor | None:
        """Both parts as one tensor to add: 0 where allowed, -inf where not, plus the bias."""
        if self.allowed is None:
            return None if self.bias is None else self.bias.to(dtype)
        base = torch.zeros((), dtype=dtype, device=self.allowed.device) if self.bias is None else self.bias.to(dtype)
        return torch.where(self.allowed, base, float("-inf"))


def dense(mask: Mask, queries: int, keys: int, device: torch.device) -> Dense:
    """Turn a description into tensors; one of `resolve` gives those that it has.

    A row that forbids everything would make softmax, and its gradient, NaN; such rows are opened and reported in
    `alive`, so that the caller can zero the result.
    """
    if isinstance(mask, Resolved):
        return mask.tensors
    allowed, bias = mask.allowed(queries, keys, device), mask.bias()
    if bias is not None:
        bias = bias.to(device)
        finite = bias != float("-inf")
        if not bias.requires_grad:  # a learned bias is finite; one that forbids is data
            allowed = finite if allowed is None else allowed & finite
            bias = bias.masked_fill(~finite, 0.0)
    if allowed is None:
        return Dense(None, bias, None)
    alive = allowed.any(-1, keepdim=True)
    return Dense(allowed | ~alive, bias, alive)


@dataclass(frozen=True, eq=False)
class Resolved(Mask):
    """A mask whose tensors exist already, for all layers of a call.

    Attributes:
        tensors: of the one number of queries and keys that the call has.
    """

    tensors: Dense

    def allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """As the tensors say."""
        del queries, keys, device
        return self.tensors.allowed

    def bias(self) -> Tensor | None:
        """As the tensors say."""
        return self.tensors.bias


def resolve(mask: Mask, queries: int, keys: int, device: torch.device) -> Resolved:
    """Make the tensors of a mask once; kernels that read descriptions only (`flash`) do not take the result."""
    tensors = dense(mask, queries, keys, device)
    alive = tensors.alive
    if alive is not None and may_look(alive) and bool(alive.all()):
        tensors = Dense(tensors.allowed, tensors.bias, None)
    return Resolved(tensors)
