"""Packages that only some features need."""

from __future__ import annotations

import sys

import pytest

from multimodal_zoo.packages import needed


def test_a_package_that_is_there_is_given() -> None:
    assert needed("json.decoder", "a test", "app").JSONDecoder


def test_one_that_is_missing_is_named_with_the_way_to_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "json.decoder", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        needed("json.decoder", "mmzoo app", "app", "leave it out")
    assert str(caught.value) == (
        "mmzoo app needs the package json.decoder: pip install 'multimodal_zoo[app]', or leave it out"
    )
    assert caught.value.name == "json.decoder"


def test_a_package_that_does_not_say_what_it_lacks_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "package_that_gives_up.py").write_text("raise ModuleNotFoundError('no accelerator here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="mmzoo app needs the package package_that_gives_up: pip"):
        needed("package_that_gives_up", "mmzoo app", "app")
