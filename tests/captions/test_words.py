"""The words of captions, counted by hand."""

from __future__ import annotations

import pytest

from multimodal_zoo.captions.words import (
    STOP_WORDS,
    Reading,
    Runs,
    capitalised,
    content_words,
    ngrams,
    numbers,
    reading,
    trigrams,
    words,
)

TRAM = "The Lisbon tram 28, in ALFAMA - stock_photo 4412.jpg"


def test_stop_words_are_as_many_as_in_the_reference_figures() -> None:
    assert len(STOP_WORDS) == 34
    assert all(word == word.lower() for word in STOP_WORDS)


def test_words_of_a_web_caption() -> None:
    assert words(TRAM) == ("the", "lisbon", "tram", "28", "in", "alfama", "stock_photo", "4412", "jpg")
    assert content_words(TRAM) == ("lisbon", "tram", "28", "alfama", "stock_photo", "4412", "jpg")
    assert numbers(TRAM) == ("28", "4412")
    assert capitalised(TRAM) == ("Lisbon", "ALFAMA")  # "The" is a stop word


def test_words_of_other_scripts_and_of_nothing() -> None:
    assert words("Fête-Dieu à 東京 😀 naïve") == ("fête", "dieu", "à", "東", "京", "naïve")
    assert capitalised("Élan vital in Ørsted 東京") == ("Élan", "Ørsted")
    assert words("") == words(" \n😀!") == ()
    assert numbers("The 1990s, No.7, 3.50") == ("1990", "7", "3", "50")


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (2, 0), (3, 1), (7, 5)])
def test_a_text_of_n_words_has_n_minus_2_trigrams(count: int, expected: int) -> None:
    assert len(trigrams([str(n) for n in range(count)])) == expected


def test_runs_of_words_in_order() -> None:
    assert ngrams(("a", "b", "c"), 2) == [("a", "b"), ("b", "c")]
    assert trigrams(("a", "b", "c", "d")) == [("a", "b", "c"), ("b", "c", "d")]


def test_a_reading_holds_what_the_functions_give() -> None:
    found = reading(TRAM)
    assert found.words == words(TRAM)
    assert found.vocabulary == frozenset(words(TRAM))
    assert found.content == frozenset(content_words(TRAM))
    assert found.numbers == {"28", "4412"}
    assert found.names == {"lisbon", "alfama"}
    assert found.line == " the lisbon tram 28 in alfama stock_photo 4412 jpg "
    assert reading(TRAM) is found
    assert found.words is found.words
    assert Reading("").line == ""


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("A tram.", True),
        ("A tram.  ", True),
        ('He said "no."', True),
        ("(A tram!)", True),
        ("一輛電車。", True),
        ("Wait…", True),
        ("A tram", False),
        ("A tram,", False),
        ("A tram)", False),
        ("", False),
    ],
)
def test_what_closes_a_sentence(text: str, closed: bool) -> None:
    assert Reading(text).closed is closed


def test_leaks_are_runs_of_the_instruction_that_no_source_has() -> None:
    runs = Runs("Keep the real-world facts of it")
    fused = Reading("Facts: real world facts of the tram")
    assert runs.leaked(Reading("tram"), [], fused) == {("real", "world", "facts"), ("world", "facts", "of")}
    assert runs.leaked(Reading("Real World Facts!"), [], fused) == {("world", "facts", "of")}
    assert runs.leaked(Reading("tram"), [Reading("the real world facts of")], fused) == frozenset()
    assert runs.leaked(Reading(""), [], Reading("facts of world")) == frozenset()


def test_no_instruction_has_no_runs() -> None:
    assert not Runs("")
    assert not Runs("two words")
    assert Runs("two words", size=2)
    assert Runs("").leaked(Reading(""), [], Reading("a b c")) == frozenset()
    with pytest.raises(ValueError, match="size must be at least 1"):
        Runs("a", size=0)


def test_scripts_without_blanks_have_a_word_for_each_letter() -> None:
    assert words("一辆28路黄色 Tram2\u3002") == ("一", "辆", "28", "路", "黄", "色", "tram2")
    assert words("東京タワー\u30fb1958年") == (*"東京タワー", "1958", "年")
    assert words("서울 трамвай Straße") == ("서울", "трамвай", "straße")
    assert reading("東京1958年").numbers == {"1958"}


@pytest.mark.parametrize("text", ["No.7 in 1990s, 3.50", "a_1 b2c \u0665\u0666 \u00b2", "none", "", "\u0130 1\u0130 x"])
def test_a_reading_counts_as_the_functions_do(text: str) -> None:
    found = reading(text)
    assert found.words == words(text)
    assert found.content == set(content_words(text))
    assert found.numbers == set(numbers(text))


@pytest.mark.parametrize("text", ["The Lisbon TRAM iPhone _A 3D X-Ray", "École Lisbon éA", "The A", "", "none"])
def test_names_of_ascii_and_of_other_texts(text: str) -> None:
    assert reading(text).names == {word.lower() for word in capitalised(text)}
