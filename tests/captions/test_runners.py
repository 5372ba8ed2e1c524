"""Runs by processes and by Ray that are killed: nothing lost, nothing doubled, the same bytes as undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from multimodal_zoo.captions import process_runner
from multimodal_zoo.captions.claims import Claims
from multimodal_zoo.captions.job import FusionJob, open_tasks
from multimodal_zoo.captions.process_runner import ProcessRunner
from multimodal_zoo.captions.ray_runner import RayRunner
from multimodal_zoo.captions.unit_checks import remove_leftovers, verify
from multimodal_zoo.captions.unit_files import finished
from multimodal_zoo.captions.unit_reading import double_keys
from multimodal_zoo.registry import build

pytestmark = pytest.mark.multiprocess


#: Of the runs of this module, beside source and folder.
OVERRIDES = ["fusion_engine=echo", "fusion_engine.batch_size=16", "fusion_filters=none", "unit_rows=20"]


def start(job: FusionJob) -> subprocess.Popen[str]:
    """`mmzoo fuse` of a job in a process of its own, by two workers."""
    words = ["fuse", job.source["path"], f"out={job.folder}", *OVERRIDES, "runner.processes=2"]
    code = "import sys; from multimodal_zoo.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(job: FusionJob, units: int, driver: subprocess.Popen[str]) -> None:
    """Wait until so many units are done, or the driver has ended."""
    while len(finished(job.folder)) < units and driver.poll() is None:
        time.sleep(0.01)


def holders(job: FusionJob) -> list[int]:
    """The workers that hold a unit now."""
    return [holder.pid for holder in Claims(job.work / "claims").holders().values()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def echo_job(caption_file: Path) -> Callable[[Path], FusionJob]:
    """The job that `start` does."""
    from multimodal_zoo.commands.fuse import job_of
    from multimodal_zoo.config import compose

    source = f"source.path={caption_file}"
    return lambda folder: job_of(compose("base/fuse", [source, f"out={folder}", *OVERRIDES]))


def test_killed_workers_and_drivers_leave_no_trace(tmp_path, echo_job, run_job, contents) -> None:
    whole, job = echo_job(tmp_path / "whole"), echo_job(tmp_path / "out")
    run_job(whole, ProcessRunner())

    driver = start(job)
    wait_for(job, 2, driver)
    for pid in holders(job)[:1]:
        os.kill(pid, signal.SIGKILL)
    wait_for(job, 6, driver)
    workers = holders(job)
    driver.kill()
    driver.communicate()
    for pid in workers:  # they end by themselves
        while alive(pid):
            time.sleep(0.01)
    (tmp_path / "out" / "parquet" / ".rows-000000000.0123456789ab.parquet").write_bytes(b"half")

    driver = start(job)
    wait_for(job, len(finished(job.folder)) + 2, driver)
    driver.send_signal(signal.SIGTERM)
    told, _ = driver.communicate()
    assert driver.returncode in (0, 130), told  # 0: it was done before the signal came
    if driver.returncode:
        assert "the same command goes on" in told
    assert holders(job) == []

    run_job(job, ProcessRunner())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert verify(job.folder) == []
    assert double_keys(job.folder) == []


def test_two_runs_at_once_share_the_work(tmp_path, echo_job, run_job, contents) -> None:
    whole, job = echo_job(tmp_path / "whole"), echo_job(tmp_path / "out")
    names = run_job(whole, ProcessRunner())
    run_job(replace(job, folder=whole.folder), ProcessRunner())
    tasks, _ = open_tasks(job, build(job.source).units(20))
    one, other = ProcessRunner().run(job, tasks), ProcessRunner().run(job, tasks)
    found = []
    for turn in range(40):  # two generators of one process: each holds its own units while the other works
        done = next((one, other)[turn % 2], None)
        found += [done.name] if done else []
    assert sorted(found) == sorted(names)
    run_job(job, ProcessRunner())  # notes the manifest
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_errors_of_workers_come_back_as_they_are(tmp_path, job_for, run_job) -> None:
    job = job_for(tmp_path / "out", filters={"short": {"type": "length_filter", "fewst": 3}})
    with pytest.raises(TypeError, match=r"fusion_filters\.short\.fewst .*did you mean 'fewest'"):
        run_job(job, ProcessRunner(processes=2))


def test_workers_that_die_at_once_stop_the_run(tmp_path, job_for, run_job, monkeypatch) -> None:
    monkeypatch.setattr(process_runner, "_work", sys.exit)  # called with six arguments: a process that ends with 1
    with pytest.raises(RuntimeError, match=r"2 workers died at no unit, the last one with exit code 1"):
        run_job(job_for(tmp_path / "out"), ProcessRunner(processes=2, tries=2))


def test_each_process_sees_its_device() -> None:
    runner = ProcessRunner(processes=4, visible_devices=[0, 1, "MIG-a"])
    assert [runner.devices(place) for place in range(4)] == ["0", "1", "MIG-a", "0"]
    assert ProcessRunner(processes=2).devices(1) is None


def test_a_runner_has_workers() -> None:
    with pytest.raises(ValueError, match=r"runner\.processes is 0"):
        ProcessRunner(processes=0)
    with pytest.raises(ValueError, match=r"runner\.tries is 0"):
        ProcessRunner(tries=0)
    with pytest.raises(ValueError, match=r"runner\.actors is 0"):
        RayRunner(actors=0)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(tmp_path, job_for, run_job) -> None:
    with pytest.raises(ImportError, match=r"multimodal_zoo\[captions\]"):
        run_job(job_for(tmp_path / "out"), RayRunner())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'multimodal_zoo[captions]'")
def test_a_killed_actor_of_ray_leaves_no_trace(tmp_path, echo_job, run_job, contents) -> None:
    whole, job = echo_job(tmp_path / "whole"), echo_job(tmp_path / "out")
    names = run_job(whole, ProcessRunner())
    with pytest.raises(ConnectionError, match=r"runner\.address is 127\.0\.0\.1:1: no Ray cluster there"):
        run_job(job, RayRunner(address="127.0.0.1:1"))
    tasks, _ = open_tasks(job, build(job.source).units(20))
    found = []
    for done in RayRunner(actors=1).run(job, tasks):
        found.append(done.name)
        if len(found) == 3:
            for pid in holders(job)[:1]:
                os.kill(pid, signal.SIGKILL)
    assert sorted(finished(job.folder)) == sorted(names)
    remove_leftovers(job.folder)  # as the command does
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert double_keys(job.folder) == []
