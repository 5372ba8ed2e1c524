"""Golden cases with nuScenes' pictures, calibrations or boxes: no part of the project, run where they lie beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.cases import Case, find_cases
from harness.run import run_case

BESIDE = Path(__file__).parents[3] / "shared" / "goldens"
LICENSED = [case for case in find_cases(BESIDE) if "data_licence" in case.fields]


@pytest.mark.skipif(
    not LICENSED, reason=f"no licensed golden cases in {BESIDE.parent.name}/{BESIDE.name} beside the project"
)
@pytest.mark.parametrize("case", LICENSED or [None], ids=lambda case: case.name if case else "none")
def test_case(case: Case) -> None:
    assert run_case(case) >= len(case.calls)
