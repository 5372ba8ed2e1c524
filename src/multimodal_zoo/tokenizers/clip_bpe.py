"""CLIP's byte-pair tokenizer, and the same tokenizer on a part of the vocabulary."""

from __future__ import annotations

import gzip
import html
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_zoo.addresses import package_folders
from multimodal_zoo.files import reading
from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.words import framed, listed

#: Merges that CLIP uses of the published file (the file holds more).
MERGES = 48894
#: Characters of it that are read: a file of a few bytes may unpack to more than memory holds.
LONGEST = 1 << 24
#: Words whose ids are remembered; captions from the web never run out of new ones.
REMEMBERED = 1 << 17
#: End of a word, glued to its last symbol.
WORD_END = "</w>"


@lru_cache(1)
def byte_symbols() -> dict[int, str]:
    """A printable character for each byte: itself where it prints, else one from U+0100 upwards (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def default_vocabulary() -> Path:
    """The merges file that comes with open_clip, found without importing it.

    Raises:
        FileNotFoundError: open_clip is not installed.
    """
    for folder in package_folders("open_clip"):
        path = folder / "bpe_simple_vocab_16e6.txt.gz"
        if path.exists():
            return path
    raise FileNotFoundError(
        "CLIP's vocabulary comes with open_clip_torch, which is not installed; install it or set "
        "processor.texts.vocabulary to a copy of bpe_simple_vocab_16e6.txt.gz"
    )


@lru_cache(4)
def read_merges(path: str) -> tuple[tuple[str, str], ...]:
    """The merges of a vocabulary file, most frequent first.

    Raises:
        ValueError: the file is damaged, or something else.
    """
    with reading(path, "gzipped list of merges"), gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read(LONGEST).split("\n")[1 : MERGES + 1]
        return tuple((first, second) for first, second in (line.split() for line in lines))


class Vocabulary(NamedTuple):
    """What tokenizers with the same pieces share.

    Attributes:
        pieces: by id.
        ids: of the pieces.
        merger: cuts a word into pieces.
        words: ids of words that were met.
    """

    pieces: list[str]
    ids: dict[str, int]
    merger: Any
    words: dict[str, list[int]]


@lru_cache(4)
def vocabulary_of(path: str, count: int, special: tuple[str, ...]) -> Vocabulary:
    """The bytes, alone and at the end of a word, what so many merges of a file make of them, and special words."""
    from tokenizers.models import BPE

    merges = read_merges(path)[:count]
    symbols = list(byte_symbols().values())
    symbols.sort(key=lambda s: (ord(s) >= 0x100, ord(s)))
    pieces = [*symbols, *(s + WORD_END for s in symbols), *(a + b for a, b in merges), *special]
    ids = {piece: i for i, piece in enumerate(pieces)}
    plain = {piece: i for piece, i in ids.items() if piece not in special}
    return Vocabulary(pieces, ids, BPE(vocab=plain, merges=list(merges), end_of_word_suffix=WORD_END), {})


@lru_cache(1 << 16)
def clean(text: str) -> str:
    """Repair broken Unicode, unescape HTML twice, strip, make runs of white space one blank, lower-case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(text.split()).lower()


@TOKENIZERS.register_module(name="clip_bpe")
class ClipTokenizer:
    """The byte-pair tokenizer of CLIP (arXiv 2103.00020, section 2.4): the last two ids are start and end.

    Rows are ragged and hold start and end; padding belongs to collation. A text longer than the context is cut to it
    and its last id becomes the end id, as published; `truncated` counts how often that happened.

    Args:
        context_length: most ids per text, start and end included.
        vocab_size: number of ids; fewer than the published 49,408 keep the most frequent merges, so that rare words
            are spelled with more pieces and none is unknown.
        vocabulary: merges file (`bpe_simple_vocab_16e6.txt.gz`); None takes the one that comes with open_clip.
        special: words with an id of their own, after the byte-pair pieces; the last two are start and end, and are
            recognised inside texts.
        mask: the one of `special` that stands for a hidden word (DeCLIP), never recognised inside texts; None for none.

    Attributes:
        start_id: first id of every row.
        end_id: last id of every row.
        pad_id: what collation puts behind a row; it may be a word of the vocabulary too.
        mask_id: id of `mask`, or None.

    Raises:
        ValueError: sizes that do not fit, or a mask word that is not special or is start or end.
    """

    pad_id = 0
    mask_id: int | None = None

    def __init__(
        self,
        context_length: int = 77,
        vocab_size: int = 49408,
        vocabulary: str | None = None,
        special: Sequence[str] = ("<start_of_text>", "<end_of_text>"),
        mask: str | None = None,
    ) -> None:
        import regex

        if context_length < 2:
            raise ValueError(f"texts.context_length is {context_length}; start and end alone take 2")
        if mask is not None and mask not in special[:-2]:
            raise ValueError(
                f"texts.mask is {mask!r}; expected a word of texts.special before start and end: {list(special[:-2])}"
            )
        count = vocab_size - 512 - len(special)
        if not 0 <= count <= MERGES:
            raise ValueError(
                f"texts.vocab_size is {vocab_size}; expected {512 + len(special)} to {512 + MERGES + len(special)}"
            )
        known = vocabulary_of(str(vocabulary or default_vocabulary()), count, tuple(special))
        self._pieces, self._ids, self._merger, self._words = known
        self.context_length, self.truncated = context_length, 0
        self._special = {word: self._ids[word] for word in special[-2:]}
        self.start_id, self.end_id = self._special.values()
        self.mask_id = None if mask is None else self._ids[mask]
        self.vocab_size = len(self._pieces)
        words = "|".join(regex.escape(word) for word in self._special)
        self._pattern = regex.compile(
            rf"{words}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
        )

    def split(self, word: str) -> list[str]:
        """The byte-pair pieces of one word of the pattern."""
        table = byte_symbols()
        return [token.value for token in self._merger.tokenize("".join(table[byte] for byte in word.encode("utf-8")))]

    def words(self, text: str) -> list[int]:
        """The ids of a text without start and end, not cut."""
        ids: list[int] = []
        for word in self._pattern.findall(clean(text)):
            found = self._words.get(word)
            if found is None:
                found = [self._special[word]] if word in self._special else [self._ids[p] for p in self.split(word)]
                if len(self._words) >= REMEMBERED:
                    self._words.clear()
                self._words[word] = found
            ids += found
        return ids

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Ragged rows of ids, each from the start id to the end id and at most `context_length` long.

        Raises:
            TypeError: one string in place of several.
        """
        rows = [self.words(text) for text in listed(texts)]
        self.truncated += sum(len(row) > self.context_length - 2 for row in rows)
        return [framed(self.start_id, row, self.end_id, self.context_length) for row in rows]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a row; start and end ids are left out, and what stands behind the last end id."""
        row = [int(i) for i in ids]
        last = max((place for place, i in enumerate(row) if i == self.end_id), default=len(row))
        pieces = [self._pieces[i] for i in row[:last] if i not in (self.start_id, self.end_id)]
        table = {symbol: byte for byte, symbol in byte_symbols().items()}
        text = "".join(pieces).replace(WORD_END, " ")
        known = bytearray(b"".join(bytes([table[c]]) if c in table else c.encode() for c in text))
        return known.decode("utf-8", errors="replace").strip()


@lru_cache(4)
def frequent(texts: tuple[str, ...], vocabulary: str | None = None) -> tuple[int, ...]:
    """Published ids of the pieces of texts, the most frequent first.

    Args:
        texts: their special words do not count.
        vocabulary: merges file; None takes the one that comes with open_clip.
    """
    whole = ClipTokenizer(vocabulary=vocabulary)
    counts = Counter(i for text in texts for i in whole.words(text) if i not in (whole.start_id, whole.end_id))
    return tuple(i for i, _ in counts.most_common())


@TOKENIZERS.register_module(name="clip_bpe_subset")
class ClipSubsetTokenizer(ClipTokenizer):
    """CLIP's tokenizer on the pieces that some texts use: a small vocabulary for a small text tower.

    Id 0 is padding and 1 stands for every other piece; then the pieces in the order of their published ids; start and
    end are the two largest ids, the mask, if there is one, the third largest.

    Args:
        vocab_size: number of ids of the text tower; the places between the pieces and start are spare.
        texts: texts whose pieces are kept, the most frequent first if not all fit.
        pieces: published ids that are kept, or a file that holds them, one per line; used beside `texts`.
        context_length: most ids per text, start and end included.
        vocabulary: merges file; None takes the one that comes with open_clip.
        mask: what a hidden word is decoded to (it has no text of its own, so none is recognised); None for no such id.
    """

    unknown_id = 1

    def __init__(
        self,
        vocab_size: int,
        texts: Sequence[str] = (),
        pieces: Sequence[int] | str = (),
        context_length: int = 77,
        vocabulary: str | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__(context_length, vocabulary=vocabulary)
        if isinstance(pieces, str):
            pieces = [int(line) for line in Path(pieces).read_text().split()]
        chosen = list(dict.fromkeys([*pieces, *frequent(tuple(texts), vocabulary)]))
        others = 4 if mask is None else 5
        if len(pieces) > vocab_size - others:
            raise ValueError(f"texts.vocab_size is {vocab_size}; {len(pieces)} pieces and {others} more ids do not fit")
        kept = sorted(chosen[: vocab_size - others])
        published, self._words = self._pieces, {}
        self.kept = kept
        self.start_id, self.end_id, self.vocab_size = vocab_size - 2, vocab_size - 1, vocab_size
        self.mask_id = None if mask is None else vocab_size - 3
        self._special = dict(zip(self._special, (self.start_id, self.end_id), strict=True))
        spare = [""] * (vocab_size - others - len(kept))
        last = ["", ""] if mask is None else [mask + WORD_END, "", ""]
        self._pieces = ["", "\ufffd", *(published[i] for i in kept), *spare, *last]
        places = {published[i]: place for place, i in enumerate(kept, start=2)}
        self._ids = _WithDefault(places, self.unknown_id)


class _WithDefault(dict[str, int]):
    """A mapping that gives one value for every key it lacks, without storing the key."""

    def __init__(self, known: dict[str, int], default: int) -> None:
        super().__init__(known)
        self.default = default

    def __missing__(self, key: str) -> int:
        return self.default
