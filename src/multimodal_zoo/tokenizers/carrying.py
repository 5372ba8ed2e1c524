"""Files of tokenizers that travel with a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def carried_node(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A tokenizer's node with the place of its file inside `folder`, wherever that was moved.

    A node whose `path` is not that of a file in the folder (none, an absolute one, one in a package) stays as it is.
    """
    path = node.get("path")
    if path is None or Path(path).is_absolute() or not (folder / path).is_file():
        return dict(node)
    return {**node, "path": str(folder / path)}
