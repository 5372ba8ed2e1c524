"""The tenth system as if it were installed: what `pip install` would leave, without its processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multimodal_zoo import catalogue, registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the project and the metadata that its pyproject.toml declares where Python looks for packages."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = tmp_path_factory.mktemp("site")
    information = place / f"{project['name']}-{project['version']}.dist-info"
    information.mkdir()
    facts = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(facts)
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in e.items()) for group, e in groups]
    (information / "entry_points.txt").write_text("".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.syspath_prepend(str(PROJECT))
        forget()
        yield
    for kind in registry.KINDS:
        for name, part in list(kind.module_dict.items()):
            if part.__module__.startswith(project["name"]):
                del kind.module_dict[name]
    for name in [name for name in sys.modules if name.split(".")[0] == project["name"]]:
        del sys.modules[name]
    forget()


def forget() -> None:
    """Let the library look for installed packages anew."""
    catalogue.packages.cache_clear()
    registry.load_plugins.cache_clear()
