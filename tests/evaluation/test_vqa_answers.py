"""What answers mean: against lmms-eval's normalisation where it is there, and by hand."""

from __future__ import annotations

import random

import pytest

from multimodal_zoo.evaluation.vqa_answers import (
    REPAIRS,
    WORDS,
    gqa_answer,
    mme_answer,
    normalized,
    option_letter,
    pope_answer,
    soft_accuracy,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red bus.", "red bus"),
        ("dont know", "don't know"),
        ("it's 3,000", "it 's 3000"),
        ("N/A", "n"),
        ("top-left; corner", "top left corner"),
        ("3.5. ", "3.5"),
        ("youd've; None", "you'd've 0"),
        ("(a)", ""),
        ("a\tb\nc", "b c"),
    ],
)
def test_answers_are_normalised(text: str, expected: str) -> None:
    assert normalized(text) == expected


def test_normalisation_is_that_of_lmms_eval() -> None:
    processor = pytest.importorskip("lmms_eval.tasks._task_utils.vqa_eval_metric").EvalAIAnswerProcessor()
    words = [*REPAIRS, *REPAIRS.values(), *WORDS, "The", "an", "1,000", "3.5", "...", "N/A", "$5", "it's", "(a)", "Ü"]
    chooser = random.Random(0)
    for _ in range(2000):
        parts = [chooser.choice(words) + chooser.choice([" ", "", ", ", ". ", "?", "-"]) for _ in range(5)]
        assert normalized("".join(parts)) == processor("".join(parts))


def test_people_agree_in_thirds() -> None:
    answers = ["nokia"] * 3 + ["samsung"] * 7
    assert soft_accuracy("Nokia", answers) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert soft_accuracy("the samsung", answers) == 1.0
    assert soft_accuracy("other", answers) == 0.0
    assert soft_accuracy("a", ["x", "y"]) == 0.0  # nothing is left of the answer, and nobody gave nothing
    with pytest.raises(ValueError, match="1 answers given, expected 2"):
        soft_accuracy("x", ["x"])


def test_yes_and_no() -> None:
    assert [pope_answer(text) for text in ("No, it is.", "Yes. No", "", "It is not", "nothing", "NO")] == [
        *("no", "yes", "yes", "no", "yes", "yes"),
    ]
    assert [mme_answer(text) for text in ("Yes", "no.", "  NO way", "It is yes", "Not", "maybe", "")] == [
        *("yes", "no", "no", None, "no", None, None),
    ]


def test_letters_and_words() -> None:
    asked = ["B", "B. two", "The answer is B.", "B.", "The answer is E.", "The answer is A. The answer is B.", "", "b"]
    assert [option_letter(text, "ABCD") for text in asked] == ["B", "B", "B", None, None, None, None, None]
    assert option_letter("AB", "ABCD") is None
    assert gqa_answer("Left..") == "left"
