"""The engine that only repeats: for dry runs of a pipeline, whose own speed shows then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.prompts import count_words, cut_words
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="echo_engine")
class EchoEngine:
    """Answers every request with its raw caption, or with its first synthetic one where there is none.

    Args:
        batch_size: requests that it gets at once.
    """

    def __init__(self, batch_size: int = 1024) -> None:
        self.batch_size = batch_size

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {"engine": "echo_engine"}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return count_words(texts)

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last words."""
        return cut_words(text, tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """The raw captions."""
        return [Answer(one.raw or "".join(one.synthetic[:1])) for one in requests]

    def close(self) -> None:
        """Nothing is held."""
