"""Whatever people type is composed or answered by a message, never by a traceback of ours or of a library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fuzz_strings import LINES, OVERRIDES, OWN_LINES, TREES, answered, built, composed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

#: The same inputs in every run, no time limit of a single one, nothing kept between runs.
FEW = settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@FEW
@given(st.lists(OVERRIDES, min_size=1, max_size=3))
def test_overrides_are_composed_or_refused(words: list[str]) -> None:
    composed(words)


@settings(FEW, max_examples=300)
@given(TREES)
def test_trees_are_built_or_refused(tree: Any) -> None:
    built(tree)


@FEW
@given(line=LINES)
def test_command_lines_are_answered(line: tuple[str, Sequence[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    answered(line[0], line[1], tmp_path_factory.mktemp("line"))


@settings(FEW, max_examples=100)
@given(line=OWN_LINES)
def test_command_lines_with_words_of_their_own_are_answered(
    line: tuple[str, Sequence[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    answered(line[0], line[1], tmp_path_factory.mktemp("line"))
