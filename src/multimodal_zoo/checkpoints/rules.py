"""The lines of a naming: how tensors of one side become tensors of the other, and back.

`{}` in a name stands for a number, `*` for any rest; all names of a rule carry the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.patterns import pattern

Move = Callable[[list[Tensor]], list[Tensor]]


def _unchanged(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
        theirs: names in the publisher's file that the rule takes together (none: the file lacks the tensor).
        ours: the model's names that they become (none: the model lacks it).
        to_ours: the tensors of `theirs`, in order, to those of `ours`.
        to_theirs: the way back.
        written: whether saving writes `theirs` although nothing of `ours` feeds it (a constant).
        copies: whether `to_ours` makes new tensors instead of views, so that those of `theirs` serve no longer.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    to_ours: Move = _unchanged
    to_theirs: Move = _unchanged
    written: bool = False
    copies: bool = False

    def __post_init__(self) -> None:
        if len({pattern(name).holes for name in (*self.theirs, *self.ours)}) > 1:
            raise ValueError(f"{self}: every name of a rule needs the same placeholders ({{}} and *) in the same order")

    def __str__(self) -> str:
        return f"{' + '.join(self.theirs) or '(nothing)'} <-> {' + '.join(self.ours) or '(nothing)'}"

    def under(self, theirs: str, ours: str) -> Rule:
        """The same rule with a prefix before each name of either side."""
        return replace(
            self,
            theirs=tuple(theirs + name for name in self.theirs),
            ours=tuple(ours + name for name in self.ours),
        )


@dataclass(frozen=True)
class Fallback:
    """A tensor of ours that some files of a publisher lack: filled in where another of its part is there.

    Attributes:
        ours: name in the model.
        beside: name in the model, with the same placeholders, of the tensor that every file has.
        make: what is filled in, from the shape of `beside`.
    """

    ours: str
    beside: str
    make: Callable[[torch.Size], Tensor]


#: Steps that a batch norm has seen: some files lack them, and nothing but an average without momentum reads them.
COUNTERS = Fallback("*.num_batches_tracked", "*.running_mean", lambda shape: torch.zeros((), dtype=torch.long))


def rename(theirs: str, ours: str) -> Rule:
    """The same tensor under another name."""
    return Rule((theirs,), (ours,))


def transpose(theirs: str, ours: str) -> Rule:
    """A matrix that the other side keeps transposed (a bare `x @ P` against a Linear's weight)."""

    def swap(tensors: list[Tensor]) -> list[Tensor]:
        """Transpose; its own inverse."""
        return [tensor.transpose(-2, -1) for tensor in tensors]

    return Rule((theirs,), (ours,), swap, swap)


def reshape(theirs: str, ours: str, shape: Sequence[int], their_shape: Sequence[int]) -> Rule:
    """The same numbers in another shape, `[1, 1, w]` against `[w]` say.

    Args:
        theirs: name in the file.
        ours: name in the model.
        shape: the model's shape, at most one entry -1.
        their_shape: the file's shape, at most one entry -1.
    """

    def to(wanted: Sequence[int]) -> Move:
        """The move to one of the two shapes."""
        return lambda tensors: [tensor.reshape(tuple(wanted)) for tensor in tensors]

    return Rule((theirs,), (ours,), to(shape), to(their_shape))


def lead(theirs: str, ours: str) -> Rule:
    """The same numbers with a leading axis of 1 in the file (`[1, n, w]` against `[n, w]`)."""

    def without(tensors: list[Tensor]) -> list[Tensor]:
        """Take the leading axis away."""
        if tensors[0].shape[:1] != (1,):
            raise CheckpointError(f"{theirs} has shape {tuple(tensors[0].shape)}; expected a first axis of size 1")
        return [tensors[0][0]]

    return Rule((theirs,), (ours,), without, lambda tensors: [tensors[0][None]])


def pack(theirs: Sequence[str | None], ours: str, sizes: Sequence[int] | None = None, dim: int = 0) -> Rule:
    """Several tensors of theirs are slices of one of ours, in order.

    Args:
        theirs: names in the file; None is a slice that the file lacks because it is zero (a key bias).
        ours: the packed tensor's name.
        sizes: the slices' proportions along `dim` (grouped queries: 4, 1, 1); equal if not given.
        dim: the dimension that is packed.
    """
    present, join, split = _slices(theirs, sizes, dim)
    return Rule(present, (ours,), join, split, copies=True)


def unpack(theirs: str, ours: Sequence[str | None], sizes: Sequence[int] | None = None, dim: int = 0) -> Rule:
    """One tensor of theirs holds several of ours as slices; the mirror image of `pack`. Nothing is copied."""
    present, join, split = _slices(ours, sizes, dim)
    return Rule((theirs,), present, split, join)


def _slices(names: Sequence[str | None], sizes: Sequence[int] | None, dim: int) -> tuple[tuple[str, ...], Move, Move]:
    parts = list(sizes) if sizes is not None else [1] * len(names)
    if len(parts) != len(names) or all(name is None for name in names):
        raise ValueError(f"{list(names)} needs as many sizes as names, and at least one name; got sizes {parts}")
    kept = [i for i, name in enumerate(names) if name is not None]

    def join(tensors: list[Tensor]) -> list[Tensor]:
        """The slices as one tensor, zeros where a name is None."""
        unit, rest = divmod(tensors[0].shape[dim], parts[kept[0]])
        if rest:
            raise CheckpointError(
                f"{names[kept[0]]}: size {tensors[0].shape[dim]} is not a multiple of {parts[kept[0]]}"
            )
        given = dict(zip(kept, tensors, strict=True))
        slices = []
        for i, part in enumerate(parts):
            shape = list(tensors[0].shape)
            shape[dim] = unit * part
            slices.append(given[i] if i in given else tensors[0].new_zeros(shape))
        return [_joined(slices, dim)]

    def split(tensors: list[Tensor]) -> list[Tensor]:
        """One tensor as views of its slices; what is left out must be zero."""
        unit, rest = divmod(tensors[0].shape[dim], sum(parts))
        if rest:
            raise CheckpointError(f"size {tensors[0].shape[dim]} does not split into {parts} for {list(names)}")
        slices = tensors[0].split([unit * part for part in parts], dim)
        for i, piece in enumerate(slices):
            if i not in kept and not piece.is_meta and bool(piece.any()):
                raise CheckpointError(f"slice {i} of {list(names)} must be zero: the other side has no tensor for it")
        return [slices[i] for i in kept]

    return tuple(name for name in names if name is not None), join, split


def _joined(slices: list[Tensor], dim: int) -> Tensor:
    """What `torch.cat` gives; on meta that would import torch's compiler, which takes seconds and 100 MB."""
    if not slices[0].is_meta:
        return torch.cat(slices, dim)
    shapes = [list(piece.shape) for piece in slices]
    length = sum(shape.pop(dim) for shape in shapes)
    if any(shape != shapes[0] for shape in shapes):
        raise CheckpointError(f"slices of shapes {[tuple(piece.shape) for piece in slices]} do not fit each other")
    shape = [*slices[0].shape]
    shape[dim] = length
    return slices[0].new_empty(shape)


def drop(theirs: str) -> Rule:
    """A tensor of theirs without meaning for the model (a derived table); absent when saving."""
    return Rule((theirs,), (), lambda tensors: [])


def constant(theirs: str, value: Tensor | float) -> Rule:
    """A fixed entry of theirs (`context_length`): checked and dropped on loading, written on saving."""
    expected = torch.as_tensor(value)

    def check(tensors: list[Tensor]) -> list[Tensor]:
        """Compare with the fixed value and give nothing on."""
        _same(tensors[0], expected, theirs)
        return []

    return Rule((theirs,), (), check, lambda tensors: [expected.clone()], written=True)


def filled(ours: str, value: Tensor | float) -> Rule:
    """A tensor of ours that theirs leaves out because it is fixed: filled in on loading, checked on saving.

    The name holds no placeholder: nothing of theirs would say what it stands for.
    """
    if pattern(ours).holes:
        raise ValueError(f"filled({ours!r}): a filled tensor needs a complete name, without {{}} and *")
    expected = torch.as_tensor(value, dtype=torch.float32 if isinstance(value, float) else None)

    def check(tensors: list[Tensor]) -> list[Tensor]:
        """Compare with the fixed value and give nothing on."""
        _same(tensors[0], expected, ours)
        return []

    return Rule((), (ours,), lambda tensors: [expected.clone()], check)


def _same(found: Tensor, expected: Tensor, name: str) -> None:
    if found.is_meta:
        return
    # a value that was in a file of half precision once stays rounded
    dtypes = (expected.dtype, torch.float16, torch.bfloat16) if expected.is_floating_point() else (expected.dtype,)
    rounded = [expected.to(dtype).double() for dtype in dtypes]
    if found.shape != expected.shape or not any(torch.allclose(found.double(), value) for value in rounded):
        shown = found.tolist() if found.numel() < 5 else f"a tensor of shape {tuple(found.shape)}"
        raise CheckpointError(f"{name} must be {expected.tolist()}, the value this naming stands for; found {shown}")
