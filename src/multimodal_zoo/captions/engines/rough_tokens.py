"""About how many tokens a text has, for models whose tokenizer is out of reach."""

from __future__ import annotations

import re

#: Bytes of a word (UTF-8) for each of its tokens; tokenizers of today need fewer tokens than this says.
BYTES = 4
_WORD = re.compile(r"\S+")


def rough_count(text: str) -> int:
    """A token for every four bytes of each word, rounded up: rather too many than too few."""
    return sum(_of(word) for word in text.split())


def rough_cut(text: str, tokens: int) -> str:
    """The text without its last so many rough tokens: whole words from its end, and a part of the one that remains."""
    for word in reversed(list(_WORD.finditer(text))):
        if tokens <= 0:
            return text
        has = _of(word.group())
        if has > tokens:
            kept = word.group().encode("utf-8", "surrogatepass")[: (has - tokens) * BYTES]
            return text[: word.start()] + kept.decode("utf-8", "ignore")
        text, tokens = text[: word.start()].rstrip(), tokens - has
    return text


def _of(word: str) -> int:
    return -(-len(word.encode("utf-8", "surrogatepass")) // BYTES)
