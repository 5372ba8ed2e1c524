"""The engine that repeats."""

from __future__ import annotations

from multimodal_zoo.captions.engine import Request
from multimodal_zoo.registry import build


def test_it_repeats_the_raw_caption() -> None:
    engine = build({"type": "echo_engine", "batch_size": 3})
    requests = [Request("p", "raw", ("s",)), Request("p", "", ("s", "t")), Request("p", "", ())]
    assert [answer.text for answer in engine.answer(requests)] == ["raw", "s", ""]
    assert all(answer.ended and answer.error is None for answer in engine.answer(requests))
    assert engine.batch_size == 3
    assert engine.describe() == {"engine": "echo_engine"}


def test_it_counts_words() -> None:
    engine = build({"type": "echo_engine"})
    assert engine.count(["", "one  two\nthree"]) == [0, 3]
    assert [engine.cut("one  two", tokens) for tokens in (0, 1, 2, 9)] == ["one  two", "one", "", ""]
    engine.close()
    engine.close()
