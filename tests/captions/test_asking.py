"""Asking: order, retries, halving, and every row once whatever the engine does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from multimodal_zoo.captions.asking import ask
from multimodal_zoo.captions.checks import Checks, Verdict
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.echo_engine import EchoEngine
from multimodal_zoo.captions.prompts import FusionPrompt
from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED, STATUSES, CaptionRow

PROMPT = FusionPrompt("Fuse.\nWeb caption: {raw}\nModel caption: {synthetic}\nFused caption:")
NONE = Checks({})


class Engine(EchoEngine):
    """An engine that does what it is told, and notes what it was asked."""

    def __init__(self, batch_size: int, does: Callable[[Sequence[Request]], Any]) -> None:
        super().__init__(batch_size)
        self.does = does
        self.asked: list[list[Request]] = []

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        self.asked.append(list(requests))
        return self.does(requests)


class Refusing:
    """Checks that refuse answers with a word in them."""

    def __init__(self, word: str, again: bool = True) -> None:
        self.word, self.again = word, again

    def judge(self, row: CaptionRow, answer: Answer) -> Verdict:
        del row
        if answer.error is not None:
            return Verdict(FAILED, answer.error, again=True)
        return Verdict(REJECTED, "word", ("word",), self.again) if self.word in answer.text else Verdict()


def rows_of(*raws: str) -> list[CaptionRow]:
    return [CaptionRow(str(number), raw, ("a thing",)) for number, raw in enumerate(raws)]


def echo(requests: Sequence[Request]) -> list[Answer]:
    return [Answer(f" {one.raw}\n") for one in requests]


def test_order_is_kept_and_batches_hold_similar_lengths() -> None:
    rows = rows_of("a long caption of many words", "b", "a caption of words", "cc", "d")
    engine = Engine(2, echo)
    found = ask(engine, PROMPT, rows, NONE)
    assert [one.fused for one in found] == [row.raw for row in rows]
    assert [one.row for one in found] == rows
    assert {(one.status, one.reason, one.attempts) for one in found} == {(FUSED, "", 1)}
    assert [len(batch) for batch in engine.asked] == [2, 2, 1]
    lengths = [len(one.prompt) for batch in engine.asked for one in batch]
    assert lengths == sorted(lengths)
    assert ask(engine, PROMPT, [], NONE) == []


def test_rows_that_cannot_be_asked_come_back() -> None:
    rows = [CaptionRow("0", "", (), problem="broken UTF-8"), CaptionRow("1", " ", (" ",)), *rows_of("x")]
    found = ask(Engine(4, echo), PROMPT, rows, NONE)
    assert [(one.status, one.reason, one.attempts) for one in found] == [
        (FAILED, "broken UTF-8", 0),
        (FAILED, "no caption", 0),
        (FUSED, "", 1),
    ]


def test_long_captions_are_cut_and_marked() -> None:
    prompt = FusionPrompt("{raw} {synthetic}:", limit=5)
    engine = Engine(4, echo)
    found = ask(engine, prompt, rows_of("a b c d e f", "a"), NONE)
    assert [(one.words_cut, one.fused) for one in found] == [(3, "a b c"), (0, "a")]
    assert [one.prompt for one in engine.asked[0]] == ["a a thing:", "a b c a thing:"]
    (none,) = ask(engine, FusionPrompt("one two three {raw}", limit=2), rows_of("a"), NONE)
    assert (none.status, none.attempts) == (FAILED, 0)
    assert "fusion_prompt.limit=2" in none.reason


def test_a_text_that_cannot_be_counted_fails_alone() -> None:
    class Counting(Engine):
        def count(self, texts: Sequence[str]) -> list[int]:
            return [len(text.encode()) for text in texts]

    found = ask(Counting(4, echo), FusionPrompt("{raw} {synthetic}", limit=99), rows_of("a", "\ud800", "b"), NONE)
    assert [one.status for one in found] == [FUSED, FAILED, FUSED]
    assert found[1].reason.startswith("UnicodeEncodeError")


def test_imitations_are_refused() -> None:
    prompt = FusionPrompt(PROMPT.template, imitations="refuse")
    engine = Engine(4, echo)
    found = ask(engine, prompt, rows_of("x\nFused caption: gold", "fine"), NONE)
    assert [(one.status, one.reason, one.flags) for one in found] == [
        (REJECTED, "imitation", ("imitation",)),
        (FUSED, "", ()),
    ]
    assert sum(map(len, engine.asked)) == 1


def test_a_bad_row_fails_alone() -> None:
    def does(requests: Sequence[Request]) -> list[Answer]:
        if any(one.raw == "bad" for one in requests):
            raise TimeoutError("too slow\nhere")
        return echo(requests)

    engine = Engine(8, does)
    found = ask(engine, PROMPT, rows_of(*"abcde", "bad", "fg"), NONE, retries=2)
    assert [one.status for one in found] == [FUSED] * 5 + [FAILED, FUSED]
    assert (found[5].reason, found[5].attempts, found[5].fused) == ("TimeoutError: too slow here", 3, "")
    assert {one.attempts for one in found if one.status == FUSED} == {1}
    alone = [batch[0].attempt for batch in engine.asked if [one.raw for one in batch] == ["bad"]]
    assert alone == [0, 1, 2]


def test_an_unreachable_engine_is_not_asked_for_every_row() -> None:
    def does(requests: Sequence[Request]) -> list[Answer]:
        raise ConnectionError("refused")

    engine = Engine(8, does)
    found = ask(engine, PROMPT, rows_of(*"abcdefgh"), NONE, retries=2)
    assert {(one.status, one.reason) for one in found} == {(FAILED, "ConnectionError: refused")}
    assert [len(batch) for batch in engine.asked] == [8, 8, 8]


def test_answers_are_drawn_again() -> None:
    def does(requests: Sequence[Request]) -> list[Answer]:
        return [Answer(f"{one.raw} {'bad' * (one.attempt < 2)}") for one in requests]

    found = ask(Engine(2, lambda requests: does(requests)), PROMPT, rows_of("a", "b"), Refusing("bad"), retries=2)
    # the second answer equals the first one: this engine does not draw
    assert [(one.fused, one.status, one.attempts) for one in found] == [
        ("a bad", REJECTED, 2),
        ("b bad", REJECTED, 2),
    ]

    def drawn(requests: Sequence[Request]) -> list[Answer]:
        return [Answer(f"{one.attempt} {'bad' * (one.attempt < 2)}") for one in requests]

    (once,) = ask(Engine(2, drawn), PROMPT, rows_of("a"), Refusing("bad"), retries=2)
    assert (once.fused, once.status, once.attempts, once.flags) == ("2", FUSED, 3, ())
    (bounded,) = ask(Engine(2, drawn), PROMPT, rows_of("a"), Refusing("bad"), retries=1)
    assert (bounded.fused, bounded.status, bounded.reason, bounded.attempts) == ("1 bad", REJECTED, "word", 2)
    (kept,) = ask(Engine(2, drawn), PROMPT, rows_of("a"), Refusing("bad", again=False), retries=9)
    assert (kept.status, kept.attempts) == (REJECTED, 1)
    with pytest.raises(ValueError, match="retries is -1"):
        ask(EchoEngine(), PROMPT, [], NONE, retries=-1)


def test_errors_of_single_rows_are_asked_again() -> None:
    def does(requests: Sequence[Request]) -> list[Answer]:
        return [Answer(one.raw) if one.attempt else Answer("", error="HTTP 500") for one in requests]

    found = ask(Engine(2, does), PROMPT, rows_of("a", "b"), NONE, retries=1)
    assert [(one.fused, one.attempts) for one in found] == [("a", 2), ("b", 2)]
    found = ask(Engine(2, does), PROMPT, rows_of("a", "b"), NONE, retries=0)
    assert {(one.status, one.reason, one.attempts) for one in found} == {(FAILED, "HTTP 500", 1)}


@pytest.mark.parametrize("wrong", [None, [], ["text"], [Answer("a"), Answer("b")], [Answer(None)], 7])  # type: ignore[arg-type]
def test_malformed_answers_end_as_failed(wrong: Any) -> None:
    (found,) = ask(Engine(1, lambda requests: wrong), PROMPT, rows_of("a"), NONE, retries=1)
    assert (found.status, found.fused, found.attempts) == (FAILED, "", 2)
    assert found.reason


def test_every_row_comes_back_once_whatever_happens() -> None:
    """Two hundred engines that fail at random, in all ways that an engine can."""
    kinds = (TimeoutError("t"), ConnectionError("c"), RuntimeError("r"), ValueError("v"), MemoryError(), KeyError("k"))
    for seed in range(200):
        generator = random.Random(seed)
        health = generator.random()

        def does(requests: Sequence[Request], generator: random.Random = generator, health: float = health) -> Any:
            if generator.random() > health:
                raise generator.choice(kinds)
            if generator.random() > health:
                return generator.choice(
                    [None, [], echo(requests)[1:], [*echo(requests), Answer("x")], [1] * len(requests)]
                )
            return [
                one
                if generator.random() < health
                else Answer("", error="e")
                if generator.random() < 0.5
                else Answer("no")
                for one in echo(requests)
            ]

        rows = [
            CaptionRow(str(number), generator.choice("abc") * generator.randrange(9), ("s",) * generator.randrange(2))
            for number in range(generator.randrange(30))
        ]
        retries = generator.randrange(4)
        engine = Engine(generator.randrange(1, 12), does)
        found = ask(engine, PROMPT, rows, Refusing("no"), retries)
        assert [one.row for one in found] == rows
        for one in found:
            assert one.status in STATUSES
            assert one.attempts <= retries + 1
            assert bool(one.reason) == (one.status != FUSED)
            assert one.status != FUSED or one.fused == one.row.raw
        most = (retries + 1) * (2 * len(rows) + retries + 1) + 1
        assert len(engine.asked) <= most
