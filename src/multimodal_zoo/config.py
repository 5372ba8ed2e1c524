"""Composing configurations with Hydra, without global state: the same call in Python, a notebook or a Hydra app."""

from __future__ import annotations

import re
from collections.abc import Sequence

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from multimodal_zoo.catalogue import list_groups, packages, unknown
from multimodal_zoo.messages import is_ours
from multimodal_zoo.stages import declared, routed
from multimodal_zoo.stages import quoted as quoted


class ZooSearchPath(SearchPathPlugin):
    """Appends recipes and declarations, the library's and installed packages', so that a user's own folder is first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the sources that are not present."""
        present = {entry.path for entry in search_path.get_path()}
        for package in (*packages("recipes"), *packages("conf")):
            if f"pkg://{package}" not in present:
                search_path.append("multimodal_zoo", f"pkg://{package}")


def register() -> None:
    """Make Hydra find the library's YAML (a `hydra_plugins` package is not found in editable installs)."""
    Plugins.instance().register(ZooSearchPath)
    setup_globals()  # Hydra's resolvers, `${now:...}` among them
    OmegaConf.register_new_resolver("part", _part, replace=True)


def _part(place: str, part: str, changes: DictConfig | None = None, *, _node_: Node, _root_: DictConfig) -> DictConfig:
    """`${part:PLACE,NAME}`, or `${part:PLACE,NAME,{key: value}}`: the part of a model that lies there, in this slot.

    What depends on a width asks several times; the place is read once for each configuration.

    Raises:
        ValueError: nothing there, no such part, or a change of what it does not have; with the slot's key.
    """
    from multimodal_zoo.checkpoints.part_nodes import part_node

    known = OmegaConf.get_cache(_root_)["part"]
    try:
        if (place, part) not in known:
            known[place, part] = part_node(str(place), part)
        node = OmegaConf.create(known[place, part])
        OmegaConf.set_struct(node, True)
        return OmegaConf.merge(node, changes or {})  # type: ignore[return-value]
    except (LookupError, OSError, RuntimeError, ValueError, OmegaConfBaseException) as error:
        told = nearest(error) or error
        raise ValueError(f"{_node_._get_full_key(None)}: {told.args[0] if told.args else told}") from None


def compose(recipe: str | None = None, overrides: Sequence[str] = (), folder: str | None = None) -> DictConfig:
    """Compose a recipe (or, with None, the overrides alone) into one configuration.

    Args:
        recipe: a name from `list_recipes()`, or the stem of a YAML file in `folder`.
        overrides: Hydra overrides, exactly as on the command line.
        folder: a directory of the user's own YAML files, searched first.

    Raises:
        KeyError: an unknown recipe, group, option or key, with the nearest names.
        hydra.errors.HydraException: anything else that cannot be composed.
    """
    try:
        config = _without_hydra(recipe, overrides, folder)
    except Exception:  # words and recipes about Hydra's own node, and all that is wrong: Hydra says what
        config = compose_whole(recipe, overrides, folder)
    with open_dict(config):
        config.pop("hydra", None)
    OmegaConf.set_struct(config, True)
    return config


def compose_whole(recipe: str | None, overrides: Sequence[str], folder: str | None = None) -> DictConfig:
    """What `compose` gives, with the node `hydra`: which file was chosen for a group, which overrides were given."""
    loader, primary, words = _started(recipe, overrides, folder)
    try:
        return loader.load_configuration(primary, overrides=words, run_mode=RunMode.RUN, from_shell=False)
    except HydraException as error:
        raise nearest(error) or error from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        AssertionError,
    ) as error:  # of strange words
        raise error if is_ours(error) else ValueError(f"{' '.join(words)}: cannot be composed ({error})") from None


def _started(
    recipe: str | None, overrides: Sequence[str], folder: str | None
) -> tuple[ConfigLoaderImpl, str | None, list[str]]:
    """What finds the YAML, the name of the configuration to start from, and the overrides as it takes them."""
    register()
    if hydra.version.getbase() is None:
        hydra.version.setbase("1.3")
    loader = ConfigLoaderImpl(create_config_search_path(folder))
    words = routed(list(overrides), *declared(loader, recipe))
    return loader, start(recipe, words), words


def _without_hydra(recipe: str | None, overrides: Sequence[str], folder: str | None) -> DictConfig:
    """Hydra's steps but for composing its own node of ten more files, which takes as long as a model's."""
    loader, primary, words = _started(recipe, overrides, folder)
    parsed, repository = loader._parse_overrides_and_create_caching_repo(primary, words)
    loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=False)
    found = create_defaults_list(
        repo=repository, config_name=primary, overrides_list=parsed, prepend_hydra=False, skip_missing=False
    )
    config = loader._compose_config_from_defaults_list(defaults=found.defaults, repo=repository)
    OmegaConf.set_struct(config, True)
    loader._apply_overrides_to_config(found.config_overrides, config)
    return config


def reaching_stages(recipe: str, words: Sequence[str], folder: str | None = None) -> list[str]:
    """The words of a command line (overrides and flags) with those for a stage of the recipe where it takes them.

    Args:
        recipe: name of the primary configuration.
        words: the words; with `-m` or `--multirun` among them, values with commas between are several jobs.
        folder: where the primary configuration lies, `pkg://...` or a directory.

    Raises:
        KeyError: a stage that the recipe does not have, with the nearest.
    """
    loader = ConfigLoaderImpl(create_config_search_path(folder))
    return routed(words, *declared(loader, recipe), sweep=not {"-m", "--multirun"}.isdisjoint(words))


def start(recipe: str | None, overrides: Sequence[str]) -> str | None:
    """The name of the configuration that Hydra starts from for a recipe.

    Hydra looks for an added group (`+head@model.heads.simsiam=simsiam`) in the folder of that configuration, where
    there are none: a recipe in a folder is then started by a stand-in that lies at the top and holds nothing else.
    """
    groups = {word[1:].partition("=")[0].partition("@")[0] for word in overrides if word.startswith("+")}
    if recipe is None or "/" not in recipe or groups.isdisjoint(list_groups()):
        return recipe
    name = recipe.replace("/", ".")
    ConfigStore.instance().store(name, {"defaults": [f"/{recipe}", "_self_"]}, package="_global_")
    return name


def nearest(error: BaseException) -> KeyError | None:
    """What a key, group or option that Hydra or OmegaConf did not find is nearest to; None for any other error."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return unknown(name, list(error.options), "option", group or "recipe")
    if found := re.search(r"Override (\S+?)=.* looks like a config group override", str(error)):
        return unknown(found[1].lstrip("+~").partition("@")[0], list_groups(), "group", found[1])
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    parent = getattr(cause, "parent_node", None)
    if isinstance(cause, OmegaConfBaseException) and isinstance(parent, DictConfig):
        known = [str(key) for key in parent]
        if str(cause.key) not in known:  # a key that is there may have other errors, a missing value say
            return unknown(str(cause.key), known, "key", str(cause.full_key))
    return None
