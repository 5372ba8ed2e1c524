"""Whether the values of a recipe are of the kinds that its parts take, asked before anything is built or read."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from multimodal_zoo.checkpoints.meta import module_node
from multimodal_zoo.kinds import fitted
from multimodal_zoo.registry import require_fit, require_part
from multimodal_zoo.training.groups import read_rules

#: Keys of a recipe that name no part, and their kinds.
SETTINGS: Mapping[str, Any] = {
    "seed": int,
    "threads": int | None,
    "keep_memory": bool,
    "resume": str | None,
    "elastic": bool,
    "optimized_metric": str | None,
}
#: Least and largest value of numbers that nothing else asks about before they do harm.
BOUNDS: Mapping[str, tuple[int, float]] = {
    "seed": (0, 2**32 - 1),
    "optim.lr": (0, inf),
    "optim.weight_decay": (0, inf),
    "trainer.gradient_clip_val": (0, inf),
    "trainer.accumulate_grad_batches": (1, inf),
    "trainer.log_every_n_steps": (1, inf),
}
#: Arguments of the Trainer that no recipe gives.
OWN = ("callbacks", "logger", "default_root_dir", "enable_progress_bar", "enable_checkpointing")


def check_values(recipe: Mapping[str, Any]) -> None:
    """Refuse a recipe with a part that does not exist, an argument that a part does not have, or a word for a number.

    An evaluation that could not be built would otherwise show only when training is over.

    Args:
        recipe: resolved.

    Raises:
        KeyError, TypeError, ValueError: with the key, the value and what was expected.
    """
    for key, kind in SETTINGS.items():
        if key in recipe:
            fitted(recipe[key], kind, key)
    model = recipe["model"]
    require_fit(module_node(model), path="model")
    require_fit(model.get("processor"), path="model.processor")
    require_fit(recipe["data"], path="data", later=("processor",))
    require_fit(recipe["objective"], path="objective", later=[k for k in ("teacher", "reference") if recipe.get(k)])
    require_fit(recipe["schedule"], path="schedule")
    optim = fitted(recipe["optim"], dict[str, Any], "optim")
    require_fit({key: node for key, node in optim.items() if key != "groups"}, path="optim", later=("params",))
    read_rules(fitted(optim.get("groups"), dict[str, Any] | None, "optim.groups"))
    require_fit({"_target_": "lightning.Trainer", **recipe["trainer"]}, path="trainer", later=OWN)
    for key, (least, most) in BOUNDS.items():
        node, _, name = key.rpartition(".")
        value = (recipe[node] if node else recipe).get(name)
        if value is not None and not least <= float(value) <= most:
            raise ValueError(f"{key} is {value}; expected {least} {'or more' if most == inf else f'to {most}'}")
    for group in ("callbacks", "logger", "evaluation"):
        for name, node in (fitted(recipe.get(group), dict[str, Any] | None, group) or {}).items():
            require_part(fitted(node, dict[str, Any] | None, f"{group}.{name}"), path=f"{group}.{name}")
