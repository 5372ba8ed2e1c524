from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.transforms import ImageTransform

sys.path.insert(0, str(Path(__file__).parent))  # the tests' own samples

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Letters:
    """A tokenizer of letters: enough to see which text came through."""

    pad_id = 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[1, *(3 + ord(c) for c in text[:14]), 2] for text in texts]


@pytest.fixture
def processor() -> ImageTextProcessor:
    return ImageTextProcessor(ImageTransform(16, MEAN, STD), Letters())


def picture(value: int, size: tuple[int, int] = (20, 24), suffix: str = "png") -> bytes:
    """A flat picture whose red channel is `value`."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), (value % 256, value // 256, 7), np.uint8)).save(
        buffer, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
    )
    return buffer.getvalue()


MakeTar = Callable[..., Path]


@pytest.fixture
def make_tar(tmp_path: Path) -> MakeTar:
    """Writes a tar of (name, content) members; `raw` members are TarInfo objects."""

    def write(name: str, members: list[tuple[str, bytes]], raw: list[tarfile.TarInfo] | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for info in raw or []:
                tar.addfile(info)
        return path

    return write


@pytest.fixture
def make_shards(make_tar: MakeTar) -> Callable[..., list[str]]:
    """Shards of good pairs; pair n has key `n`, caption `cn` and red value n."""

    def write(sizes: list[int], folder: str = "shards") -> list[str]:
        paths, number = [], 0
        for shard, size in enumerate(sizes):
            members: list[tuple[str, bytes]] = []
            for _ in range(size):
                members += [
                    (f"{number:05d}.png", picture(number)),
                    (f"{number:05d}.txt", f"c{number}".encode()),
                    (f"{number:05d}.json", json.dumps({"caption": f"c{number}", "url": "u"}).encode()),
                ]
                number += 1
            paths.append(str(make_tar(f"{folder}/{shard:05d}.tar", members)))
        return paths

    return write
