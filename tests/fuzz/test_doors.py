"""Every front door reads a damaged file or refuses it by name: a few inputs of each, the same ones always.

`benchmarks/fuzz.py` tries many more with the same harness.
"""

from __future__ import annotations

from pathlib import Path

import fuzz_data
import fuzz_driving
import fuzz_results
import fuzz_weights
import fuzz_words
import pytest
from fuzz_harness import FOUND, Door, attempt, judge, run_door

DOORS = (*fuzz_weights.DOORS, *fuzz_data.DOORS, *fuzz_driving.DOORS, *fuzz_words.DOORS, *fuzz_results.DOORS)


def test_every_door_has_a_name_of_its_own() -> None:
    names = [door.name for door in DOORS]
    assert len(names) == len(set(names)) > 70


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_damaged_files_are_read_or_refused_by_name(door: Door, tmp_path: Path) -> None:
    tally = run_door(door, tmp_path, inputs=20, seed=1)
    assert not tally.findings, "\n".join(tally.findings)
    assert sum(tally.counts.values()) >= 1


def _raises(error: Exception) -> Door:
    def read(path: Path) -> None:
        raise error

    return Door("raising", lambda folder: folder / "a.bin", read)


def test_the_judge_knows_errors_that_are_no_message(tmp_path: Path) -> None:
    """An error of a library, one without the file's name and one of memory are findings."""
    path = tmp_path / "a.bin"
    for error in (KeyError("a.bin"), ValueError("a.bin"), MemoryError("a.bin"), RecursionError("a.bin")):
        assert attempt(_raises(error), path)[0] == FOUND  # raised here, not in the library
    from multimodal_zoo.files import reading

    for named, wrong in ((path, None), (tmp_path / "b.bin", "does not name a.bin")):
        try:
            with reading(named, "file"):
                raise OSError("no disk")
        except ValueError as error:
            found = judge(error, path)
            assert found is None if wrong is None else found is not None and found.startswith(wrong)
