"""What the evaluations of one suite share: class vectors, kept on disk, and whatever else was computed before."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from multimodal_zoo.evaluation.environment import config_hash
from multimodal_zoo.files import atomic_file

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Workspace:
    """Class vectors by weights, templates and name, in memory and in a folder.

    Vectors are kept one by one: ImageNet-A and -R find those of ImageNet, and so does another image transform.

    Args:
        folder: where files go; None keeps everything in memory.
        mark: whatever else decides an embedding (weights, tokenizer, version), as one text.
    """

    def __init__(self, folder: Path | None, mark: str) -> None:
        self.folder = folder
        self.mark = mark
        self.tables: dict[str, dict[str, Tensor]] = {}
        self.values: dict[tuple[str, ...], Any] = {}

    def once(self, key: tuple[str, ...], compute: Callable[[], T]) -> T:
        """A value that several evaluations need, computed for the first of them and kept in memory.

        Args:
            key: everything but the model that decides it.
            compute: makes it.
        """
        if key not in self.values:
            self.values[key] = compute()
        value: T = self.values[key]
        return value

    def class_vectors(
        self, names: Sequence[str], templates: Sequence[str], compute: Callable[[list[str]], Tensor]
    ) -> Tensor:
        """Vectors of these classes: (classes, width).

        Args:
            names: class names; equal names have equal vectors.
            templates: the prompts around them.
            compute: vectors (classes, width) of the names that are not known yet.
        """
        key = config_hash({"templates": list(templates)}, self.mark)
        table = self.tables.setdefault(key, self._load(key))
        missing = [name for name in dict.fromkeys(names) if name not in table]
        if missing or not names:
            table.update(zip(missing, compute(missing), strict=True))
            self._save(key, table)
        return torch.stack([table[name] for name in names])

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.safetensors"

    def _load(self, key: str) -> dict[str, Tensor]:
        from safetensors import SafetensorError, safe_open

        path = self._path(key)
        if path is None or not path.is_file():
            return {}
        try:
            with safe_open(path, "pt") as file:
                names = json.loads((file.metadata() or {})["names"])
                return dict(zip(names, file.get_tensor("vectors"), strict=True))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            logger.warning("%s cannot be used again: %s", path, error)
            return {}

    def _save(self, key: str, table: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save_file

        path = self._path(key)
        if path is not None:
            with atomic_file(path) as temporary:
                metadata = {"names": json.dumps(list(table))}
                save_file({"vectors": torch.stack(list(table.values())).contiguous()}, temporary, metadata)


def share(part: Any, workspace: Workspace) -> None:
    """Give a part the suite's workspace if it has a method `share` that takes one."""
    take = getattr(part, "share", None)
    if take is not None:
        take(workspace)
