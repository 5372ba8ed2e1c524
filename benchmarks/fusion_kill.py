"""Exactly once: a fusion of 100,000 rows whose workers, driver and Ray actors are killed at random moments.

The folder must be byte-equal to that of an undisturbed run, every key there once; see `tests/captions/test_runners.py`
for the short form.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _fusion_captions import write_captions
from _report import record

from multimodal_zoo.captions.claims import Claims
from multimodal_zoo.captions.job import WORK
from multimodal_zoo.captions.unit_checks import verify
from multimodal_zoo.captions.unit_files import finished, records
from multimodal_zoo.captions.unit_reading import double_keys

COMMAND = "python benchmarks/fusion_kill.py"
CODE = "import sys; from multimodal_zoo.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    """Kill, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--unit-rows", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="few rows and kills, nothing is recorded")
    given = parser.parse_args()
    rows, kills = (2000, 2) if given.smoke else (given.rows, given.kills)
    unit_rows = 100 if given.smoke else given.unit_rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = write_captions(folder / "captions.parquet", rows, given.seed)
        words = [f"unit_rows={unit_rows}", "fusion_engine=echo", "fusion_filters=none", "samples=0"]
        whole = Run(source, folder / "whole", [*words, "runner.processes=1"])
        whole.until_done(Chance(given.seed, 0), 0)
        found = []
        for name, runner, share in (
            ("processes", [f"runner.processes={given.workers}"], kills),
            ("ray", ["runner=ray", f"runner.actors={min(2, given.workers)}"], max(1, kills * 3 // 10)),
        ):
            run = Run(source, folder / name, [*words, *runner])
            run.until_done(Chance(given.seed + 1, rows // unit_rows), share)
            found.append({"runner": name, "rows": rows, **run.compared(whole)})
    record("fusion_kill", found, COMMAND, keep=not given.smoke)


class Chance:
    """When the next kill comes and whom it hits.

    Args:
        seed: of the draws.
        units: of the run, over which kills are spread.
    """

    def __init__(self, seed: int, units: int) -> None:
        self.random, self.units = random.Random(seed), units

    def moments(self, kills: int) -> list[int]:
        """How many units are done at each kill."""
        return sorted(self.random.randrange(0, max(1, self.units - 4)) for _ in range(kills))

    def wait(self) -> None:
        """A random part of what a unit takes, so that a kill hits any stage of it."""
        time.sleep(self.random.uniform(0.0, 0.2))


class Run:
    """`mmzoo fuse` into one folder, started again until it is done.

    Args:
        source: of captions.
        folder: of the results.
        overrides: of the command.
    """

    def __init__(self, source: Path, folder: Path, overrides: list[str]) -> None:
        self.source, self.folder, self.overrides = source, folder, overrides
        self.killed: Counter[str] = Counter()
        self.starts = 0

    def until_done(self, chance: Chance, kills: int) -> None:
        """Start the command until it ends well, killing on the way: workers and drivers in turn."""
        moments = chance.moments(kills)
        while True:
            self.starts += 1
            words = ["fuse", str(self.source), f"out={self.folder}", *self.overrides]
            command = [sys.executable, "-c", CODE, *words]
            driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while driver.poll() is None:
                if moments and len(finished(self.folder)) >= moments[0]:
                    chance.wait()
                    if self._kill(driver, chance, sum(self.killed.values()) % 3 == 2):
                        moments.pop(0)
                time.sleep(0.02)
            _, told = driver.communicate()
            if driver.returncode == 0:
                assert not moments, f"{len(moments)} kills did not find anybody to kill"
                return
            if driver.returncode != -signal.SIGKILL:
                raise RuntimeError(told)

    def _kill(self, driver: subprocess.Popen[str], chance: Chance, at_driver: bool) -> bool:
        """Kill the driver, or a worker that holds a unit; whether there was one."""
        if at_driver:
            driver.kill()
            self.killed["drivers"] += 1
            return True
        holders = [one.pid for one in Claims(self.folder / WORK / "claims").holders().values()]
        if not holders:
            return False
        try:
            os.kill(chance.random.choice(holders), signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.killed["workers"] += 1
        return True

    def compared(self, whole: Run) -> dict[str, str | int]:
        """What differs from an undisturbed run: nothing.

        Raises:
            AssertionError: anything.
        """
        mine, theirs = self.contents(), whole.contents()
        assert mine.keys() == theirs.keys(), sorted(mine.keys() ^ theirs.keys())
        differing = [name for name in mine if mine[name] != theirs[name]]
        assert not differing, differing
        assert verify(self.folder) == []
        doubles = double_keys(self.folder)
        assert doubles == [], doubles[:3]
        rows = sum(record.rows for record in records(self.folder))
        return {
            "workers killed": self.killed["workers"],
            "drivers killed": self.killed["drivers"],
            "starts": self.starts,
            "rows found": rows,
            "keys twice": len(doubles),
            "files": len(mine),
            "files that differ": len(differing),
        }

    def contents(self) -> dict[str, bytes]:
        """Every file by its path, without the run's own notes and its report, which tells the time."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        named = {path.relative_to(self.folder).as_posix(): path for path in paths}
        left_out = (f"{WORK}/", "report.")
        return {name: path.read_bytes() for name, path in named.items() if not name.startswith(left_out)}


if __name__ == "__main__":
    main()
