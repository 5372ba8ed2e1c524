"""Emu3's tokenizer against a second way of merging, and its own promises; tests/parity has the published ids."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import pytest
import regex

from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL
from multimodal_zoo.tokenizers.emu3_text import Emu3Tokenizer
from multimodal_zoo.tokenizers.vocabularies import SPLIT, TiktokenFile, TrainedVocabulary, train_vocabulary

TEXTS = ["a red kite over the red hill", "the hills are red; it's 10:45!", "kites and hills,\n\nhills and kites"] * 3
WORDS = [
    "", "It's 10:45, WE'LL walk & they'VE stayed!", "  two  spaces\n\n\nnew \t tab ", "一只小猫。",
    "🙂👩\u200d👧 naïve", "x" * 300, "def f(x):\r\n    return 'D''s", "\u0661\u0662 4²",
    "\u00a0a\u3000b\u2028c", "hello(see",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Emu3Tokenizer:
    return Emu3Tokenizer(TrainedVocabulary(TEXTS, 280), 16)


def merged(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Byte pairs the plain way: the pair of lowest rank first, until there is none."""
    parts = [word[i : i + 1] for i in range(len(word))]
    while True:
        pairs = {i: ranks[parts[i] + parts[i + 1]] for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks}
        if not pairs:
            return [ranks[part] for part in parts]
        first = min(pairs, key=lambda i: (pairs[i], i))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]


def test_ids_are_those_of_plain_merging(tokenizer: Emu3Tokenizer) -> None:
    ranks = tokenizer.vocabulary.ranks()
    for text, row in zip(WORDS, tokenizer.encode(WORDS), strict=True):
        pieces = regex.findall(SPLIT, unicodedata.normalize("NFC", text))
        assert "".join(pieces) == unicodedata.normalize("NFC", text)
        assert row == [number for piece in pieces for number in merged(piece.encode(), ranks)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("don't SAY'LL I'm", ["don", "'t", " SAY", "'LL", " I", "'m"]),
        ("a10:4", ["a", "1", "0", ":", "4"]),
        ("!!\n\n x", ["!!\n\n", " x"]),
        ("a  \n b   ", ["a", "  \n", " b", "   "]),
        ("a   b", ["a", "  ", " b"]),
        ("(see -x", ["(see", " -", "x"]),
    ],
)
def test_words_are_split_as_specified(text: str, pieces: list[str]) -> None:
    assert regex.findall(SPLIT, text) == pieces


def test_decoding_gives_the_normalised_text_back(tokenizer: Emu3Tokenizer) -> None:
    for text in [*WORDS, "e\u0301 \ufb01 Å"]:
        (row,) = tokenizer.encode([text])
        assert tokenizer.decode(row) == unicodedata.normalize("NFC", text)


def test_special_strings_become_ids_unless_they_are_escaped(tokenizer: Emu3Tokenizer) -> None:
    ids = tokenizer.ids
    text = "a<|image start|>2*1<|image token|><|visual token 000015|><|extra_200|><|image end|><|extra_204|>"
    (row,) = tokenizer.encode([text])
    assert [i for i in row if i >= ids.pad] == [
        ids.image_start, ids.image_token, ids.visual_first + 15, ids.end_of_line, ids.image_end, ids.eos,
    ]  # fmt: skip
    assert tokenizer.decode(row) == text
    assert tokenizer.decode(row, skip_special=True) == "a2*1"
    (escaped,) = tokenizer.encode([text], special=False)
    assert max(escaped) < ids.pad
    assert tokenizer.decode(escaped, skip_special=True) == text
    assert tokenizer.encode(["".join(SPECIAL)])[0] == list(range(ids.pad, ids.visual_first))


@pytest.mark.parametrize(
    "text",
    [
        "<|visual token 000016|>",  # beyond the codebook
        "<|visual token 15|>",
        "<|visual token \u0660\u0660\u0660\u0660\u0660\u0661|>",
        "<|extra_205|>",
        "<|extra_00|>",
        "<|image  start|>",
        "< |endoftext|>",
    ],
)
def test_what_only_looks_special_is_text(tokenizer: Emu3Tokenizer, text: str) -> None:
    (row,) = tokenizer.encode([text])
    assert max(row) < tokenizer.pad_id
    assert tokenizer.decode(row, skip_special=True) == text


def test_numbering_is_text_then_special_then_visual(tokenizer: Emu3Tokenizer) -> None:
    ids = tokenizer.ids
    assert (ids.pad, ids.end_of_line, ids.end_of_frame, ids.bos, ids.eos) == (280, 483, 484, 486, 487)
    assert (ids.image_token, ids.image_start, ids.image_end, ids.visual_first) == (488, 489, 490, 491)
    assert tokenizer.vocab_size == 491 + 16


def test_broken_bytes_and_unknown_ids(tokenizer: Emu3Tokenizer) -> None:
    first_byte = tokenizer.encode(["猫"])[0][:1]
    assert tokenizer.decode(first_byte) == "\ufffd"
    assert tokenizer.decode([]) == ""
    for number in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"id {number}.*507 ids"):
            tokenizer.decode([number])
    with pytest.raises(TypeError, match="list of strings"):
        tokenizer.encode("one")


def test_nothing_is_read_before_a_text_is(tmp_path: Path) -> None:
    node = {"type": "tiktoken_file", "path": str(tmp_path / "gone"), "size": 1000}
    tokenizer = build({"type": "emu3_tokenizer", "codebook_size": 8, "vocabulary": node})
    assert tokenizer.vocab_size == 1000 + 211 + 8
    with pytest.raises(FileNotFoundError, match=r"vocabulary\.path"):
        tokenizer.encode(["a"])


def test_travels_to_other_processes(tokenizer: Emu3Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(WORDS) == tokenizer.encode(WORDS)


def test_published_sizes_need_no_file() -> None:
    tokenizer = Emu3Tokenizer(TiktokenFile(None, 151643), 32768)
    assert tokenizer.vocab_size == 184622
    assert (tokenizer.ids.bos, tokenizer.ids.image_token, tokenizer.ids.visual_first) == (151849, 151851, 151854)


def test_trained_vocabularies_spell_everything() -> None:
    ranks = train_vocabulary(TEXTS, 280)
    assert train_vocabulary(iter(TEXTS), 280) == ranks
    assert [ranks[bytes([i])] for i in range(256)] == list(range(256))
    assert b" red" in ranks  # the most frequent words are whole
    tokenizer = Emu3Tokenizer(TrainedVocabulary(TEXTS, 280), 4)
    assert len(tokenizer.encode(["the red"])[0]) < len("the red")
