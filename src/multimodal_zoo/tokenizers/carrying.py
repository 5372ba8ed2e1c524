"""Files of tokenizers that travel with a model's weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def copied_node(node: Mapping[str, Any], file: Path | None, folder: Path, name: str) -> dict[str, Any]:
    """A tokenizer's node whose file is copied into `folder`, where it travels with a model's weights.

    A file that is not there (weights can be made and saved without texts) leaves the node as it is.

    Args:
        node: with a `path`.
        file: where that is; None where there is none.
        folder: of the weights.
        name: of the copy.
    """
    if file is None or not file.is_file():
        missing = "its path is null, and no package holds the file" if file is None else f"no file {file}"
        logger.warning("the tokenizer does not travel with the model: %s; set path to the file %s", missing, name)
        return dict(node)
    (folder / name).write_bytes(file.read_bytes())
    return {**node, "path": name}


def carried_node(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A tokenizer's node with the place of its file inside `folder`, wherever that was moved.

    A node whose `path` is not that of a file in the folder (none, an absolute one, one in a package) stays as it is.
    """
    path = node.get("path")
    if path is None or Path(path).is_absolute() or not (folder / path).is_file():
        return dict(node)
    return {**node, "path": str(folder / path)}
