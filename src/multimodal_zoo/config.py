"""Composing configurations with Hydra, without global state: the same call in Python, a notebook or a Hydra app."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

SOURCES = ("pkg://multimodal_zoo.recipes", "pkg://multimodal_zoo.conf")


class ZooSearchPath(SearchPathPlugin):
    """Appends the library's recipes and declarations, so that a user's own folder comes first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append both sources unless they are present."""
        present = {entry.path for entry in search_path.get_path()}
        for source in SOURCES:
            if source not in present:
                search_path.append("multimodal_zoo", source)


def register() -> None:
    """Make Hydra find the library's YAML (a `hydra_plugins` package is not found in editable installs)."""
    Plugins.instance().register(ZooSearchPath)
    setup_globals()  # Hydra's resolvers, `${now:...}` among them


def compose(recipe: str | None = None, overrides: Sequence[str] = (), folder: str | None = None) -> DictConfig:
    """Compose a recipe (or, with None, the overrides alone) into one configuration.

    Args:
        recipe: a name from `list_recipes()`, or the stem of a YAML file in `folder`.
        overrides: Hydra overrides, exactly as on the command line.
        folder: a directory of the user's own YAML files, searched first.

    Raises:
        hydra.errors.HydraException: an unknown recipe, group, option or key, with the valid ones.
    """
    register()
    if hydra.version.getbase() is None:
        hydra.version.setbase("1.3")
    loader = ConfigLoaderImpl(create_config_search_path(folder))
    config = loader.load_configuration(recipe, overrides=list(overrides), run_mode=RunMode.RUN, from_shell=False)
    with open_dict(config):
        config.pop("hydra", None)
    OmegaConf.set_struct(config, True)
    return config
