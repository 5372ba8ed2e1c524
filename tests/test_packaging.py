"""What is shipped: the package list, the YAML in the wheel, the metadata."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
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
