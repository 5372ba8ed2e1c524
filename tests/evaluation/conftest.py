"""Stand-ins: a two-tower model of a few hundred weights and a dataset of coloured squares."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.skips import Skips

sys.path.insert(0, str(Path(__file__).parent))  # the tests' own samples

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 60, 220),
    "yellow": (240, 220, 40),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "purple": (150, 40, 190),
    "orange": (250, 140, 20),
}


class TinyModel(nn.Module):
    """Mean colour against a bag of characters."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.colour = nn.Linear(3, width)
        self.letters = nn.Embedding(128, width)
        self.dropout = nn.Dropout(0.5)
        self.shapes: list[tuple[int, ...]] = []

    def image(self, images: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(pooled=self.dropout(images.mean(dim=(2, 3))))

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return normalize(self.colour(self.image(images).pooled), dim=-1)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(ids.shape))
        real = (ids != 0).unsqueeze(-1)
        return normalize(self.dropout((self.letters(ids) * real).sum(dim=1)), dim=-1)


class TinyProcessor:
    """Characters as ids, pictures as their pixels."""

    tokenizer = SimpleNamespace(pad_id=0)

    def images(self, images: list[np.ndarray]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(i[..., :3].copy()).permute(2, 0, 1).float() / 255 for i in images])

    def texts(self, texts: list[str]) -> torch.Tensor:
        ids = [[min(ord(c), 127) for c in text] for text in texts]
        longest = max(map(len, ids))
        return torch.tensor([row + [0] * (longest - len(row)) for row in ids])


class Squares:
    """One square per colour and shade, with several captions each if asked."""

    def __init__(self, shades: int = 2, captions: int = 1, offset: int = 0) -> None:
        self.title = "coloured squares"
        self.attribution = "squares: drawn by the tests"
        self.skips = Skips()
        self.classnames = list(COLOURS)
        self.templates = ["{c}", "a {c} square"]
        self.items = []
        for shade in range(shades):
            for number, (name, colour) in enumerate(COLOURS.items()):
                pixels = np.clip(np.full((6, 6, 3), colour) + 7 * shade + offset, 0, 255).astype(np.uint8)
                texts = [Text(f"{name} {'shade ' * shade}{c}") for c in range(captions)]
                meta = {"key": f"{name}-{shade}", "concept": name, "label": number, "colour": name, "shade": shade}
                self.items.append(Document([Image(pixels), *texts], meta))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Document:
        return self.items[number]


@pytest.fixture
def model() -> nn.Module:
    return TinyModel()


@pytest.fixture
def processor() -> TinyProcessor:
    return TinyProcessor()


@pytest.fixture
def squares() -> type[Squares]:
    return Squares


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")
