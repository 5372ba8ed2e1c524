"""Recipes of several stages: which stages a recipe has, and how the command line reaches one of them.

A word that begins with a stage's name is an override of that stage's recipe: `language.trainer.max_steps=10`,
`+language.head@model.heads.extra=simsiam`. Such words travel in the staged recipe's own configuration, as
`stages.language.given`, so that sweeps, submitted jobs and saved configurations have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ConfigDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from multimodal_zoo.catalogue import unknown

#: `+` or `~`, the first part of a key, and the rest of the word.
WORD = re.compile(r"([+~]{0,2})([A-Za-z_]\w*)\.(.+)", re.DOTALL)


def quoted(text: str) -> str:
    """A text as the value of an override, whatever it holds: quotes, spaces, `=`, `${`."""
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()


def declared(loader: ConfigLoaderImpl, recipe: str | None) -> tuple[list[str], list[str]]:
    """The stages that a recipe and those that it starts from declare, and their other keys; nothing is composed.

    Args:
        loader: finds the YAML files.
        recipe: name of the primary configuration; None has no stages.
    """
    stages: dict[str, None] = {}
    others: dict[str, None] = {}
    names, seen = ([] if recipe is None else [recipe]), set()
    while names:
        name = names.pop()
        found = loader.repository.load_config(name) if name not in seen else None
        seen.add(name)
        if found is None:
            continue
        node: Any = found.config
        stages |= dict.fromkeys(map(str, node.get("stages") or {}))
        others |= dict.fromkeys(map(str, node))
        for entry in found.defaults_list or ():
            if isinstance(entry, ConfigDefault) and entry.path not in (None, "_self_"):
                names.append(str(PurePosixPath("/", *PurePosixPath(name).parts[:-1], entry.path))[1:])
    return list(stages), list(others)


def routed(words: Sequence[str], stages: Sequence[str], others: Sequence[str], sweep: bool = False) -> list[str]:
    """Overrides of a staged recipe in which those of a stage's recipe are values of `stages.NAME.given`.

    Args:
        words: overrides and Hydra's flags.
        stages: names of the stages; none changes nothing.
        others: the recipe's other keys.
        sweep: whether several values with commas between are several jobs.

    Raises:
        KeyError: a word for a stage that the recipe does not have, with the nearest.
    """
    result, counts = [], dict.fromkeys(stages, 0)
    for word in words:
        match = WORD.fullmatch(word) if stages else None
        if match is None or match[2] not in counts:
            if match is not None and match[2] not in (*others, "hydra"):
                raise unknown(match[2], [*stages, *others], "stage or key", word)
            result.append(word)
            continue
        name = match[2]
        values = ",".join(map(quoted, jobs_of(match[1] + match[3], sweep)))
        result.append(f"+stages.{name}.given.word_{counts[name]}={values}")
        counts[name] += 1
    return result


def jobs_of(word: str, sweep: bool) -> list[str]:
    """A stage's override in each job of a sweep; one that does not sweep is the same in all of them."""
    parsed = OverridesParser.create().parse_override(word) if sweep else None
    if parsed is None or not parsed.is_sweep_override():
        return [word]
    key = word.partition("=")[0]
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def words_of(stage: Any) -> list[str]:
    """All overrides of a stage's recipe, those of the command line last.

    Args:
        stage: a resolved entry of `stages`: `recipe`, `overrides`, `given`.

    Raises:
        ValueError: another key, or overrides that are no list.
    """
    strange = sorted(set(stage) - {"recipe", "overrides", "given"})
    overrides = stage.get("overrides") or []
    if strange or not stage.get("recipe"):
        raise ValueError(f"{strange[0] if strange else 'recipe'}: a stage has a recipe, and perhaps overrides")
    if not isinstance(overrides, list):
        raise ValueError(f"overrides: expected a list of words such as trainer.max_steps=10, got {overrides!r}")
    return [*map(str, overrides), *map(str, (stage.get("given") or {}).values())]
