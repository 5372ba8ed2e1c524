"""Running a command as a Hydra application: recipes, overrides, sweeps, DDP, torchrun, submitit."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from multimodal_zoo.addresses import is_address
from multimodal_zoo.catalogue import list_models, list_recipes, require
from multimodal_zoo.commands.errors import is_ours, message
from multimodal_zoo.commands.hydra_node import check_recipe
from multimodal_zoo.commands.names import (
    DATA_COMMANDS,
    DEFAULT_RECIPE,
    NAMED_WORDS,
    PICTURES,
    PROGRAM,
    QUESTION_COMMANDS,
    RANK_VARIABLES,
    SUBJECT_KEYS,
    TEXT_KEYS,
)
from multimodal_zoo.config import nearest, quoted, reaching_stages, register, start

#: Hydra flags that take a value of their own.
FLAGS_WITH_VALUE = (
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--config-dir",
    "-cd",
    "--package",
    "-p",
    "--cfg",
    "-c",
)


def split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Separate the first positional word (recipe, variant or source) from overrides and Hydra's flags.

    A word with `=` is an override unless it is a path, with a slash, to something that exists, or has a space before.
    """
    rest, subject, skip = [], None, False
    for word in arguments:
        is_value, skip = skip, word in FLAGS_WITH_VALUE
        is_override = "=" in word and not (" " in word.partition("=")[0] or ("/" in word and Path(word).exists()))
        if subject is None and not is_value and not word.startswith(("-", "+", "~")) and not is_override:
            subject = word
        else:
            rest.append(word)
    return subject, rest


def positional(words: list[str]) -> tuple[list[str], list[str]]:
    """All positional words, and the rest; see `split`."""
    found: list[str] = []
    word, rest = split(words)
    while word is not None:
        found.append(word)
        word, rest = split(rest)
    return found, rest


def primary_config(command: str, subject: str | None) -> tuple[str, str, list[str]]:
    """Config folder, config name and extra overrides for a command's subject.

    Raises:
        KeyError: an unknown recipe, with the nearest names.
        FileNotFoundError: a YAML file or source that is not there.
        ValueError: a command that needs a subject got none.
    """
    packaged = "pkg://multimodal_zoo.recipes"
    if command == "train":
        subject = subject or DEFAULT_RECIPE[command]
        if subject.endswith((".yaml", ".yml")):
            path = Path(subject).resolve()
            if not path.is_file():
                raise FileNotFoundError(
                    f"recipe: no file {path}; give a YAML file or one of {', '.join(list_recipes())}"
                )
            return str(path.parent), path.stem, []
        return packaged, require(subject, list_recipes(), "recipe", "recipe"), []
    if command in SUBJECT_KEYS:
        return packaged, f"base/{command}", [f"{SUBJECT_KEYS[command]}={quoted(subject)}"] if subject else []
    if subject is None:
        raise ValueError(f"mmzoo {command} needs a run folder, a checkpoint or one of {', '.join(list_models())}")
    return packaged, f"base/{command}", [subject_override(subject)]


def subject_override(subject: str) -> str:
    """`source=` or `model=` of a path, address or variant, or of several with commas between, which `-m` sweeps over.

    Raises:
        KeyError: neither a path nor a variant, with the nearest variants.
        ValueError: paths and variants mixed.
    """
    several = "," in subject and not Path(subject).exists()
    words = subject.split(",") if several else [subject]
    places = [word for word in words if Path(word).exists() or is_address(word)]
    if not places:
        names = [require(word, list_models(), "variant or path", "source") for word in words]
        return f"model={','.join(names)}"
    if len(places) < len(words):
        other = next(word for word in words if word not in places)
        raise ValueError(f"source: {places[0]} is a path and {other} is none; a sweep takes paths or variants")
    sources = (place if is_address(place) else str(Path(place).resolve()) for place in places)
    return f"source={','.join(map(quoted, sources))}"


def as_text(word: str, keys: Sequence[str]) -> str:
    """An override of one of some keys with its value quoted, so that it is taken as it stands; other words as they are.

    `null`, a list in brackets and what is quoted for Hydra already stay.
    """
    key, equals, value = word.partition("=")
    plain = equals and key in keys and value != "null" and value[:1] not in ("[", "'", '"')
    return f"{key}={quoted(value)}" if plain else word


def with_data(words: list[str], extra: list[str]) -> tuple[list[str], list[str]]:
    """Take a second positional word for the data: the words without it, and the extra overrides with what it means.

    Raises:
        ValueError: data given twice, or a third word.
        FileNotFoundError, KeyError: no such data.
    """
    from multimodal_zoo.commands.data_source import data_overrides

    found, rest = positional(words)
    if not found:
        return rest, extra
    given = {word.partition("=")[0] for word in rest}
    if len(found) > 1 or "data" in given:
        raise ValueError(f"data: {found[0]} and {[*found, 'data=...'][1]} are two; give one")
    chosen = [word for word in data_overrides(found[0]) if word.partition("=")[0] not in given]
    return rest, [*extra, *chosen]


def with_questions(words: list[str]) -> list[str]:
    """Take all further positional words for pictures, if they name files, and for questions: `image=` and `prompt=`.

    Raises:
        ValueError: pictures or questions given both ways.
    """
    found: dict[str, list[str]] = {"image": [], "prompt": []}
    plain, rest = positional(words)
    for word in plain:
        found["image" if _is_picture(word) else "prompt"].append(word)
    given = {one.partition("=")[0] for one in rest}
    for key, values in found.items():
        if values and key in given:
            raise ValueError(f"{key}: {values[0]} and {key}=... are two; give one")
    lists = {key: f"[{','.join(map(quoted, values))}]" for key, values in found.items() if values}
    return [*rest, *(f"{key}={listed}" for key, listed in lists.items())]


def with_named_words(words: list[str], keys: Sequence[str]) -> list[str]:
    """Take further positional words for the values of some keys.

    Raises:
        ValueError: more words than keys, or a value given both ways.
    """
    found, rest = positional(words)
    given = {one.partition("=")[0] for one in rest}
    if len(found) > len(keys):
        expected = f"are {' and '.join(keys)}" if keys else "is key=value"
        raise ValueError(f"{found[len(keys)]}: one word too many; what follows {expected}")
    for key, value in zip(keys, found, strict=False):
        if key in given:
            raise ValueError(f"{key}: {value} and {key}=... are two; give one")
    return [*rest, *(f"{key}={quoted(value)}" for key, value in zip(keys, found, strict=False))]


def _is_picture(word: str) -> bool:
    """Whether a word names a file, or would: a missing picture is no question."""
    try:
        return Path(word).is_file() or (" " not in word and Path(word).suffix.lower() in PICTURES)
    except OSError:  # too long for a name
        return False


def _run(command: str, config: DictConfig) -> Any:
    try:
        return import_module(f"multimodal_zoo.commands.{command}").run(config)
    except OmegaConfBaseException as error:
        if os.environ.get("MMZOO_TRACEBACK"):
            raise
        raise _told(error) from None


def _told(error: HydraException | OmegaConfBaseException) -> Exception:
    """The same for whoever typed the command."""
    if isinstance(error, MissingMandatoryValue):
        return ValueError(f"{error.full_key}: the recipe leaves its value to you; add {error.full_key}=...")
    if isinstance(error, InterpolationKeyError) and (found := re.search(r"'(.+)' not found", str(error))):
        return ValueError(
            f"{error.full_key}: it has the value of {found[1]}, which is not there; choose parts that go together, or "
            f"give {error.full_key} its own value"
        )
    return nearest(error) or ValueError(str(error))


def run_hydra(command: str, arguments: list[str]) -> int:
    """Compose the configuration and run the command's `run(config)`, under Hydra's run or sweep mode.

    Raises:
        KeyError: an unknown recipe, variant, group, option or key, with the nearest names.
        ValueError: anything else that cannot be composed.
    """
    subject, rest = split(arguments)
    folder, name, extra = primary_config(command, subject)
    rest = with_questions(rest) if command in QUESTION_COMMANDS else rest
    if command in DATA_COMMANDS:
        rest, extra = with_data(rest, extra)
    named = with_named_words(rest, NAMED_WORDS.get(command, ()))
    rest = [as_text(word, TEXT_KEYS.get(command, ())) for word in named]
    begun: list[str] = []
    register()
    rest = reaching_stages(name, rest, folder)
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
        # only rank 0 owns the run folder: the others would each resolve ${now:} to a folder of their own
        extra += ["hydra.run.dir=.", "hydra.output_subdir=null"]

    def task(config: DictConfig) -> Any:
        """One job: what a plain run does once and a sweep several times."""
        begun.append(command)
        saved, environment = sys.argv, {key: os.environ.get(key) for key in RANK_VARIABLES}
        # Lightning's launcher re-runs sys.argv: give it the whole command again, without sweep flags
        sys.argv = [PROGRAM, command, *([subject] if subject else []), *HydraConfig.get().overrides.task]
        try:
            return _run(command, config)
        except Exception as error:
            if os.environ.get("MMZOO_TRACEBACK") or not is_ours(error):
                raise
            print(message(error), file=sys.stderr)
            sys.exit(1)
        finally:  # the next job of a sweep starts clean
            sys.argv = saved
            for key, value in environment.items():
                os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)
            distributed = sys.modules.get("torch.distributed")
            if distributed and distributed.is_initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
                distributed.destroy_process_group()

    saved = sys.argv
    sys.argv = [PROGRAM, *rest, *extra]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # its errors come here, not to its own printing
    try:
        if not folder.startswith("pkg://"):
            check_recipe(name, rest, folder)
        hydra.main(version_base="1.3", config_path=folder, config_name=start(name, sys.argv[1:]))(task)()
    except (HydraException, OmegaConfBaseException) as error:
        if os.environ.get("MMZOO_TRACEBACK"):
            raise
        raise _told(error) from None
    except (ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        if begun or is_ours(error) or os.environ.get("MMZOO_TRACEBACK"):
            raise
        raise ValueError(f"{' '.join(rest)}: cannot be composed ({error})") from None  # Hydra was not ready for it
    finally:
        sys.argv = saved
    return 0
