"""Fusion by rules, without a model: the floor that language models must beat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.prompts import count_words, cut_words
from multimodal_zoo.captions.words import STOP_WORDS, capitalised, numbers, words
from multimodal_zoo.registry import CAPTIONS

_SENTENCE_END = ".!?\u2026\u3002\uff01\uff1f"
_SPACES = re.compile(r"\s+")
#: Words of a raw caption as it writes them; a point or comma between digits belongs to a number.
_WRITTEN = re.compile(r"\d+(?:[.,:/]\d+)+|\w+(?:['\u2019-]\w+)*")
#: What may stand between two words of one name: a blank, `&`, a point without a blank.
_BOND = re.compile(r" | ?& ?|[./]")


@CAPTIONS.register_module(name="template_engine")
class TemplateEngine:
    """The synthetic caption, and behind a colon what the raw caption knows beyond it.

    That is its capitalised words and numbers (and words of scripts without capitals) that the synthetic captions do not
    hold, in their order, neighbours kept together: `A yellow tram on a narrow street: Lisbon, 28, Alfama.` Nothing is
    random, and nothing is invented.

    Args:
        most_words: words of the raw caption that are taken at most, so that a page of text stays a caption; our choice.
        batch_size: requests that it gets at once.

    Raises:
        ValueError: `most_words` below 1.
    """

    def __init__(self, most_words: int = 40, batch_size: int = 256) -> None:
        require_least("fusion_engine", 1, most_words=most_words)
        self.most_words, self.batch_size = most_words, batch_size

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {"engine": "template_engine", "most_words": self.most_words}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return count_words(texts)

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last words."""
        return cut_words(text, tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """A sentence for each; without any caption, an error."""
        return [self._answer(one) for one in requests]

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, request: Request) -> Answer:
        text = fuse(request.raw, request.synthetic, self.most_words)
        return Answer(text, tokens=len(text.split())) if text else Answer("", error="no caption to fuse")


def fuse(raw: str, synthetic: Sequence[str], most_words: int = 40) -> str:
    """One sentence out of a raw caption and synthetic ones; without synthetic captions the raw one as a sentence.

    Args:
        raw: the web caption.
        synthetic: captions that models wrote; the first one that is not empty gives the sentence.
        most_words: words of the raw caption that are taken at most.
    """
    spoken = [text for text in (_SPACES.sub(" ", one).strip() for one in synthetic) if text]
    if not spoken:
        return _sentence(" ".join(raw.split()[:most_words]))
    facts = _facts(raw, frozenset(word for text in spoken for word in words(text)), most_words)
    body = spoken[0].rstrip(_SENTENCE_END + " ,;:")
    return _sentence(f"{body}: {', '.join(facts)}" if facts and body else body or ", ".join(facts))


def _facts(raw: str, known: frozenset[str], most_words: int) -> list[str]:
    """Runs of unseen capitalised words and numbers, each once; words that stood side by side stay together."""
    wanted = frozenset(word.lower() for word in capitalised(raw))
    runs: dict[str, str] = {}
    run, end, left = "", 0, most_words
    for found in _WRITTEN.finditer(raw):
        parts = words(found.group())
        new = any(part not in known and part not in STOP_WORDS for part in parts)
        if not (left and new and any(part in wanted or numbers(part) or _caseless(part) for part in parts)):
            continue
        gap = raw[end : found.start()]
        if run and _BOND.fullmatch(gap):
            run += gap + found.group()
        else:
            runs.setdefault(run.lower(), run)
            run = found.group()
        end, left = found.end(), left - 1
    runs.setdefault(run.lower(), run)
    runs.pop("", None)
    return list(runs.values())


def _caseless(word: str) -> bool:
    """Whether a word's script has no capital letters to tell names by (Chinese, Arabic, ...)."""
    return word[0].isalpha() and word[0].lower() == word[0].upper()


def _sentence(text: str) -> str:
    """The text with a capital letter at its beginning and an end mark behind it; empty stays empty."""
    text = text.strip(" ,;:")
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in _SENTENCE_END else ".")
