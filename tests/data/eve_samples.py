"""Small conversations, pictures and processors of EVE's kind."""

from __future__ import annotations

from functools import cache

import numpy as np

from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.data.eve_area import EveAreaTransform
from multimodal_zoo.data.eve_canvas import EveImageTransform
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.tokenizers.qwen2_tokenizer import Qwen2Tokenizer
from multimodal_zoo.tokenizers.vocabularies import TrainedVocabulary

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXTS = ["a red kite over the hill", "USER: what is it? ASSISTANT: a kite", "the hills are red and the kites are"] * 3


@cache
def tokenizer() -> Qwen2Tokenizer:
    """Qwen2's kind with 280 tokens of text."""
    return Qwen2Tokenizer(TrainedVocabulary(TEXTS, 280), ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))


def canvas(image_size: int = 32, ratio: float | None = None) -> EveImageTransform:
    """Version 1 with at most 4 x 4 cells of 8 pixels, and a teacher of 4 x 4 patches of 4."""
    return EveImageTransform(image_size, 16, 4, 4, 2, MEAN, STD, ratio=ratio)


def area(rule: str = "inference", ratio: float | None = None) -> EveAreaTransform:
    """Version 2 with about 4 x 4 cells of 8 pixels."""
    return EveAreaTransform(32, 4, 2, MEAN, STD, rule, ratio=ratio)


def processor(template: str = "qwen2", version: int = 1, context_length: int | None = None) -> EveProcessor:
    """A processor of either version."""
    images = canvas() if version == 1 else area()
    return EveProcessor(images, tokenizer(), template, context_length)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Random colours."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def conversation(*segments: str | tuple[int, int], key: str = "sample") -> Document:
    """Texts of user and assistant in turn, and pictures of (width, height)."""
    found: list[Segment] = []
    speaker = 0
    for segment in segments:
        if isinstance(segment, str):
            found.append(Text(segment, ("user", "assistant")[speaker % 2]))
            speaker += 1
        else:
            found.append(Image(picture(*segment, seed=len(found))))
    return Document(found, {"key": key})
