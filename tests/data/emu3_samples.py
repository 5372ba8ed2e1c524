"""A small processor, visual tokenizer and documents for the tests of Emu3's data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.size_rule import Emu3ImageTransform, SizeRule
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.tokenizers.emu3_text import Emu3Tokenizer

CHAT = "You are a helpful assistant. USER: {image}{text}. ASSISTANT:"


class Bytes:
    """A vocabulary of single bytes."""

    size = 256

    def ranks(self) -> dict[bytes, int]:
        return {bytes([i]): i for i in range(256)}


def transform(smallest: int = 256, largest: int = 4096) -> Emu3ImageTransform:
    return Emu3ImageTransform(SizeRule(8, smallest, largest, 5), [0.5] * 3, [0.5] * 3)


def processor(**changes: Any) -> Emu3Processor:
    given: dict[str, Any] = {
        "images": transform(),
        "texts": Emu3Tokenizer(Bytes(), 16),
        "image_area": 1024,
        "understanding": CHAT,
    }
    return Emu3Processor(**(given | changes))


class MeanCodes(nn.Module):
    """A visual tokenizer whose code is the mean of a square of 8 x 8 pixels; a step of a clip is 4 frames."""

    codebook_size, temporal_factor = 16, 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[int, ...]] = []

    def encode(self, pixels: Tensor) -> Tensor:
        self.calls.append(tuple(pixels.shape))
        squares = pixels.mean(-3).unfold(-2, 8, 8).unfold(-2, 8, 8).mean((-2, -1)) * self.scale
        if pixels.ndim == 5:
            squares = squares[:, ::4]
        return ((squares + 1) * 8).long().clamp(0, 15)


def document(number: int, shape: tuple[int, ...] = (2, 3), text: str | None = None, prefix: str = "") -> Document:
    """Picture and text of a number; codes are (number, number + 1, ...) modulo 16."""
    codes = (np.arange(int(np.prod(shape))).reshape(shape) + number) % 16
    return Document([Codes(codes), Text(f"text {number}" if text is None else text)], {"key": f"{prefix}{number}"})


class Numbered:
    """Documents by number, longer and longer; every number in `bad` is unusable."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad, self.skips = count, bad, Skips()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Document:
        if index in self.bad:
            raise UnusableError("broken codes", str(index))
        return document(index, (1 + index % 3, 2 + index % 4), "x" * (index % 11))
