"""Texts to ids for engines: web captions hold no special tokens, begins stand once, strings end answers."""

from __future__ import annotations

from typing import Any

import pytest

from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines.texts import StopWords, ZooTexts, prompt_ids, without_last

END, BEGIN = 0, 1


class Letters:
    """A tokenizer of this library, of single letters."""

    bos_id, eos_id, pad_id, vocab_size = BEGIN, END, END, 300

    def __init__(self, adds_bos: bool = True) -> None:
        self.adds_bos, self.special_ids = adds_bos, {"<e>": END, "<b>": BEGIN}

    def encode(self, texts: list[str], special: bool = True) -> list[list[int]]:
        """Codes of letters."""
        rows = []
        for text in texts:
            for word, number in self.special_ids.items():
                text = text.replace(word, chr(number)) if special else text
            rows.append([ord(letter) for letter in text])
        return rows

    def decode(self, ids: list[int], skip_special: bool = False) -> str:
        """Letters; one code stands for two of them."""
        return "".join("b\n" if one == 299 else chr(one) for one in ids if not (skip_special and one < 2))


class Speaking(Letters):
    """One with a layout of conversations."""

    def chat(self, messages: list[dict[str, str]]) -> str:
        """A begin token, and what the user says."""
        return f"<b>{messages[0]['content']}>"


def codes(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_special_strings_count_in_the_prompt_alone() -> None:
    texts = ZooTexts(Letters())
    asked = Request("<b>ask: x<e>y and z<e>", "x<e>y", ("z",))
    assert prompt_ids(texts, asked, chat=False) == [BEGIN, *codes("ask: x<e>y and z"), END]
    assert prompt_ids(texts, Request("a", "a", ()), chat=False) == [BEGIN, *codes("a")]
    assert prompt_ids(ZooTexts(Letters(adds_bos=False)), Request("a", "a", ()), chat=False) == codes("a")
    nested = Request("x<e> x<e><e>", "x<e>", ("x<e><e>",))  # the longer caption is found first
    assert END not in prompt_ids(texts, nested, chat=False)


def test_layouts_have_their_begin_token() -> None:
    texts = ZooTexts(Speaking())
    assert prompt_ids(texts, Request("a<e>", "a<e>", ()), chat=True) == [BEGIN, *codes("a<e>>")]
    with pytest.raises(ValueError, match="Letters knows no layout of conversations: take plain"):
        prompt_ids(ZooTexts(Letters()), Request("a", "a", ()), chat=True)


def test_texts_are_cut_by_tokens() -> None:
    texts = ZooTexts(Letters())
    assert [without_last(texts, "abc", count) for count in (0, 1, 3, 9)] == ["abc", "ab", "", ""]
    assert without_last(texts, "a<e>b", 2) == "a<e"
    assert texts.text([*codes("ab"), END, 400]) == "ab"  # rows of the matrices beyond the tokens


@pytest.mark.parametrize(
    ("ids", "ends"),
    [
        (codes("ab"), False),
        (codes("a\n"), True),
        (codes("\n"), False),  # nothing visible yet
        (codes("\n a\n"), True),
        ([ord("a"), 299], True),  # inside a token
        ([299], True),
        (codes("aTHE END"), True),
        (codes("THE ENd"), False),
    ],
)
def test_strings_end_texts(ids: list[int], ends: bool) -> None:
    assert StopWords(ZooTexts(Letters()), ["\n", "E END"])(ids) is ends


def test_a_tokenizer_without_an_end_is_refused() -> None:
    endless: Any = Letters()
    endless.eos_id = None
    with pytest.raises(ValueError, match="Letters has no end token"):
        ZooTexts(endless)
