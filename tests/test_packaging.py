"""What is shipped: the package list, the YAML in the wheel, the metadata."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def declared_packages() -> set[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return set(parser["options"]["packages"].split())


def test_the_package_list_is_complete() -> None:
    source = ROOT / "src"
    found = {".".join(p.parent.relative_to(source).parts) for p in source.rglob("__init__.py")}
    assert declared_packages() == found | {"multimodal_zoo.conf", "multimodal_zoo.recipes"}


def test_every_imported_package_is_declared() -> None:
    """Extras count as well: one part of a module may need them."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {re.split(r"[<>=\[ ]", line, maxsplit=1)[0].lower().replace("-", "_") for line in lines}
    imported: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    for name in sorted(imported - sys.stdlib_module_names - {"multimodal_zoo"}):
        homes = {home.lower().replace("-", "_") for home in distributions.get(name, [name])}
        assert homes & declared, f"{name} ({homes}) is imported and not declared"


@pytest.mark.slow
def test_sdist_to_wheel_ships_every_yaml(tmp_path) -> None:
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns(".git", "runs", "build", "dist", "*.egg-info", "__pycache__", "site", ".*cache")
    shutil.copytree(ROOT, checkout, ignore=ignore)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(checkout)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ("conf", "recipes"):
        for path in (ROOT / room).rglob("*.yaml"):
            assert f"multimodal_zoo/{path.relative_to(ROOT)}" in names
    for path in (ROOT / "src").rglob("*.py"):
        assert str(path.relative_to(ROOT / "src")) in names
    assert "multimodal_zoo/data/emoji_table.json.gz" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "conf/", "recipes/"))]


def test_no_machine_path_or_private_host_is_committed() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    pattern = re.compile(r"(?<![\w.])/(?:work|root|farm)/")
    for name in files:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".yaml", ".toml", ".cfg", ".ipynb"}
            and path != Path(__file__)
            and path.exists()
        ):
            assert not pattern.search(path.read_text(encoding="utf-8")), name
