"""Continuations of many prompts at once, against reading every sequence anew for every token."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import pytest
import torch

from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.continuing import Beginnings, common_beginning, continue_greedily
from multimodal_zoo.captions.engines.continuing_beams import BeamRules, continue_by_beams
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.registry import build

SIZES = {
    "model_type": "llama", "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 60,
}  # fmt: skip
BEGINNING = list(range(1, 20)) * 2  # 38 tokens, of which 32 are read once
ROWS = [[*BEGINNING, *row] for row in ([3], [4, 5, 6], [7, 7], [19, 2, 3, 4, 5], [8, 9], [6])]


@pytest.fixture(scope="module")
def decoder() -> Any:
    torch.manual_seed(5)
    model: Any = build(node_from_hf(SIZES), path="decoder").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False)


def plain(decoder: Any, row: list[int], ending: Ending) -> Continuation:
    """One row, read anew for every token."""
    written: list[int] = []
    for _ in range(ending.limit):
        scores = decoder.head(decoder(torch.tensor([[*row, *written]])))[0, -1]
        if ending.over(int(scores.argmax()), written):
            return Continuation(written, True)
    return Continuation(written, False)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [[1], [5, 6, 7], [8, 9, 10, 11]], []])
def test_every_row_goes_on_as_it_would_alone(decoder: Any, rows: list[list[int]], shared: bool) -> None:
    beginnings = Beginnings(decoder) if shared else None
    for ends in ((), (0, 9), (4, 11, 12)):
        ending = Ending(9, ends)
        found = continue_greedily(decoder, rows, ending, beginnings)
        assert found == [plain(decoder, row, ending) for row in rows]
    if shared and len(rows) > 1:
        assert beginnings is not None
        assert beginnings.read == (32 if rows is ROWS else 0)


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_go_on_as_they_would_alone(decoder: Any, beams: int) -> None:
    for ending in (Ending(6, (0, 9)), Ending(9, (4, 11, 12)), Ending(1, (3,))):
        together = continue_by_beams(decoder, ROWS, ending, BeamRules(beams), Beginnings(decoder))
        assert together == [continue_by_beams(decoder, [row], ending, BeamRules(beams))[0] for row in ROWS]


def test_all_beams_there_are_find_the_best_text(decoder: Any) -> None:
    """With as many beams as texts, a search of two tokens is exhaustive."""
    best = {}
    for first in range(20):
        scores = decoder.head(decoder(torch.tensor([[*ROWS[1], first]])))[0, -2:].log_softmax(-1)
        for second in range(20):
            best[first, second] = float(scores[0, first] + scores[1, second]) / 2
    found = continue_by_beams(decoder, ROWS[1:2], Ending(2, ()), BeamRules(20))
    assert found == [Continuation(list(max(best, key=best.__getitem__)), False)]


def test_a_text_may_end_itself(decoder: Any) -> None:
    whole = [one.ids for one in continue_greedily(decoder, ROWS, Ending(9, ()))]
    ending = Ending(9, (), stops=lambda ids: len(ids) >= 3)
    assert continue_greedily(decoder, ROWS, ending) == [Continuation(ids[:3], True) for ids in whole]
    found = continue_by_beams(decoder, ROWS, ending, BeamRules(2))
    assert {(len(one.ids), one.ended) for one in found} == {(3, True)}


def test_tokens_are_drawn_as_likely_as_they_are(decoder: Any) -> None:
    shares = (decoder.head(decoder(torch.tensor([[3]])))[0, -1] / 0.7).softmax(-1)
    found = [one.ids[0] for one in continue_greedily(decoder, [[3]] * 2000, Ending(1, ()), seeds=range(2000))]
    counted = torch.bincount(torch.tensor(found), minlength=20) / 2000
    assert float((counted - shares).abs().max()) < 0.04  # 3.5 deviations at most
    assert found[:5] == [continue_greedily(decoder, [[3]], Ending(1, ()), seeds=[seed])[0].ids[0] for seed in range(5)]


def test_what_all_begin_with_is_found() -> None:
    assert common_beginning([]) == 0
    assert common_beginning(ROWS) == 32
    assert common_beginning([BEGINNING]) == 32  # the last token is always read
    assert common_beginning([BEGINNING[:17], BEGINNING]) == 16
    assert common_beginning([BEGINNING[:16], BEGINNING]) == 0
    assert common_beginning([[1], [2]]) == 0


def test_a_few_beginnings_are_kept(decoder: Any) -> None:
    beginnings = Beginnings(decoder)
    for first in (0, 1, 0, 2, 1, 0, 0):  # of three in turn, the two used last
        continue_greedily(decoder, [[first] * 17, [first] * 18], Ending(1, ()), beginnings)
    assert beginnings.read == 16 * 5


@pytest.mark.parametrize(
    ("rows", "message"), [([[1], []], "none of them empty"), ([[1] * 52], r"52 tokens and 9 .*max_positions is 60")]
)
def test_prompts_that_do_not_fit_are_refused(decoder: Any, rows: list[list[int]], message: str) -> None:
    for beginnings in (None, Beginnings(decoder)):
        with pytest.raises(ValueError, match=message):
            continue_greedily(decoder, rows, Ending(10, ()), beginnings)
        with pytest.raises(ValueError, match=message):
            continue_by_beams(decoder, rows, Ending(10, ()), BeamRules(2), beginnings)


def test_time_and_beams_are_checked(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(TimeoutError, match=r"fusion_engine\.timeout"):
        continue_greedily(decoder, ROWS, Ending(9, (), deadline=4))
    assert next(clock) == 6  # five looks in time, one too late
    with pytest.raises(ValueError, match=r"beams is 1; a search needs 2"):
        BeamRules(1)
