"""What a recipe from elsewhere may say to Hydra, which calls whatever its own node names before our code runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from multimodal_zoo.config import compose_whole

#: Launchers and sweepers: Hydra's own, and those of installed plugins.
PLUGINS = re.compile(r"hydra\._internal\.core_plugins\.\w+\.\w+|hydra_plugins\.[\w.]+")
#: Handlers and formatters of log messages.
LOGGING = re.compile(r"logging\.\w*(Handler|Formatter)|logging\.handlers\.\w*FileHandler|colorlog\.\w+Formatter")


def check_recipe(recipe: str, words: Sequence[str], folder: str) -> None:
    """Refuse a recipe whose node `hydra` names anything but launchers, sweepers and handlers of messages.

    Args:
        recipe: stem of the YAML file.
        words: overrides and flags of the command line.
        folder: where the file lies.

    Raises:
        ValueError: a callback, a class of another package, or variables of the environment.
        KeyError, hydra.errors.HydraException: as `compose_whole`.
    """
    # no flags, nor words that belong to them (--cfg job)
    overrides = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]
    if not {"-m", "--multirun"}.isdisjoint(words):  # values with commas are a sweep's: the node is the same in all jobs
        overrides = [word for word in overrides if "," not in word and "(" not in word]
    node: Any = OmegaConf.to_container(compose_whole(recipe, overrides, folder).hydra, resolve=False)
    said = [word.partition("=")[0].lstrip("+~") for word in words]
    for place, name in named_code(node):
        if not any(place.startswith(f"{key}.") or place == key for key in said if key.startswith("hydra")):
            raise ValueError(
                f"{folder}/{recipe}.yaml sets {place} to {name}, which Hydra would call or set: a recipe may not. If "
                f"you trust it, say {place} on the command line"
            )


def named_code(node: Any, place: str = "hydra") -> Iterator[tuple[str, str]]:
    """Dotted keys and values of what Hydra would call, and is neither a plugin nor a handler of messages."""
    if isinstance(node, list):
        for number, child in enumerate(node):
            yield from named_code(child, f"{place}.{number}")
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        here = f"{place}.{key}"
        if key == "_target_":
            known = place in ("hydra.launcher", "hydra.sweeper") and bool(PLUGINS.fullmatch(str(value)))
        elif key in ("()", "class"):
            known = bool(LOGGING.fullmatch(str(value)))
        else:
            known = here != "hydra.job.env_set" or not value
        if not known:
            yield here, str(value)
        yield from named_code(value, here)
