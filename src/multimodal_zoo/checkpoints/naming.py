"""A naming is one reversible table between somebody's tensor names and ours.

Each rule turns tensors of one side into tensors of the other and back. `{}` in a name stands for a number, `*` for any
rest; both sides of a rule carry the same ones. Every tensor is consumed by exactly one rule: no rule is an unexpected
name, two rules are a faulty table. Namings work on meta tensors as on real ones, so that a table can be checked
against a manifest of shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.patterns import Pattern

State = dict[str, Tensor]
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
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    to_ours: Move = _unchanged
    to_theirs: Move = _unchanged
    written: bool = False

    def __post_init__(self) -> None:
        if len({Pattern(name).holes for name in (*self.theirs, *self.ours)}) > 1:
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


def rename(theirs: str, ours: str) -> Rule:
    """The same tensor under another name."""
    return Rule((theirs,), (ours,))


def transpose(theirs: str, ours: str) -> Rule:
    """A matrix that the other side keeps transposed (a bare `x @ P` against a Linear's weight)."""

    def swap(tensors: list[Tensor]) -> list[Tensor]:
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
        return lambda tensors: [tensor.reshape(tuple(wanted)) for tensor in tensors]

    return Rule((theirs,), (ours,), to(shape), to(their_shape))


def pack(theirs: Sequence[str | None], ours: str, sizes: Sequence[int] | None = None, dim: int = 0) -> Rule:
    """Several tensors of theirs are slices of one of ours, in order.

    Args:
        theirs: names in the file; None is a slice that the file lacks because it is zero (a key bias).
        ours: the packed tensor's name.
        sizes: the slices' proportions along `dim` (grouped queries: 4, 1, 1); equal if not given.
        dim: the dimension that is packed.
    """
    present, join, split = _slices(theirs, sizes, dim)
    return Rule(present, (ours,), join, split)


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
        return [torch.cat(slices, dim)]

    def split(tensors: list[Tensor]) -> list[Tensor]:
        unit, rest = divmod(tensors[0].shape[dim], sum(parts))
        if rest:
            raise CheckpointError(f"size {tensors[0].shape[dim]} does not split into {parts} for {list(names)}")
        slices = tensors[0].split([unit * part for part in parts], dim)
        for i, piece in enumerate(slices):
            if i not in kept and not piece.is_meta and bool(piece.any()):
                raise CheckpointError(f"slice {i} of {list(names)} must be zero: the other side has no tensor for it")
        return [slices[i] for i in kept]

    return tuple(name for name in names if name is not None), join, split


def drop(theirs: str) -> Rule:
    """A tensor of theirs without meaning for the model (a derived table); absent when saving."""
    return Rule((theirs,), (), lambda tensors: [])


def constant(theirs: str, value: Tensor | float) -> Rule:
    """A fixed entry of theirs (`context_length`): checked and dropped on loading, written on saving."""
    expected = torch.as_tensor(value)

    def check(tensors: list[Tensor]) -> list[Tensor]:
        _same(tensors[0], expected, theirs)
        return []

    return Rule((theirs,), (), check, lambda tensors: [expected.clone()], written=True)


def filled(ours: str, value: Tensor | float) -> Rule:
    """A tensor of ours that theirs leaves out because it is fixed: filled in on loading, checked on saving."""
    expected = torch.as_tensor(value, dtype=torch.float32 if isinstance(value, float) else None)

    def check(tensors: list[Tensor]) -> list[Tensor]:
        _same(tensors[0], expected, ours)
        return []

    return Rule((), (ours,), lambda tensors: [expected.clone()], check)


def _same(found: Tensor, expected: Tensor, name: str) -> None:
    if found.is_meta:
        return
    if found.shape != expected.shape or not torch.allclose(found.double(), expected.double()):
        shown = found.tolist() if found.numel() < 5 else f"a tensor of shape {tuple(found.shape)}"
        raise CheckpointError(f"{name} must be {expected.tolist()}, the value this naming stands for; found {shown}")


class Naming:
    """A reversible table of names.

    Args:
        name: what errors call it, e.g. `openai_clip`.
        rules: the lines, in any order: names decide, not the order.
    """

    def __init__(self, name: str, rules: Iterable[Rule]) -> None:
        self.name = name
        self.rules = tuple(rules)

    def __add__(self, other: Naming) -> Naming:
        return Naming(self.name, self.rules + other.rules)

    def __repr__(self) -> str:
        return f"Naming({self.name!r}, {len(self.rules)} rules)"

    def under(self, theirs: str, ours: str) -> Naming:
        """The table with prefixes, so that a tower's table serves inside a larger model."""
        return Naming(self.name, [rule.under(theirs, ours) for rule in self.rules])

    def load(self, state: Mapping[str, Tensor]) -> State:
        """Their tensors under our names.

        Raises:
            CheckpointError: names that no rule, or only part of a rule, accounts for; all are listed.
        """
        return self._whole(Translator(self), state)

    def save(self, state: Mapping[str, Tensor]) -> State:
        """Our tensors under their names; raises as `load` does."""
        return self._whole(Translator(self, reverse=True), state)

    @staticmethod
    def _whole(translator: Translator, state: Mapping[str, Tensor]) -> State:
        translated = translator.feed(state)
        translated.update(translator.finish())
        problems = [f"unknown: {name}" for name in translator.unexpected]
        problems += [f"incomplete: {name}" for name in translator.incomplete]
        if problems:
            shown = "\n  ".join(problems[:20]) + (
                f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
            )
            raise CheckpointError(f"{translator.naming.name}: {len(problems)} names do not fit the table:\n  {shown}")
        return translated


class Translator:
    """Applies a naming to one shard after another, holding back only the parts of a tensor that is not complete yet.

    Args:
        naming: the table.
        reverse: from ours to theirs instead of theirs to ours.
    """

    def __init__(self, naming: Naming, reverse: bool = False) -> None:
        self.naming = naming
        self.unexpected: list[str] = []
        self._reverse = reverse
        self._made: set[str] = set()
        self._waiting: dict[tuple[int, tuple[str, ...]], dict[int, tuple[str, Tensor]]] = {}
        self._sources = [
            (i, k, Pattern(name))
            for i, rule in enumerate(naming.rules)
            for k, name in enumerate(rule.ours if reverse else rule.theirs)
        ]
        self._exact = {p.text: (i, k) for i, k, p in self._sources if not p.holes}
        self._open = [(i, k, p) for i, k, p in self._sources if p.holes]

    @property
    def incomplete(self) -> list[str]:
        """Names seen whose companions have not come."""
        return [name for parts in self._waiting.values() for name, _ in parts.values()]

    def knows(self, name: str) -> bool:
        """Whether a rule claims this name."""
        return self._claim(name) is not None

    def feed(self, state: Mapping[str, Tensor]) -> State:
        """Translate one shard; names that fit no rule are kept in `unexpected`.

        Raises:
            CheckpointError: two rules claim one name, or a tensor cannot be what its rule says.
        """
        translated: State = {}
        for name, tensor in state.items():
            claim = self._claim(name)
            if claim is None:
                self.unexpected.append(name)
                continue
            i, k, fill = claim
            parts = self._waiting.setdefault((i, fill), {})
            parts[k] = (name, tensor)
            rule = self.naming.rules[i]
            if len(parts) == len(rule.ours if self._reverse else rule.theirs):
                del self._waiting[i, fill]
                sources = [parts[k] for k in sorted(parts)]
                translated.update(self._apply(rule, [t for _, t in sources], fill, sources[0][0]))
        return translated

    def finish(self) -> State:
        """What the target side has and the source side never carries: constants."""
        written: State = {}
        for rule in self.naming.rules:
            source, target = (rule.ours, rule.theirs) if self._reverse else (rule.theirs, rule.ours)
            if not source and target and (rule.written or not self._reverse):
                written.update(self._apply(rule, [], (), rule.theirs[0] if rule.theirs else rule.ours[0]))
        return written

    def _claim(self, name: str) -> tuple[int, int, tuple[str, ...]] | None:
        claims = [(i, k, fill) for i, k, p in self._open if (fill := p.match(name)) is not None]
        if name in self._exact:
            claims.append((*self._exact[name], ()))
        if len(claims) > 1:
            rules = "; ".join(str(self.naming.rules[i]) for i, _, _ in claims)
            raise CheckpointError(f"{self.naming.name}: {name} is claimed by {len(claims)} rules: {rules}")
        return claims[0] if claims else None

    def _apply(self, rule: Rule, tensors: list[Tensor], fill: tuple[str, ...], name: str) -> State:
        targets = rule.theirs if self._reverse else rule.ours
        try:
            made = (rule.to_theirs if self._reverse else rule.to_ours)(tensors)
        except (RuntimeError, IndexError) as error:
            if isinstance(error, CheckpointError):
                raise
            shapes = [tuple(tensor.shape) for tensor in tensors]
            raise CheckpointError(f"{self.naming.name}: {name} {shapes} does not fit {rule}: {error}") from error
        named = {Pattern(target).fill(fill): tensor for target, tensor in zip(targets, made, strict=True)}
        if twice := self._made.intersection(named):
            raise CheckpointError(
                f"{self.naming.name}: {name} would give {sorted(twice)}, which other tensors gave already"
            )
        self._made.update(named)
        return named
