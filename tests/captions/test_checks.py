"""Verdicts: which filter decides, what is asked again, what is only marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from multimodal_zoo.captions.checks import Action, Checks, Verdict
from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.config import compose
from multimodal_zoo.registry import build

ROW = CaptionRow("k", "Lisbon tram 28, Alfama", ("A yellow tram on a narrow street.",))


@dataclass
class Says:
    """A filter that says one thing."""

    action: Any
    objection: str | None = "no"

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        return self.objection


def judge(*filters: tuple[str, Action], text: str = "A tram.") -> Verdict:
    return Checks({name: Says(action) for name, action in filters}).judge(ROW, Answer(text))


def test_no_filter_lets_all_pass() -> None:
    assert Checks({}).judge(ROW, Answer("")) == Verdict()
    assert Checks({"a": Says("reject", None), "b": None}).judge(ROW, Answer("x")) == Verdict()


def test_marks_keep_the_row() -> None:
    assert judge(("a", "mark"), ("b", "mark")) == Verdict("fused", "", ("a", "b"), False, ("no", "no"))


def test_the_first_refusal_is_the_reason_and_all_flags_are_kept() -> None:
    found = judge(("a", "mark"), ("b", "retry"), ("c", "retry"))
    assert (found.status, found.reason, found.flags, found.again) == ("rejected", "b", ("a", "b", "c"), True)


def test_one_final_refusal_makes_asking_again_useless() -> None:
    assert judge(("a", "retry"), ("b", "reject")).again is False
    assert judge(("a", "reject")).again is False
    assert judge(("a", "retry")).again is True


def test_a_blank_answer_has_one_flag() -> None:
    assert judge(("a", "mark"), ("b", "retry"), text=" \n").flags == ("a",)


def test_an_error_of_the_engine_is_a_failure() -> None:
    found = Checks({"a": Says("mark")}).judge(ROW, Answer("", error="timed out"))
    assert found == Verdict("failed", "timed out", (), True)


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(ValueError, match=r"fusion_filters\.a\.action is 'drop'; it can be reject, retry, mark"):
        Checks({"a": Says("drop")})


def composed(*words: str) -> Checks:
    return Checks(build(compose(None, ["+fusion_prompt=default", *words]).fusion_filters))


def test_declared_filters_can_be_taken_out_and_changed() -> None:
    assert composed("+fusion_filters=none").filters == {}
    found = composed("+fusion_filters=default", "fusion_filters.language=null", "fusion_filters.names.action=reject")
    assert "language" not in found.filters
    assert found.filters["names"].action == "reject"
    strict = composed("+fusion_filters=strict")
    assert {one.action for one in strict.filters.values()} == {"retry"}
    assert list(strict.filters) == list(composed("+fusion_filters=default").filters)


@pytest.mark.parametrize(
    ("text", "reason", "flags"),
    [
        ("A yellow tram of line 28 on a narrow street in Alfama, Lisbon.", "", ()),
        ("", "empty", ("empty",)),
        ("A yellow tram on a narrow street.", "", ("copy", "raw_kept", "names", "numbers")),
        ("Lisbon tram 28, Alfama. A yellow tram on a narrow street.", "", ("joined",)),
        ("Tram 28 in Alfama, Lisbon, opened in 1914.", "invented", ("invented", "synthetic_kept")),
        (
            "Fused caption: tram 28 in Alfama, Lisbon, with such as names, places.",
            "labels",
            ("labels", "leak", "synthetic_kept"),
        ),
        ("I'm sorry, but I cannot see the Lisbon tram 28.", "refusal", ("refusal", "stray", "synthetic_kept")),
    ],
)
def test_the_default_filters_on_answers_to_one_row(text: str, reason: str, flags: tuple[str, ...]) -> None:
    found = composed("+fusion_filters=default").judge(ROW, Answer(text))
    assert (found.reason, found.flags) == (reason, flags)
    assert found.status == ("rejected" if reason else "fused")


def test_the_default_filters_on_captions_in_chinese() -> None:
    row = CaptionRow("k", "里斯本 28路电车 阿尔法玛", ("一辆黄色的电车行驶在狭窄的街道上",))
    found = composed("+fusion_filters=default")
    assert found.judge(row, Answer("一辆28路黄色电车行驶在里斯本阿尔法玛狭窄的街道上。")) == Verdict()
    assert found.judge(row, Answer("电车")).reason == "length"
    assert found.judge(row, Answer("一只小猫睡在沙发里")).reason == "stray"
