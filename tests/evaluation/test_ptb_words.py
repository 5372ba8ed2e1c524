"""Words of captions against those of Stanford's program, recorded in `ptb_words.json` and, with Java, run anew.

The file holds captions with what `PTBTokenizer` of pycocoevalcap 1.2 (CoreNLP 3.4.1) makes of each.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from multimodal_zoo.evaluation.caption_scores import java_words
from multimodal_zoo.evaluation.ptb_words import caption_words, captions_words, tokens

ROWS: list[tuple[str, str]] = [tuple(row) for row in json.loads((Path(__file__).parent / "ptb_words.json").read_text())]
JOINTS = (" ", " ", " ", "", "-", "'", '"', "/", ". ", ", ", "...", "\u2019", "\u00a0", "_", "(", ") ", "&", "\u00ad")


def made_up(count: int) -> list[str]:
    """Captions of pieces of the recorded ones, joined by blanks and by what tokens break at."""
    drawn = random.Random(0)
    pieces = sorted({piece for text, _ in ROWS for piece in text.split()})
    return [
        "".join(drawn.choice(pieces) + drawn.choice(JOINTS) for _ in range(drawn.randint(1, 8))) for _ in range(count)
    ]


def test_recorded_words() -> None:
    assert len(ROWS) > 200
    wrong = [(text, caption_words(text), words) for text, words in ROWS if caption_words(text) != words]
    assert wrong == []


@pytest.mark.skipif(shutil.which("java") is None, reason="Stanford's program needs Java")
def test_words_of_the_program_itself() -> None:
    pytest.importorskip("pycocoevalcap")
    texts = [*(text for text, _ in ROWS if text.strip()), *made_up(3000)]
    given = {str(number): [text] for number, text in enumerate(texts)}
    expected, found = java_words(given), captions_words(given)
    wrong = [(given[key][0], found[key][0], expected[key][0]) for key in given if found[key] != expected[key]]
    assert wrong == []


def test_tokens_keep_punctuation_and_case() -> None:
    assert tokens('He said: "No."') == ["He", "said", ":", "``", "No", ".", "''"]
    assert tokens("") == tokens(" \t\n ") == []
    assert caption_words("") == caption_words("...! ? \U0001f600") == ""
    assert caption_words("What?!") == "what ?!"  # only marks that stand alone are dropped


def test_the_next_caption_decides_about_abbreviations() -> None:
    assert captions_words({"1": ["See fig.", "5 dogs"]}) == {"1": ["see fig.", "5 dogs"]}
    assert captions_words({"1": ["See fig."], "2": ["A dog"]}) == {"1": ["see fig"], "2": ["a dog"]}
    assert captions_words({"1": ["Plan B.", "The dog"], "2": ["Plan B.", "dogs"]}) == {
        "1": ["plan b", "the dog"],
        "2": ["plan b.", "dogs"],
    }
    assert captions_words({"1": [], "2": ["a"]}) == {"1": [], "2": ["a"]}


def test_line_ends_count_as_blanks() -> None:
    for end in ("\n", "\r\n", "\r", "\u2028", "\x0b", "\x0c", "\x85"):
        assert caption_words(f"a dog{end}a cat") == "a dog a cat"


def test_long_texts_take_linear_time() -> None:
    for piece in ("a", "a.", "1", "-", "a-", "<a ", "'", "a@", "&", "http://a", ".", "x_"):
        assert tokens(piece * 300)
