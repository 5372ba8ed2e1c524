"""A naming is one reversible table between somebody's tensor names and ours.

Every tensor is consumed by exactly one rule: no rule is an unexpected name, two rules are a faulty table. Namings work
on meta tensors as on real ones, so that a table can be checked against a manifest of shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.patterns import Pattern, pattern
from multimodal_zoo.checkpoints.rules import Fallback, Rule

State = dict[str, Tensor]


class Naming:
    """A reversible table of names.

    Args:
        name: what errors call it, e.g. `openai_clip`.
        rules: the lines, in any order: names decide, not the order.
        fallbacks: what is filled in where a file lacks it.
    """

    def __init__(self, name: str, rules: Iterable[Rule], fallbacks: Iterable[Fallback] = ()) -> None:
        self.name = name
        self.rules, self.fallbacks = tuple(rules), tuple(fallbacks)

    def __add__(self, other: Naming) -> Naming:
        return Naming(self.name, self.rules + other.rules, self.fallbacks + other.fallbacks)

    def __repr__(self) -> str:
        return f"Naming({self.name!r}, {len(self.rules)} rules)"

    def under(self, theirs: str, ours: str) -> Naming:
        """The table with prefixes, so that a tower's table serves inside a larger model."""
        moved = [Fallback(ours + one.ours, ours + one.beside, one.make) for one in self.fallbacks]
        return Naming(self.name, [rule.under(theirs, ours) for rule in self.rules], moved)

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
        self.filled: list[str] = []
        self._reverse = reverse
        self._made: dict[str, torch.Size] = {}
        self._waiting: dict[tuple[int, tuple[str, ...]], dict[int, tuple[str, Tensor]]] = {}
        self._sources = [
            (i, k, pattern(name))
            for i, rule in enumerate(naming.rules)
            for k, name in enumerate(rule.ours if reverse else rule.theirs)
        ]
        self._exact = {p.text: (i, k) for i, k, p in self._sources if not p.holes}
        self._open: dict[str, list[tuple[int, int, Pattern]]] = {}
        for i, k, p in self._sources:
            if p.holes:  # by the first word of the name, so that few are tried
                word, dot, _ = p.head.partition(".")
                self._open.setdefault(word if dot else "", []).append((i, k, p))

    @property
    def incomplete(self) -> list[str]:
        """Names seen whose companions have not come."""
        return [name for parts in self._waiting.values() for name, _ in parts.values()]

    def knows(self, name: str) -> bool:
        """Whether a rule claims this name."""
        return self._claim(name) is not None

    def copies(self, name: str) -> bool:
        """Whether translating copies this tensor, so that nothing refers to the source afterwards."""
        claim = self._claim(name)
        return claim is not None and self.naming.rules[claim[0]].copies

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
        """What the target side has and the source side does not carry: constants, and what this file lacks."""
        written: State = {}
        for rule in self.naming.rules:
            source, target = (rule.ours, rule.theirs) if self._reverse else (rule.theirs, rule.ours)
            if not source and target and (rule.written or not self._reverse):
                written.update(self._apply(rule, [], (), rule.theirs[0] if rule.theirs else rule.ours[0]))
        if not self._reverse:
            written.update(self._fallbacks())
        return written

    def _fallbacks(self) -> State:
        made: State = {}
        for one in self.naming.fallbacks:
            beside, ours = pattern(one.beside), pattern(one.ours)
            for name, shape in self._made.items():
                fill = beside.match(name)
                if fill is not None and (lacking := ours.fill(fill)) not in self._made:
                    made[lacking] = one.make(shape)
        self._made.update({name: tensor.shape for name, tensor in made.items()})
        self.filled += made
        return made

    def _claim(self, name: str) -> tuple[int, int, tuple[str, ...]] | None:
        near = (*self._open.get(name.partition(".")[0], ()), *self._open.get("", ()))
        claims = [(i, k, fill) for i, k, p in near if (fill := p.match(name)) is not None]
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
        named = {pattern(target).fill(fill): tensor for target, tensor in zip(targets, made, strict=True)}
        if twice := self._made.keys() & named.keys():
            raise CheckpointError(
                f"{self.naming.name}: {name} would give {sorted(twice)}, which other tensors gave already"
            )
        self._made.update({name: tensor.shape for name, tensor in named.items()})
        return named


def in_ours(shapes: Mapping[str, Tensor], naming: Naming | None) -> tuple[State, list[str]]:
    """A file's shapes under our names, on the meta device, and its names that the table does not account for.

    Args:
        shapes: name -> tensor (meta tensors will do), in the file's naming.
        naming: the table from the file's names to ours; None if they are ours.
    """
    named = {name: tensor.detach().to("meta") for name, tensor in shapes.items()}
    if naming is None:
        return named, []
    translator = Translator(naming)
    translated = translator.feed(named)
    return {**translated, **translator.finish()}, translator.unexpected + translator.incomplete
