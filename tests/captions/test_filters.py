"""Filters of fused captions, each on answers whose verdict is plain."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.filters.facts import InventedFilter, NamesFilter, NumbersFilter
from multimodal_zoo.captions.filters.form import CutFilter, EmptyFilter, LengthFilter, RepetitionFilter
from multimodal_zoo.captions.filters.language import LanguageFilter, _identifier
from multimodal_zoo.captions.filters.likeness import CopyFilter, JoinedFilter, RecallFilter, StrayFilter
from multimodal_zoo.captions.filters.wording import LabelFilter, LeakFilter, RefusalFilter
from multimodal_zoo.captions.prompts import FusionPrompt
from multimodal_zoo.captions.rows import CaptionRow

RAW = "Lisbon tram 28, Alfama - stock photo 4412"
SYNTHETIC = "A yellow tram on a narrow street."
PROMPT = FusionPrompt("Keep the detailed real-world facts.\n\nWeb caption: {raw}\nModel caption: {synthetic}\nNew:")


def row(raw: str = RAW, *synthetic: str) -> CaptionRow:
    return CaptionRow("k", raw, synthetic or (SYNTHETIC,))


def says(found, text: str, raw: str = RAW, synthetic: Sequence[str] = (), ended: bool = True) -> str | None:
    return found(row(raw, *synthetic), Answer(text, ended=ended))


@pytest.mark.parametrize("text", ["", " \n", "...", "😀"])
def test_an_answer_without_a_word_is_empty(text: str) -> None:
    assert says(EmptyFilter(), text) == "no word"
    assert says(EmptyFilter(), "tram") is None


def test_lengths_are_words() -> None:
    bounded = LengthFilter(fewest=2, most=3)
    assert [says(bounded, text) for text in ("a", "a b", "a-b c", "a b c d")] == ["1 words", None, None, "4 words"]
    assert says(LengthFilter(), "a " * 500) is None
    with pytest.raises(ValueError, match="most 1 words and fewest 2"):
        LengthFilter(fewest=2, most=1)


def test_a_cut_answer_needs_an_end() -> None:
    assert says(CutFilter(), "A tram on a", ended=False) == "no closing punctuation"
    assert says(CutFilter(), "A tram.", ended=False) is None
    assert says(CutFilter(), "A tram on a") is None
    assert says(CutFilter(ended=True), "A tram on a") == "no closing punctuation"


def test_loops_are_found_and_a_source_may_repeat_itself() -> None:
    loop = "the red tram and the red tram and the red tram"
    assert says(RepetitionFilter(), loop) == "'the red tram' 3 times"
    assert says(RepetitionFilter(most=3), loop) is None
    assert says(RepetitionFilter(), "the red tram and the red tram") is None
    assert says(RepetitionFilter(), loop, raw=loop) is None
    assert says(RepetitionFilter(size=1, most=3), "no no no no") == "'no' 4 times"
    with pytest.raises(ValueError, match="size 0 and most 2"):
        RepetitionFilter(size=0)


def test_leaks_of_the_instruction() -> None:
    leak = LeakFilter(PROMPT)
    assert says(leak, "A tram with detailed real world facts") == "'detailed real world'"
    assert says(leak, "A tram with detailed facts") is None
    assert says(leak, "A detailed real world map", raw="detailed real-world map") is None
    assert says(LeakFilter(PROMPT, size=2), "A detailed real map") == "'detailed real'"


def test_labels_and_marks_of_the_prompt() -> None:
    label = LabelFilter(PROMPT)
    assert says(label, "A tram.\nWeb caption: Berlin") is not None
    assert says(label, "A tram.<|im_end|>") is not None
    assert says(label, "A web caption of a tram: yellow") is None


def test_refusals_are_found_word_by_word() -> None:
    refusal = RefusalFilter(["I can't", "as an AI"], openings=["Sure"])
    assert says(refusal, "I can\u2019t see the tram") == "'i can t'"
    assert says(refusal, "AS AN AI, I see") == "'as an ai'"
    assert says(refusal, "Was an aim") is None
    assert says(refusal, "Sure, here is a tram") == "'sure'"
    assert says(refusal, "A tram, sure") is None
    assert says(refusal, "A mug says I can't", raw="Mug 'I can't even'") is None
    with pytest.raises(ValueError, match="'!!', which holds no word"):
        RefusalFilter(["!!"])


def test_copies_of_either_source() -> None:
    assert says(CopyFilter(), "lisbon TRAM 28: alfama, stock photo 4412!") == "copy of the raw caption"
    assert says(CopyFilter(), "a yellow tram on a narrow street") == "copy of a synthetic caption"
    assert says(CopyFilter(), "A yellow tram on a narrow old street") is None
    assert says(CopyFilter(), "There is a yellow tram in the narrow street") == "copy of a synthetic caption"
    # 4 distinct content words of 5 in either
    assert says(CopyFilter(most=0.8), "A yellow tram on a narrow old street") == "copy of a synthetic caption"
    assert says(CopyFilter(most=0.81), "A yellow tram on a narrow old street") is None
    assert says(CopyFilter(), "", raw="", synthetic=("",)) is None
    with pytest.raises(ValueError, match=r"copy_filter\.most is 2; it is a share"):
        CopyFilter(most=2)


def test_answers_to_something_else() -> None:
    assert says(StrayFilter(), "Three cats sleep beside one tram") == "1 of 6"
    assert says(StrayFilter(least=0.5), "yellow tram in Lisbon beside old houses") is None  # 3 of 6
    assert says(StrayFilter(least=0.51), "yellow tram in Lisbon beside old houses") == "3 of 6"
    assert says(StrayFilter(), "") is None


def test_joins_of_both_sources() -> None:
    assert says(JoinedFilter(), f"{RAW}. {SYNTHETIC}") == "both sources, word by word"
    assert says(JoinedFilter(), f"{SYNTHETIC} It is {RAW.upper()}") == "both sources, word by word"
    assert says(JoinedFilter(), SYNTHETIC + " Lisbon tram 28") is None
    assert says(JoinedFilter(), "tram tram", raw="tram", synthetic=("tram",)) == "both sources, word by word"
    assert says(JoinedFilter(), "the tram", raw="tram", synthetic=("tram",)) is None  # one tram is not both
    assert says(JoinedFilter(), "b a", raw="a", synthetic=("x", "b")) == "both sources, word by word"
    assert says(JoinedFilter(), SYNTHETIC, raw="") is None


def test_what_a_source_keeps() -> None:
    raw, synthetic = RecallFilter("raw", 0.5), RecallFilter("synthetic", 1.0)
    assert says(raw, "A tram in Lisbon") == "2 of 7"
    assert says(raw, "Photo of tram 28 in Lisbon") is None  # 4 of 7
    assert says(synthetic, "yellow tram, narrow street") is None
    assert says(synthetic, "yellow tram, street") == "3 of 4"
    assert says(RecallFilter("raw", 1.0, fewest=3), "nothing", raw="two words") is None
    with pytest.raises(ValueError, match="source is 'fused'; it can be raw or synthetic"):
        RecallFilter("fused", 0.5)


def test_names_of_the_raw_caption() -> None:
    assert says(NamesFilter(), "a tram in lisbon") is None  # 1 of 2, in any case
    assert says(NamesFilter(least=0.6), "a tram in lisbon") == "1 of 2"
    assert says(NamesFilter(least=1.0), "no name", raw="no name here") is None
    assert says(NamesFilter(least=1.0, fewest=2), "no name", raw="one Name here") is None


def test_numbers_of_the_raw_caption() -> None:
    assert says(NumbersFilter(), "tram 28") == "1 of 2"
    assert says(NumbersFilter(least=0.5), "tram 28") is None
    assert says(NumbersFilter(longest=2), "tram 28") is None
    assert says(NumbersFilter(), "twelve trams and 1000 people", raw="12 trams 1,000 people") is None
    assert says(NumbersFilter(), "1,000 people", raw="1000 people") is None
    assert says(NumbersFilter(), "no number", raw="no number") is None


def test_numbers_that_nobody_gave() -> None:
    assert says(InventedFilter(), "tram 28 of 1914 and 30") == "1914, 30"
    assert says(InventedFilter(), "tram 28") is None
    assert says(InventedFilter(), "12 trams", raw="tram", synthetic=("twelve trams",)) is None
    assert says(InventedFilter(), "2 trams", raw="tram", synthetic=("2 trams",)) is None
    assert says(InventedFilter(), "1,000 and 2.000", raw="1000 and 2 000") is None
    assert says(InventedFilter(), "3.50 euros", raw="3.50 EUR") is None


def test_swapped_sources_are_noticed_by_what_only_one_holds() -> None:
    """Raw and synthetic in each other's place crash nothing, but then the numbers and names of the raw one vanish."""
    answer = "A yellow tram on a narrow street in Alfama."
    assert says(NumbersFilter(), answer) == "0 of 2"
    swapped = row(SYNTHETIC, RAW)
    assert NumbersFilter()(swapped, Answer(answer)) is None
    assert NamesFilter()(swapped, Answer(answer)) is None


FRENCH = "Un vieux tramway jaune monte lentement dans une rue étroite de la vieille ville."


def test_another_language_than_the_sources() -> None:
    pytest.importorskip("py3langid")
    english = "A man is riding a surfboard on top of a wave in the ocean."
    language = LanguageFilter()
    assert says(language, FRENCH, raw=english, synthetic=(english,)) == "fr, not en"
    assert says(language, FRENCH, raw=FRENCH + " Lisbonne", synthetic=(english,)) is None
    assert says(language, "Une rue", raw=english, synthetic=(english,)) is None  # too short
    assert says(language, FRENCH, raw="DSC_2041 kx-9", synthetic=("tram",)) is None  # no source is clear
    assert says(LanguageFilter(languages=["en"]), FRENCH, raw=FRENCH) == "fr, not en"
    assert says(LanguageFilter(languages=["fr", "de"]), FRENCH) is None


def test_languages_of_familiar_words_are_not_asked_for(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    _identifier.cache_clear()
    assert says(LanguageFilter(), f"{RAW} and a tram") is None
    english = "Waves break on the shore and a surfer is out there"
    assert says(LanguageFilter(), english, synthetic=("A man with a board in the sea",)) is None
    with pytest.raises(ImportError, match=r"multimodal_zoo\[captions\]"):
        says(LanguageFilter(), FRENCH)
