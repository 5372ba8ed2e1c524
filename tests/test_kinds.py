"""Plain values against annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from multimodal_zoo.kinds import annotations_of, fitted


class Speaker(Protocol):
    """No class that running programs can ask."""

    def speak(self) -> str: ...


class Thing:
    """An object."""


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (3, int, 3),
        (1e3, int, 1000),
        (1e3, int | float, 1e3),
        (1e3, int | str, 1000),
        (3, float, 3),
        (None, int | None, None),
        (True, bool | int, True),
        ([1, 1e3], list[int], [1, 1000]),
        ([0.9, 0.99], tuple[float, float], [0.9, 0.99]),
        (["a"], tuple[str, ...], ["a"]),
        ({"a": 1}, Mapping[str, float], {"a": 1}),
        ("a/b", Path, "a/b"),
        ("b", Literal["a", "b"], "b"),
        ("word", Any, "word"),
        ("word", Speaker, "word"),
        ("word", "unread", "word"),
    ],
)
def test_what_fits(value: Any, kind: Any, found: Any) -> None:
    fit = fitted(value, kind, "key")
    assert fit == found
    assert type(fit) is type(found)


def test_objects_pass() -> None:
    thing = Thing()
    assert fitted(thing, int, "key") is thing
    assert fitted([thing], list[Speaker], "key") == [thing]


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("abc", int, "key is 'abc'; expected a whole number"),
        (1.5, int, "key is 1.5; expected a whole number"),
        (True, int, "key is True; expected a whole number"),
        (None, float, "key is None; expected a number"),
        ("abc", int | float | None, "key is 'abc'; expected a number or null"),
        (3, str, "key is 3; expected text"),
        ("abc", Sequence[str], "key is 'abc'; expected a list (each text)"),
        ([1, "a"], list[int], "key[1] is 'a'; expected a whole number"),
        ([1], tuple[int, int], "key is [1]; expected a list of 2 (each a whole number)"),
        ({"a": [1, "q"]}, dict[str, list[int]], "key.a[1] is 'q'; expected a whole number"),
        ([1], Mapping[str, int], "key is [1]; expected a mapping"),
        ("c", Literal["a", "b"], "key is 'c'; expected 'a' or 'b'"),
        ("abc", Thing, "key is 'abc'; expected Thing"),
        ("abc", Thing | None, "key is 'abc'; expected Thing or null"),
        (5, Callable[[int], int], "key is 5; expected Callable"),
        (["x" * 200], int, f"key is ['{'x' * 78}...; expected a whole number"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, kind: Any, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        fitted(value, kind, "key")
    assert str(caught.value) == said


def test_annotations_are_those_that_can_be_read() -> None:
    @dataclass
    class Part:
        width: int
        name: str = None  # type: ignore[assignment]
        there: OnlyForTypeCheckers = 0  # type: ignore[name-defined]  # noqa: F821

    found = annotations_of(Part)
    assert found["width"] is int
    assert fitted(None, found["name"], "name") is None
    assert "there" not in found
