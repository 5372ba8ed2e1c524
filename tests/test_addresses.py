"""Places that are no paths."""

from __future__ import annotations

import pytest

from multimodal_zoo.addresses import is_address
from multimodal_zoo.commands.app import subject_override


@pytest.mark.parametrize("place", ["hf://organisation/repository", "package:weights", "package:weights/a.gguf"])
def test_addresses_are_no_paths(place: str) -> None:
    assert is_address(place)
    assert place in subject_override(place)


@pytest.mark.parametrize("place", ["package", "runs/package:weights", "model.gguf", ""])
def test_paths_are_no_addresses(place: str) -> None:
    assert not is_address(place)
