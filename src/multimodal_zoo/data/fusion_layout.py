"""Sequences that teach caption fusion: the prompt is read, the fused caption and the end behind it are learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from multimodal_zoo.data.caption_table import texts_of
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.text_processor import TextProcessor
from multimodal_zoo.data.token_sequences import Span, text_span
from multimodal_zoo.registry import DATASETS


class Prompt(Protocol):
    """What fills captions into a template within a number of tokens: `captions.prompts.FusionPrompt`."""

    def shorten(
        self,
        raw: str,
        synthetic: str | Sequence[str],
        count: Callable[[Sequence[str]], list[int]],
        cut: Callable[[str, int], str],
    ) -> Any:
        """The prompt with what of the captions fits: `prompt`, `fits`."""
        ...


@DATASETS.register_module(name="fusion_layout")
class FusionLayout:
    """Raw and synthetic captions in the prompt of inference, the fused one behind it (CapsFusion, arXiv 2310.20550).

    The prompt is the very part that `mmzoo fuse` fills, its rule for long captions included, so that a student reads
    what it was trained on. The loss is that of the answer and of the end (the authors trained with Alpaca's code, which
    masks the prompt); the answer begins with a blank, behind the colon that ends the prompt.

    Args:
        prompt: the filled template (`fusion_prompt`).
    """

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def __call__(self, document: Document, processor: TextProcessor, random: Random) -> list[Span]:
        """The stretches of a document with the facts `raw`, `synthetic` and `fused`.

        Args:
            document: from `caption_triples` or `emoji_triples`.
            processor: of the model.
            random: chooses among several fused captions.

        Raises:
            UnusableError: no fused caption, neither of the others, or a prompt that is too long even without them.
        """
        answers = texts_of(document.meta, "fused")
        raw, synthetic = texts_of(document.meta, "raw"), texts_of(document.meta, "synthetic")
        if not answers or not (raw or synthetic):
            raise UnusableError("missing caption", document.key)
        filled = self.prompt.shorten(" ".join(raw), synthetic, processor.count, processor.cut)
        if not filled.fits:
            raise UnusableError("prompt too long", document.key)
        asked = processor.text_ids(filled.prompt, special=False)
        answer = answers[0] if len(answers) == 1 else random.choice(answers)
        whole = processor.text_ids(f"{filled.prompt} {answer}", special=False)
        if whole[: len(asked)] != asked:
            raise UnusableError("prompt and answer share a token", document.key)
        ids = processor.ids
        return [
            text_span([*ids.begin, *asked], "prompt"),
            text_span(whole[len(asked) :], "text"),
            text_span([ids.eos], "end"),
        ]
