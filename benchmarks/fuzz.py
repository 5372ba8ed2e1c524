"""How many damaged files every front door was tried with, and what came of them.

    nice python benchmarks/fuzz.py                        # 50,000 inputs, a few minutes of processor time
    python benchmarks/fuzz.py --strings                   # overrides, trees and command lines in place of files
    python benchmarks/fuzz.py --door GGUF --inputs 20000 --seed 3

The doors and the harness are those of `tests/fuzz`. Each door has a process of its own, so that a crash is counted and
the next door is tried; its memory is bounded, and the time of each input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from _report import record, use_threads

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fuzz"))


def tried(door: object, inputs: int, seed: int, folder: Path) -> dict[str, object]:
    """What came of the inputs of a door, tried in a child process."""
    from fuzz_harness import Door, run_door

    assert isinstance(door, Door)
    told = folder / "told.json"
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            tally = run_door(door, folder / str(os.getpid()), inputs, seed)
            found = {"counts": tally.counts, "findings": tally.findings, "slowest": tally.slowest}
            told.write_text(json.dumps(found))
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or not told.is_file():
        return {"counts": {}, "findings": [f"the process ended with {status}"], "slowest": 0.0, "crashes": 1}
    return {**json.loads(told.read_text()), "crashes": 0}


def typed(inputs: int, chosen: int) -> list[dict[str, str | float | int]]:
    """What came of random overrides, configuration trees and command lines.

    Args:
        inputs: trees; a seventh of them for the others, which take longer.
        chosen: the seed.
    """
    from collections import Counter

    from fuzz_strings import LINES, OVERRIDES, OWN_LINES, TREES, answered, built, composed
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    def in_a_folder(line: tuple[str, list[str]]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return answered(line[0], line[1], Path(folder))

    rows: list[dict[str, str | float | int]] = []
    for name, strategy, call, count in (
        ("configuration trees", TREES, built, inputs),
        ("overrides of the quickstart", st.lists(OVERRIDES, min_size=1, max_size=3), composed, inputs // 7),
        ("command lines", LINES, in_a_folder, inputs // 7),
        ("command lines of app and data", OWN_LINES, in_a_folder, inputs),
    ):
        counts: Counter[str] = Counter()
        quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

        def attempt(one: object, call: object, counts: Counter[str]) -> None:
            try:
                counts[call(one)] += 1  # type: ignore[operator]
            except AssertionError as error:
                counts["finding"] += 1
                print(str(error)[:300].encode("utf-8", "backslashreplace").decode(), flush=True)

        tried_with = given(strategy, st.just(call), st.just(counts))
        seed(chosen)(settings(max_examples=count, phases=[Phase.generate], **quiet)(tried_with(attempt)))()
        told = {"refused": counts["refused"], "read": counts["read"], "findings": counts["finding"]}
        rows.append({"what": name, "inputs": sum(counts.values()), **told})
    return rows


def main() -> None:
    """Try and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="of each door; slow ones get fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", default="", help="part of the names of the doors that are tried; records nothing")
    parser.add_argument("--strings", action="store_true", help="what people type in place of files")
    options = parser.parse_args()
    use_threads(1)
    if options.strings:
        command = f"python benchmarks/fuzz.py --strings --inputs {options.inputs} --seed {options.seed}"
        record("fuzz_strings", typed(options.inputs, options.seed), command)
        return
    from fuzz_harness import FOUND, READ, REFUSED
    from test_doors import DOORS

    rows: list[dict[str, str | float | int]] = []
    with tempfile.TemporaryDirectory() as folder:
        for door in (one for one in DOORS if options.door in one.name):
            found = tried(door, options.inputs, options.seed, Path(folder))
            counts = found["counts"]
            rows.append(
                {
                    "door": door.name,
                    "inputs": sum(counts.values()),  # type: ignore[attr-defined]
                    "refused by name": counts.get(REFUSED, 0),  # type: ignore[attr-defined]
                    "read": counts.get(READ, 0),  # type: ignore[attr-defined]
                    "findings": counts.get(FOUND, 0),  # type: ignore[attr-defined]
                    "crashes": found["crashes"],  # type: ignore[dict-item]
                    "slowest, s": round(float(found["slowest"]), 2),  # type: ignore[arg-type]
                }
            )
            for finding in found["findings"]:  # type: ignore[attr-defined]
                print(f"{door.name}: {finding}".encode("utf-8", "backslashreplace").decode(), flush=True)
    columns = ("inputs", "refused by name", "read", "findings", "crashes")
    total = {name: sum(int(row[name]) for row in rows) for name in columns}
    rows.append({"door": "all", **total, "slowest, s": max(float(row["slowest, s"]) for row in rows)})
    command = f"python benchmarks/fuzz.py --inputs {options.inputs} --seed {options.seed}"
    record("fuzz", rows, command, keep=not options.door)


if __name__ == "__main__":
    main()
