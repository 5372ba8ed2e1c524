"""Nothing public is there for nothing: each name is used somewhere, each module is imported somewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from multimodal_zoo.commands.names import COMMANDS, MODULES

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "multimodal_zoo"
#: Called by the libraries whose classes these methods belong to.
HOOKS = {"extra_repr", "get_next", "get_seq_length", "log_hyperparams", "loglikelihood", "manipulate_search_path"}
HOOKS |= {"optimizer_state", "persistent_load"}
#: Modules that programs start with, and those that only callers from Python and tests of published values import.
ENTRIES = {
    "__main__",
    "cli",
    "evaluation.lmms",
}
#: Parts by their registered names: whether a YAML, a test or a page uses them is asked below.
REGISTERED = re.compile(r"register_module\(\s*name=\"(\w+)\"\s*\)\s*(?:@.*\s*)*(?:def|class)\s+(\w+)")


def texts(*folders: str) -> Iterable[str]:
    """All that is written in some folders."""
    endings = (".py", ".yaml", ".md", ".ipynb", ".toml", ".cfg")
    for folder in folders:
        yield from (path.read_text() for path in sorted((ROOT / folder).rglob("*")) if path.suffix in endings)


def test_every_public_name_and_every_part_is_used() -> None:
    source = list(texts("src"))
    outside = [*texts("tests", "docs", "benchmarks", "notebooks", "conf", "recipes"), (ROOT / "README.md").read_text()]
    uses = Counter(word for text in (*source, *outside) for word in re.findall(r"\w+", text))
    defined = Counter(
        name for text in source for name in re.findall(r"^ *(?:async )?(?:def|class) ([a-zA-Z]\w*)", text, re.MULTILINE)
    )
    registered = dict(pair[::-1] for text in source for pair in REGISTERED.findall(text))
    dead = {name for name, count in defined.items() if uses[name] <= count} - registered.keys() - HOOKS
    assert not {name for name in dead if not name.startswith("on_")}
    unused = {name for name in registered.values() if uses[name] <= 1}  # 1: where it is registered
    assert not unused


def test_every_module_is_imported() -> None:
    modules = {".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    imported = {f"commands.{MODULES.get(name, name)}" for name in COMMANDS}
    for text in texts("src", "conf", "recipes", "docs", "benchmarks", "notebooks"):
        for package, names in re.findall(r"from multimodal_zoo(\.[\w.]+)? import (\([^)]*\)|[^\n]*)", text):
            imported |= {package[1:], *(f"{package}.{name}".strip(".") for name in re.findall(r"\w+", names))}
        for name in re.findall(r"multimodal_zoo\.([\w.]+)", text):
            imported |= {name, name.rpartition(".")[0]}  # a module, or what is in one
    lost = {name for name in modules if not name.endswith("__init__")} - imported - ENTRIES
    assert not lost
