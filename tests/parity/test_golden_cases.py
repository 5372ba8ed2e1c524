"""Every golden case, one test each: `pytest tests/parity -k eva_clip`, `MMZOO_GOLDENS=folder pytest tests/parity`."""

from __future__ import annotations

import pytest
from harness.cases import Case, find_cases, goldens_folder
from harness.run import run_case

CASES = find_cases(goldens_folder())


def test_there_are_cases() -> None:
    assert CASES, f"no <system>/<case>/case.json under {goldens_folder()} (MMZOO_GOLDENS)"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    assert run_case(case) >= len(case.calls)
