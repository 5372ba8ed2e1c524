"""`python tests/parts_page.py`: the page of all parts (docs/parts.md) from the registries; a test compares both."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

from multimodal_zoo.registry import KINDS, find

PAGE = Path(__file__).parents[1] / "docs" / "parts.md"
TITLES = {
    "nn": "Attention, blocks, embeddings",
    "encoders": "Encoders",
    "tokenizers": "Tokenizers",
    "decoders": "Decoders",
    "bev": "Bird's-eye view",
    "objectives": "Objectives",
    "data": "Data and processors",
    "captions": "Caption fusion",
    "evaluation": "Evaluation",
}
HEAD = """# All parts

<!-- Written by `python tests/parts_page.py` from the registries; a test compares both. -->

What `type:` may name in a YAML file, with the arguments of each; those with a star must be given. Arguments that are
parts themselves are nodes with a `type:` of their own.
"""


def parts() -> dict[str, dict[str, Any]]:
    """All parts of the library by room and name."""
    with suppress(KeyError):
        find("no part of this name: every room is imported")
    found: dict[str, dict[str, Any]] = {room: {} for room in TITLES}
    for kind in KINDS:
        for name, part in kind.module_dict.items():
            package, _, rest = part.__module__.partition(".")
            if package == "multimodal_zoo":
                found[rest.partition(".")[0]][name] = part
    return found


def row(name: str, part: Any) -> str:
    """One row of a table: name, arguments, the first sentence of the docstring."""
    parameters = inspect.signature(part).parameters.values()
    arguments = ", ".join(f"{p.name}{'*' if p.default is p.empty else ''}" for p in parameters)
    sentence = " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split()).replace("|", "\\|")
    return f"| `{name}` | {arguments} | {sentence} |"


def page() -> str:
    """The page's text."""
    lines = [HEAD]
    for room, found in parts().items():
        lines += [f"## {TITLES[room]}\n", "| part | arguments | what it is |", "| --- | --- | --- |"]
        lines += [*(row(name, found[name]) for name in sorted(found)), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
