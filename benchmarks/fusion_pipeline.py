"""What the pipeline of caption fusion costs: dry runs of any length, by processes and by Ray, and beside a real engine.

Other work may share the machine's cores: rows per processor second count the time of all processes of a run, and "two
idle cores" is twice that; wall time stands beside it as it was.

- a dry run (engine that echoes, no filters, parquet and tars written) over 100,000 and 2,000,000 rows by two processes:
  rows per processor second, peak memory of the command and of its largest worker;
- the same 100,000 rows by two Ray actors, Ray's own processes included;
- SmolLM2-135M by llama.cpp with the default prompt and filters: processor time of whole units over that of the engine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from _fusion_captions import write_captions
from _report import record

COMMAND = "python benchmarks/fusion_pipeline.py"
CODE = "import sys; from multimodal_zoo.cli import main; sys.exit(main(sys.argv[1:]))"
TICKS = os.sysconf("SC_CLK_TCK")
#: The bars of the specification.
ROWS_PER_SECOND, OVERHEAD = 20_000, 0.10


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 2_000_000])
    parser.add_argument("--captions", type=int, default=64, help="rows for the real engine, those of warm-up included")
    parser.add_argument("--without", nargs="*", default=[], choices=["ray", "engine"])
    parser.add_argument("--smoke", action="store_true", help="few rows, nothing is recorded")
    given = parser.parse_args()
    sizes = [2000, 4000] if given.smoke else given.rows
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for count in sizes:
            source = write_captions(Path(place) / f"captions-{count}.parquet", count)
            rows.append(dry_run("dry run, 2 processes", source, count, ["runner.processes=2"]))
            print(rows[-1], flush=True)
        if "ray" not in given.without:
            source = Path(place) / f"captions-{sizes[0]}.parquet"
            rows.append(dry_run("dry run, 2 Ray actors", source, sizes[0], ["runner=ray", "runner.actors=2"]))
            print(rows[-1], flush=True)
        if "engine" not in given.without:
            rows.append(real_engine(Path(place), 24 if given.smoke else given.captions))
    record("fusion_pipeline", rows, COMMAND, keep=not given.smoke)


def dry_run(name: str, source: Path, rows: int, overrides: list[str]) -> dict[str, Any]:
    """`mmzoo fuse dry_run=true` in a process of its own."""
    out = source.with_name(f"out-{rows}-{'ray' if 'runner=ray' in overrides else 'processes'}")
    words = ["fuse", str(source), f"out={out}", "dry_run=true", "fusion_engine=echo", "samples=0", *overrides]
    start = time.perf_counter()
    driver = subprocess.Popen([sys.executable, "-c", CODE, *words], stdout=subprocess.PIPE, text=True)
    watch = Watch(driver.pid)
    told, _ = driver.communicate()
    wall = time.perf_counter() - start
    watch.stop()
    assert driver.returncode == 0, told
    line = next(line for line in told.splitlines() if line.startswith(f"{rows:,} rows in"))
    print(line, flush=True)
    processor = sum(watch.seconds.values())
    workers = [size for pid, size in watch.peak.items() if pid != driver.pid]
    return {
        "run": name,
        "rows": rows,
        "rows per processor s": round(rows / processor),
        "rows/s, two idle cores": round(2 * rows / processor),
        "rows/s, wall": round(rows / wall),
        "us of a row": round(1e6 * processor / rows, 1),
        "command MiB": round(watch.peak[driver.pid]),
        "largest worker MiB": round(max(workers)),
    }


class Watch:
    """Processor seconds and peak memory (MiB, resident) of a process and all that it starts, looked at now and then.

    Args:
        root: number of the process.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.seconds: dict[int, float] = defaultdict(float)
        self.peak: dict[int, float] = defaultdict(float)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for pid in self._family():
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                except OSError:
                    continue
                self.seconds[pid] = max(self.seconds[pid], (int(fields[11]) + int(fields[12])) / TICKS)
                peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
                self.peak[pid] = max(self.peak[pid], peak)

    def _family(self) -> set[int]:
        children = defaultdict(list)
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    parent = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                children[parent].append(int(entry.name))
        found, waiting = set(), [self.root]
        while waiting:
            found.add(pid := waiting.pop())
            waiting += children[pid]
        return found


def real_engine(folder: Path, rows: int, unit_rows: int = 16) -> dict[str, Any]:
    """Whole units against the engine inside them, in processor time of one process; the first unit warms both up."""
    import multimodal_zoo.captions.parts  # noqa: F401
    from multimodal_zoo.captions.claims import Claims
    from multimodal_zoo.captions.job import begin, open_tasks
    from multimodal_zoo.captions.workers import Worker
    from multimodal_zoo.commands.fuse import job_of
    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    source_file = write_captions(folder / "engine.parquet", rows)
    words = [f"source.path={source_file}", f"out={folder / 'engine'}", "fusion_engine=llama_cpp"]
    job = job_of(compose("base/fuse", words))
    source = build(job.source, path="source")
    begin(job, source, unit_rows)
    tasks, _ = open_tasks(job, source.units(unit_rows))
    worker = Worker(job, Claims(job.work / "claims"))
    assert worker.engine is not None
    inside = 0.0
    answer = worker.engine.engine.answer

    def timed(requests: Any) -> Any:
        nonlocal inside
        start = time.process_time()
        answers = answer(requests)
        inside += time.process_time() - start
        return answers

    worker.engine.engine.answer = timed  # type: ignore[method-assign]
    results = worker.work(tasks)
    next(results)
    inside, start = 0.0, time.process_time()
    done = sum(unit.rows for unit in results)
    whole = time.process_time() - start
    worker.close()
    return {
        "run": "SmolLM2-135M by llama.cpp, default filters",
        "rows": done,
        "rows per processor s": round(done / whole, 3),
        "us of a row": round(1e6 * (whole - inside) / done, 1),
        "over the bare engine": f"{(whole - inside) / inside:.2%}",
    }


if __name__ == "__main__":
    main()
