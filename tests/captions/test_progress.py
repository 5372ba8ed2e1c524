"""What is shown during a run: counts, rates and shares of stages."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from multimodal_zoo.captions import progress as progress_module
from multimodal_zoo.captions.job import Done
from multimodal_zoo.captions.progress import FusionProgress, in_time
from multimodal_zoo.captions.stages import Stages, TimedEngine


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2.31 days")]
)
def test_times_in_words(seconds, words) -> None:
    assert in_time(seconds) == words


def test_plain_lines_where_there_is_no_terminal(monkeypatch, capsys) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    with FusionProgress(100, {"fused": 20, "rejected": 5}, line_seconds=30.0) as progress:
        clock[0] = 1.0
        progress.answered(10)
        assert capsys.readouterr().out == ""
        clock[0] = 5.0
        progress.add(Done("a", 25, {"fused": 24, "failed": 1}, {"read": 1.0, "ask": 3.0}))
    told = capsys.readouterr().out
    # 25 rows of this run in 5 s, 50 of 100 are there: 50 more take 10 s
    assert told.startswith("50 of 100 rows, 5.0 rows/s, 44 fused, 5 rejected, 1 failed (read 25%, ask 75%), about 10 s")
    assert progress.stages() == "rows/s of a worker by stage: read 25, ask 8.33"
    assert (progress.rows, progress.moving) == (25, 0)


def test_a_bar_where_there_is_a_terminal(monkeypatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=150)
    monkeypatch.setattr("rich.console.Console", lambda: terminal)
    with FusionProgress(100, {"fused": 25}) as progress:
        progress.answered(10)
        progress.add(Done("a", 50, {"fused": 49, "rejected": 1}, {"ask": 2.0}))
    told = terminal.file.getvalue()
    assert "75/100 rows" in told
    assert "74 fused, 1 rejected, 0 failed (ask 100%)" in told


def test_nested_stages_count_once(monkeypatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 6.0])
    monkeypatch.setattr("multimodal_zoo.captions.stages.time.perf_counter", lambda: next(clock))
    stages = Stages()
    with stages.time("write"), stages.time("read"):
        pass
    found = stages.take()
    assert (found["write"], found["read"]) == (3.0, 3.0)
    assert sum(stages.take().values()) == 0.0


def test_a_timed_engine_is_the_engine() -> None:
    from multimodal_zoo.captions.engine import Request
    from multimodal_zoo.captions.engines.echo_engine import EchoEngine

    moved: Counter[str] = Counter()
    timed = TimedEngine(EchoEngine(7), Stages(), lambda rows: moved.update(rows=rows))
    answers = timed.answer([Request("p", "a b c", ()), Request("p", "", ("d",))])
    assert [answer.text for answer in answers] == ["a b c", "d"]
    assert moved["rows"] == 2
    assert timed.batch_size == 7
    assert (timed.count(["a b"]), timed.cut("a b c", 1)) == ([2], "a b")
    assert timed.describe() == EchoEngine().describe()
