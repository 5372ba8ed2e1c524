"""Two workers that put the files of one unit in place at once, in every order: what stays is one's alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.captions.claims import Claims
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.echo_engine import EchoEngine
from multimodal_zoo.captions.job import Task, begin, open_tasks
from multimodal_zoo.captions.unit_checks import is_whole, verify
from multimodal_zoo.captions.unit_files import records
from multimodal_zoo.captions.unit_reading import read_units
from multimodal_zoo.captions.workers import Worker
from multimodal_zoo.registry import CAPTIONS, build

ORDERS = sorted({"".join(order) for order in permutations("aaabbb")})  # tar, parquet and record of each


class LoudEngine(EchoEngine):
    """Says the raw caption, perhaps in capitals: as many bytes, other ones."""

    def __init__(self, loud: bool) -> None:
        super().__init__()
        self.loud = loud

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        return [Answer(one.raw.upper() if self.loud else one.raw.lower()) for one in requests]


class Turns:
    """Lets threads pass gates in a given order: one goes on when the one before has come to its next gate, or ended."""

    def __init__(self, order: str) -> None:
        self.order, self.holder, self.open = list(order), "", False
        self.waiting: set[str] = set()
        self.changed = threading.Condition()

    def gate(self, who: str) -> None:
        with self.changed:
            self._release(who)
            self.changed.notify_all()
            if who not in self.order:  # it writes the unit again
                return
            self.waiting.add(who)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.open and not self.holder and self.order[:1] == [who], 20)
            self.holder = self.order.pop(0)
            self.waiting.discard(who)

    def end(self, who: str) -> None:
        with self.changed:
            self._release(who)
            self.order = [one for one in self.order if one != who]
            self.changed.notify_all()

    def await_gate(self, who: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: who in self.waiting, 20)

    def start(self) -> None:
        with self.changed:
            self.open = True
            self.changed.notify_all()

    def _release(self, who: str) -> None:
        if self.holder == who:
            self.holder = ""


@pytest.mark.parametrize("order", ORDERS)
def test_a_unit_that_two_workers_write_is_one_workers(
    order: str, tmp_path: Path, job_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one sleeps beyond its lease when its files are ready; it wakes while its heir has come as far."""
    monkeypatch.setitem(CAPTIONS.module_dict, "loud_engine", LoudEngine)
    job = job_for(tmp_path / "out", engine={"type": "loud_engine", "loud": False})
    source = build(job.source, path="source")
    begin(job, source, 20)
    task = open_tasks(job, source.units(20))[0][1]
    turns, plain = Turns(order), os.replace

    def gated(old: Any, new: Any) -> None:
        who = threading.current_thread().name
        if who in ("a", "b") and Path(new).parent.name in ("parquet", "webdataset", "records"):
            turns.gate(who)
        plain(old, new)

    monkeypatch.setattr(os, "replace", gated)
    workers = {
        who: Worker(replace(job, engine={"type": "loud_engine", "loud": who == "b"}), Claims(job.work / "claims"))
        for who in "ab"
    }
    threads = {who: threading.Thread(target=_work, args=(workers[who], task, turns), name=who) for who in "ab"}
    for who in "ab":
        assert workers[who].claims.take(task.unit.name)
        threads[who].start()
        turns.await_gate(who)
        (job.work / "claims" / f"{task.unit.name}.0").write_text('{"host": "another", "pid": 1, "started": 1}')
        os.utime(job.work / "claims" / f"{task.unit.name}.0", (0, 0))
    turns.start()
    for thread in threads.values():
        thread.join(20)
    assert is_whole(job.folder, task.unit.name) or not list(records(job.folder))
    list(workers["a"].work([task]))  # nothing to do, but where neither result could stay
    for worker in workers.values():
        worker.close()
    assert verify(job.folder) == []
    said = {row["fused"].isupper() for row in read_units(job.folder)}
    assert len(said) == 1
    assert not list((job.work / "claims").iterdir())


def _work(worker: Worker, task: Task, turns: Turns) -> None:
    try:
        worker._claimed(task)
    finally:
        turns.end(threading.current_thread().name)
