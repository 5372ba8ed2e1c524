"""Visual embeddings computed before: in files, found by the pixels that they were made of (frozen encoders)."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.visual_sequences import VisualSample
from multimodal_zoo.files import atomic_file, leftovers, read_record, reading, write_text
from multimodal_zoo.registry import DATASETS

FACTS = "visual_store.json"
#: Bytes of a key.
KEY = 16
#: How embeddings may be stored.
DTYPES = ("float32", "float16")


class Place(NamedTuple):
    """Where embeddings of a picture are.

    Attributes:
        part: number of the file.
        start: their first row in it.
    """

    part: int
    start: int


def picture_key(pixels: Tensor, count: int) -> bytes:
    """The name of a picture that goes into a number of embeddings.

    Args:
        pixels: float (3, height, width), as the encoder reads them.
        count: embeddings.
    """
    content = np.ascontiguousarray(pixels.float().numpy())
    return hashlib.blake2b(content.tobytes() + count.to_bytes(4, "little"), digest_size=KEY).digest()


@DATASETS.register_module(name="visual_store")
class VisualStore:
    """A folder of visual embeddings that `mmzoo embed` wrote, for training behind a frozen encoder and connector.

    Keys are held in memory, embeddings are mapped from their files; worker processes open them anew.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: no such folder, or none of this kind.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser()
        if not (self.folder / FACTS).is_file():
            raise FileNotFoundError(f"processor.store.folder: no {FACTS} in {folder!r}; mmzoo embed writes one")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the folder says of itself: `width`, `dtype`, `weights`, `pictures`."""
        return read_record(self.folder / FACTS)

    @cached_property
    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("visual-*.npy"))

    @cached_property
    def _places(self) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        for number, part in enumerate(self._parts):
            with _opened(_index(part)), np.load(_index(part), allow_pickle=False) as index:
                rows = zip(index["keys"], index["starts"].tolist(), strict=True)
                found.update((bytes(key), Place(number, int(start))) for key, start in rows)
        return found

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        found = []
        for part in self._parts:
            with _opened(part):
                found.append(np.load(part, mmap_mode="r", allow_pickle=False))
        return found

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._places)

    def find(self, pixels: Tensor, count: int) -> Tensor | None:
        """Float32 (count, width), the embeddings of a picture; None where it is not in the store.

        Args:
            pixels: float (3, height, width).
            count: embeddings.
        """
        place = self._places.get(picture_key(pixels, count))
        if place is None:
            return None
        with _opened(self._parts[place.part]):
            rows = np.array(self._rows[place.part][place.start : place.start + count], dtype=np.float32)
            if rows.ndim != 2 or len(rows) != count:
                raise IndexError(f"{rows.shape} in place of {count} embeddings from row {place.start} on")
            return torch.from_numpy(rows)


def stored_sample(sample: VisualSample, store: VisualStore) -> VisualSample:
    """A sample with stored embeddings in place of its pictures.

    Args:
        sample: with or without pictures.
        store: has all of them.

    Raises:
        UnusableError: a picture that is not in the store.
    """
    if sample.images is None:
        return sample
    found = []
    for number, (pixels, count) in enumerate(zip(sample.images.pixels, sample.images.counts, strict=True)):
        one = store.find(pixels, count)
        if one is None:
            raise UnusableError("picture without stored embeddings", f"{sample.key}, picture {number + 1}")
        found.append(one)
    return sample._replace(images=None, visual=torch.cat(found), counts=sample.images.counts)


class VisualStoreWriter:
    """Writes what `VisualStore` reads, part by part; a picture that is there already is not written again.

    Args:
        folder: new, or one that was begun with the same facts.
        facts: `width` and `weights` of the model, say.
        dtype: one of `DTYPES`.
        part_size: pictures in a file.

    Raises:
        ValueError: an unknown dtype, or a folder of other facts.
    """

    def __init__(
        self, folder: str | Path, facts: dict[str, Any], dtype: str = "float16", part_size: int = 4096
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        self.folder, self.dtype, self.part_size = Path(folder), dtype, part_size
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = json.loads(json.dumps({**facts, "dtype": dtype}))
        if (self.folder / FACTS).is_file():
            before = VisualStore(str(folder)).facts
            if differing := [key for key in plain if before.get(key) != plain[key]]:
                raise ValueError(f"out: {folder} was written with other {', '.join(differing)}; choose another folder")
        for half in leftovers(self.folder):  # of a run that was killed while it wrote
            half.unlink(missing_ok=True)
        write_text(self.folder / FACTS, json.dumps(plain, indent=2))
        self._known = set(VisualStore(str(folder))._places)
        self._waiting: list[tuple[bytes, np.ndarray]] = []

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def add(self, key: bytes, visual: Tensor) -> None:
        """Store the embeddings (count, width) of a picture by its `picture_key`."""
        if key in self._known:
            return
        self._known.add(key)
        self._waiting.append((key, visual.detach().float().cpu().numpy().astype(self.dtype)))
        if len(self._waiting) >= self.part_size:
            self.flush()

    def flush(self) -> None:
        """Write what waits; a part appears whole or not at all."""
        if not self._waiting:
            return
        numbers = [int(one.stem.partition("-")[2]) for one in self.folder.glob("visual-*.npy")]
        part = self.folder / f"visual-{max(numbers, default=-1) + 1:05d}.npy"  # one in between may have been deleted
        keys = np.stack([np.frombuffer(key, np.uint8) for key, _ in self._waiting])
        starts = np.cumsum([0, *(len(one) for _, one in self._waiting[:-1])])
        with atomic_file(_index(part)) as temporary, temporary.open("wb") as file:
            np.savez(file, keys=keys, starts=starts)
        with atomic_file(part) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate([one for _, one in self._waiting]))
        self._waiting = []


def _opened(file: Path) -> AbstractContextManager[None]:
    """Name a file of the store in whatever is wrong with it."""
    return reading(file, "part of a visual store", "delete the folder, and mmzoo embed writes it anew")


def _index(part: Path) -> Path:
    return part.with_name(f"index-{part.stem.partition('-')[2]}.npz")
