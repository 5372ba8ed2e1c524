"""Which parameters train, at which learning rate and weight decay: rules from YAML, and the table of what they gave.

Patterns are shell patterns over parameter names (`image.blocks.*`, `*norm*`). A pattern that matches nothing is an
error, so that a renamed module never loses its learning rate, its decay or its freezing in silence; a tower's
`optional` patterns, for names that only some encoders have, are the exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from multimodal_zoo.nn.frozen import freeze, matching, some_names
from multimodal_zoo.registry import build

if TYPE_CHECKING:
    from rich.table import Table

Named = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class LayerDecay:
    """Learning rates that shrink geometrically from the head of a tower to its stem (BEiT, arXiv:2106.08254, A.2).

    Block i of `depth` has layer id i + 1, the stem 0, everything after the blocks depth + 1; a layer learns at
    `rate ** (depth + 1 - id)` of the tower's rate.

    Attributes:
        rate: factor from a layer to the one below it.
        blocks: name prefix of a block with `{}` for its index, `image.blocks.{}.` say.
        stem: patterns of the parameters below the first block (patch embedding, positions, token table).
    """

    rate: float
    blocks: str
    stem: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.blocks.count("{}") != 1:
            raise ValueError(f"layer_decay.blocks is {self.blocks!r}; it must contain {{}} once, for the block's index")

    def scales(self, names: Iterable[str], path: str) -> dict[str, float]:
        """Learning-rate scale of each name.

        Raises:
            ValueError: no name belongs to a block, or a stem pattern matches nothing.
        """
        names = list(names)
        head, tail = self.blocks.split("{}")
        index = {name: _index(name, head, tail) for name in names}
        blocks = [i for i in index.values() if i is not None]
        if not blocks:
            raise ValueError(
                f"{path}.blocks: {self.blocks!r} matches no parameter; names look like {some_names(names)}"
            )
        stem = matching(self.stem, names, f"{path}.stem")
        top = max(blocks) + 2
        layer = {n: 0 if n in stem else top if index[n] is None else (index[n] or 0) + 1 for n in names}
        return {name: self.rate ** (top - number) for name, number in layer.items()}


@dataclass(frozen=True)
class Tower:
    """A set of parameters with its own rates.

    Attributes:
        patterns: the parameters it holds.
        lr: its base learning rate; None takes the optimiser's.
        weight_decay: None takes the optimiser's.
        layer_decay: None gives every layer the same rate.
        options: further arguments of the optimiser for this group (`betas`, say).
        optional: more patterns, which may match nothing: a recipe names the stems of several encoders here.
    """

    patterns: Sequence[str]
    lr: float | None = None
    weight_decay: float | None = None
    layer_decay: LayerDecay | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    optional: Sequence[str] = ()


@dataclass(frozen=True)
class ParameterRules:
    """The rules of a recipe (`optim.groups`).

    Attributes:
        frozen: patterns of parameters that do not train.
        no_decay: patterns of parameters without weight decay, beside those of `no_decay_rank`.
        no_decay_rank: tensors with at most this many dimensions have no weight decay; 1 covers biases, norms, layer
            scales and the temperature, -1 nothing.
        decay: patterns of parameters that keep their weight decay whatever `no_decay_rank` says.
        towers: named sets with rates of their own; what no tower holds takes the optimiser's.
        only: patterns of the parameters that train, where all others do not (adapters); empty for all.
    """

    frozen: Sequence[str] = ()
    no_decay: Sequence[str] = ()
    no_decay_rank: int = 1
    decay: Sequence[str] = ()
    towers: Mapping[str, Tower] = field(default_factory=dict)
    only: Sequence[str] = ()

    def freeze(self, parameters: Named) -> list[str]:
        """Stop the gradient of every frozen parameter and return their names.

        Raises:
            ValueError: a pattern matches nothing, or nothing is left to train.
        """
        return freeze(parameters, frozen=self.frozen, only=self.only, path="optim.groups.")

    def groups(self, parameters: Named, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser; call `freeze` first.

        Args:
            parameters: name -> parameter, frozen ones included.
            lr: the optimiser's learning rate.
            weight_decay: the optimiser's weight decay.

        Returns:
            dicts with `params`, `lr`, `weight_decay`, and `tower`, `scale` and `names` for the table.

        Raises:
            ValueError: a pattern matches nothing, two towers claim one parameter, or a parameter is told to decay and
                not to.
        """
        undecayed = self._undecayed(parameters)
        tower_of = self._towers(parameters)
        scales: dict[str, float] = {}
        for key, tower in self.towers.items():
            if tower.layer_decay is not None:
                names = [name for name, owner in tower_of.items() if owner == key]
                scales |= tower.layer_decay.scales(names, f"optim.groups.towers.{key}.layer_decay")
        merged: dict[tuple[Any, ...], dict[str, Any]] = {}
        for name, parameter in parameters.items():
            if not parameter.requires_grad:
                continue
            key = tower_of.get(name, "")
            tower = self.towers.get(key, Tower(()))
            scale = scales.get(name, 1.0)
            decay = weight_decay if tower.weight_decay is None else tower.weight_decay
            if name in undecayed:
                decay = 0.0
            place = (key, scale, decay, shardable(name, parameter))
            base = {"lr": (lr if tower.lr is None else tower.lr) * scale, "weight_decay": decay, **tower.options}
            group = merged.setdefault(place, {"params": [], "names": [], "tower": key, "scale": scale, **base})
            group["params"].append(parameter)
            group["names"].append(name)
        return list(merged.values())

    def _undecayed(self, parameters: Named) -> set[str]:
        """Names without weight decay."""
        named = matching(self.no_decay, parameters, "optim.groups.no_decay")
        kept = matching(self.decay, parameters, "optim.groups.decay")
        if both := sorted(named & kept):
            raise ValueError(f"optim.groups: no_decay and decay both name {both[0]}")
        flat = {name for name, parameter in parameters.items() if parameter.ndim <= self.no_decay_rank}
        return named | (flat - kept)

    def _towers(self, parameters: Named) -> dict[str, str]:
        owner: dict[str, str] = {}
        for key, tower in self.towers.items():
            found = matching(tower.patterns, parameters, f"optim.groups.towers.{key}.patterns")
            optional = {name for name in parameters for pattern in tower.optional if fnmatchcase(name, pattern)}
            for name in found | optional:
                if name in owner:
                    raise ValueError(f"optim.groups.towers: both {owner[name]!r} and {key!r} claim {name}")
                owner[name] = key
        return owner


def read_rules(config: Mapping[str, Any] | None) -> ParameterRules:
    """The rules of an `optim.groups` node.

    Raises:
        TypeError: an unknown key, with its path and the accepted ones.
    """
    home = f"{__name__}."
    node = {"_target_": f"{home}ParameterRules", **(config or {})}
    towers = {}
    for key, tower in (node.get("towers") or {}).items():
        if tower is None:  # switched off by an override
            continue
        decay = tower.get("layer_decay")
        towers[key] = {
            "_target_": f"{home}Tower",
            **tower,
            "layer_decay": decay and {"_target_": f"{home}LayerDecay", **decay},
        }
    return build({**node, "towers": towers}, path="optim.groups")


def table(groups: Sequence[Mapping[str, Any]], frozen: Mapping[str, int]) -> Table:
    """What trains, one row per tower and weight decay, layers folded into a range of rates.

    Args:
        groups: what `ParameterRules.groups` gave.
        frozen: name -> number of values of the parameters that do not train.
    """
    from rich.table import Table

    view = Table(title="What trains", title_justify="left")
    for column in ("part", "tensors", "values", "learning rate", "weight decay"):
        view.add_column(column, justify="left" if column == "part" else "right")
    rows: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for group in groups:
        for part in sorted({group["tower"] or name.split(".")[0] for name in group["names"]}):
            rows.setdefault((part, group["weight_decay"]), []).append(group)
    for (part, decay), members in sorted(rows.items(), key=lambda row: (row[0][0], -row[0][1])):
        inside = [
            (group, parameter)
            for group in members
            for name, parameter in zip(group["names"], group["params"], strict=True)
            if (group["tower"] or name.split(".")[0]) == part
        ]
        rates = sorted({group["lr"] for group, _ in inside})
        shown = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g} to {rates[-1]:.3g}"
        values = sum(parameter.numel() for _, parameter in inside)
        view.add_row(part, str(len(inside)), f"{values:,}", shown, f"{decay:g}")
    if frozen:
        view.add_row("frozen", str(len(frozen)), f"{sum(frozen.values()):,}", "-", "-")
    return view


def shardable(name: str, parameter: nn.Parameter) -> bool:
    """Whether `sharding.shard` spreads a parameter over processes; scalars and the objective's own stay whole.

    The two kinds have groups of their own, because one fused call cannot update both; under every strategy, so that
    each can take up the checkpoints of the others.
    """
    return parameter.ndim > 0 and not name.startswith("objective.")


def by_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an optimiser under the names of its parameters in the training module.

    Numbers would not do: strategies count differently.

    Args:
        state: a state dict whose groups are those of `ParameterRules.groups`; its keys are numbers or these names.
    """
    groups = [{**group, "params": [_full(name) for name in group["names"]]} for group in state["param_groups"]]
    pairs = zip(state["param_groups"], groups, strict=True)
    names = {key: name for old, new in pairs for key, name in zip(old["params"], new["params"], strict=True)}
    return {**state, "state": {names[key]: held for key, held in state["state"].items()}, "param_groups": groups}


def _full(name: str) -> str:
    return name if name.startswith("objective.") else f"model.{name}"


def _index(name: str, head: str, tail: str) -> int | None:
    if not name.startswith(head):
        return None
    number, separator, _ = name[len(head) :].partition(tail) if tail else (name[len(head) :].split(".")[0], ".", "")
    return int(number) if separator and number.isdigit() else None
