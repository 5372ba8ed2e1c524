"""Writing pairs as tar shards, so that any reader's data can be read like LAION's shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.pictures import open_picture, to_rgb
from multimodal_zoo.data.shard_counts import SIZES
from multimodal_zoo.files import atomic_file, write_text
from multimodal_zoo.registry import DATASETS

#: PIL's options by suffix; WebP and PNG keep every pixel.
FORMATS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "lossless": True, "exact": True, "method": 0},
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95},
}

#: How JSON is encoded: texts of the web may hold half a surrogate pair, which JSON's readers take.
SURROGATES = ("utf-8", "surrogatepass")


def encode(image: Image.Image, suffix: str) -> bytes:
    """An encoded picture; JPEG has no alpha and gets its picture on white."""
    buffer = io.BytesIO()
    (to_rgb(image) if suffix == "jpg" else image).save(buffer, **FORMATS[suffix])
    return buffer.getvalue()


@DATASETS.register_module(name="webdataset_export")
class WebdatasetExport:
    """Writes the documents of a reader as `00000.tar`, `00001.tar`, ... with picture + txt + json under one key.

    Args:
        folder: where the shards go; made if it is not there.
        shard_size: samples in a shard.
        suffix: `webp`, `png` (both exact) or `jpg`.

    Raises:
        ValueError: an unknown suffix, a shard size below 1.
    """

    def __init__(self, folder: str, shard_size: int = 1000, suffix: str = "webp") -> None:
        if suffix not in FORMATS:
            raise ValueError(f"suffix is {suffix!r}; it must be one of {', '.join(FORMATS)}")
        if shard_size < 1:
            raise ValueError(f"shard_size is {shard_size}; it must be at least 1")
        self.folder = Path(folder).expanduser()
        self.shard_size = shard_size
        self.suffix = suffix

    def __call__(self, documents: Iterable[Document]) -> list[Path]:
        """Write all documents; gives the shards' paths. A shard appears under its name when it is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        paths: list[Path] = []
        pending: list[Document] = []
        total = 0
        for document in documents:
            pending.append(document)
            if len(pending) == self.shard_size:
                paths.append(self._write(pending, len(paths), total))
                total, pending = total + len(pending), []
        if pending:
            paths.append(self._write(pending, len(paths), total))
        sizes = {path.name: self.shard_size for path in paths[:-1]}
        if paths:
            sizes[paths[-1].name] = len(pending) or self.shard_size
        write_text(self.folder / SIZES, json.dumps(sizes, indent=1))
        return paths

    def _write(self, documents: list[Document], number: int, first: int) -> Path:
        path = self.folder / f"{number:05d}.tar"
        with atomic_file(path) as partial, tarfile.open(partial, "w") as tar:
            for i, document in enumerate(documents):
                name = f"{number:05d}{first + i:07d}"
                meta = {key: value for key, value in document.meta.items() if is_plain(value)}
                facts = {**meta, "caption": document.text, "key": document.key}
                add_member(tar, f"{name}.{self.suffix}", encode(open_picture(document.image), self.suffix))
                add_member(tar, f"{name}.txt", document.text.encode(errors="replace"))
                add_member(tar, f"{name}.json", json.dumps(facts, ensure_ascii=False).encode(*SURROGATES))
        return path


def is_plain(value: Any) -> bool:
    """Whether a fact about a document can stand in a JSON file."""
    return isinstance(value, (str, int, float, bool, list, tuple)) or value is None


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar that is being written; the same content gives the same bytes."""
    info = tarfile.TarInfo(name)  # no owner and no time
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
