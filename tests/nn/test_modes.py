"""Evaluation mode for a while, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from torch import nn

from multimodal_zoo.inference.speaking import evaluating
from multimodal_zoo.nn.modes import evaluation_mode


def model() -> nn.Sequential:
    """In training mode but for a part that is frozen in evaluation mode."""
    built = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5)))
    built[1].eval()
    return built


@pytest.mark.parametrize("around", [evaluation_mode, evaluating])
def test_each_module_has_its_own_mode_back(around: Callable[[nn.Module], AbstractContextManager[object]]) -> None:
    one = model()
    before = [module.training for module in one.modules()]
    with around(one):
        assert not any(module.training for module in one.modules())
    assert [module.training for module in one.modules()] == before
    assert len(set(before)) == 2


def test_modes_come_back_after_an_error() -> None:
    one = model()
    with pytest.raises(KeyError), evaluation_mode(one):
        raise KeyError
    assert [one.training, one[1].training] == [True, False]
