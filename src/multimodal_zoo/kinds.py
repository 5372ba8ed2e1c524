"""Whether plain values of a configuration are of the kinds that annotations name; the standard library only.

A constructor's annotations say what it takes, so that a word in place of a number is refused by its key, and not by
whatever the constructor or a library behind it stumbles over later.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from os import PathLike
from typing import Any

#: What plain kinds are called in messages.
WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
#: Characters of a value in a message.
WIDTH = 80


class _MisfitError(Exception):
    """A value, or what stands at a place in it (`[1].lr`, or nothing), is not of a kind."""

    def __init__(self, value: Any, kind: Any, place: str = "") -> None:
        self.value, self.kind, self.place = value, kind, place


def fitted(value: Any, kind: Any, path: str) -> Any:
    """A value of a configuration as a kind.

    A number without a fraction (`1e3`) becomes a whole one where such is wanted, and a list fits a tuple. Objects that
    are built already pass, and so does everything of which a kind says nothing.

    Args:
        value: plain, or lists and mappings of plain values.
        kind: an annotation, `int | None` say.
        path: of the value, for the error.

    Raises:
        TypeError: it is of another kind.
    """
    try:
        return _fit(value, kind)
    except _MisfitError as misfit:
        shown = repr(misfit.value)
        shown = shown if len(shown) <= WIDTH else f"{shown[:WIDTH]}..."
        raise TypeError(f"{path}{misfit.place} is {shown}; expected {in_words(misfit.kind)}") from None


def fitted_arguments(part: Callable[..., Any], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Arguments as a constructor's annotations want them.

    Args:
        part: a class or function.
        given: name -> value.
        path: of the arguments, for the error.

    Raises:
        TypeError: see `fitted`.
    """
    kinds = annotations_of(part)
    return {
        key: fitted(value, kinds[key], f"{path}.{key}".lstrip(".")) if key in kinds else value
        for key, value in given.items()
    }


@cache
def annotations_of(part: Callable[..., Any]) -> dict[str, Any]:
    """Parameter -> its kind; those without an annotation, or with one that cannot be read here, are left out.

    A parameter whose default is None may be null, whatever its annotation says.
    """
    constructor: Any = inspect.unwrap(part.__init__ if isinstance(part, type) else part)  # type: ignore[misc]
    home = getattr(constructor, "__globals__", None) or vars(sys.modules[part.__module__])
    found = {}
    for name, parameter in inspect.signature(part).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        only: Any = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        try:  # one by one: some names are there for type checkers alone
            kind = typing.get_type_hints(only, home)[name]
        except (NameError, AttributeError, TypeError, SyntaxError):
            continue
        if kind is not parameter.empty:
            found[name] = typing.Optional[kind] if parameter.default is None else kind  # noqa: UP045
    return found


def _members(kind: Any) -> tuple[Any, ...]:
    """The kinds of a union; anything else alone."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _fit(value: Any, kind: Any) -> Any:
    """The value, changed only where no kind of a union takes it as it is."""
    found, misfits = [], []
    for one in _members(kind):
        try:
            found.append(_fit_one(value, one))
        except _MisfitError as misfit:
            misfits.append(misfit)
        else:
            if type(found[-1]) is type(value):
                return found[-1]
    if found:
        return found[0]
    deepest = max(misfits, key=lambda misfit: len(misfit.place))
    raise deepest if deepest.place else _MisfitError(value, kind)


def _fit_one(value: Any, kind: Any) -> Any:
    wanted, inside = typing.get_origin(kind) or kind, typing.get_args(kind)
    if wanted is typing.Literal:
        if value not in inside:
            raise _MisfitError(value, kind)
        return value
    if not isinstance(wanted, type) or wanted in (object, Any):  # Any is a class from Python 3.11 on
        return value
    if isinstance(value, float) and wanted is int and value.is_integer():
        return int(value)
    if isinstance(value, (*WORDS,)) and not _plain_fits(type(value), wanted):
        raise _MisfitError(value, kind)
    if type(value) is dict:
        if not _covers(wanted, dict):
            raise _MisfitError(value, kind)
        return {key: _inner(one, inside[1], f".{key}") for key, one in value.items()} if len(inside) == 2 else value
    if isinstance(value, list):
        return _fit_list(value, kind, wanted, inside)
    return value


def _plain_fits(kind: type, wanted: type) -> bool:
    """Whether a plain value may stand for what is wanted."""
    if kind is bool and wanted is int:
        return False
    if kind is str and _listlike(wanted) and wanted is not str:
        return False  # a word is no list of its letters
    number, name = kind is int and wanted in (float, complex), kind is str and issubclass(wanted, (PathLike, Enum))
    return number or name or _covers(wanted, kind)


def _fit_list(value: list[Any], kind: Any, wanted: type, inside: Sequence[Any]) -> list[Any]:
    if wanted not in (tuple, set, frozenset) and not _covers(wanted, list):
        raise _MisfitError(value, kind)
    if wanted is tuple and inside and inside[-1] is not Ellipsis:
        if len(inside) != len(value):
            raise _MisfitError(value, kind)
        return [_inner(one, each, f"[{n}]") for n, (one, each) in enumerate(zip(value, inside, strict=True))]
    if not inside or all(type(one) is inside[0] for one in value):  # thousands of words, say
        return value
    return [_inner(one, inside[0], f"[{n}]") for n, one in enumerate(value)]


def _inner(value: Any, kind: Any, place: str) -> Any:
    try:
        return _fit(value, kind)
    except _MisfitError as misfit:
        raise _MisfitError(misfit.value, misfit.kind, place + misfit.place) from None


def _covers(wanted: type, kind: type) -> bool:
    """Whether values of a kind are such as are wanted; yes where Python cannot say."""
    try:
        return issubclass(kind, wanted)
    except TypeError:  # a protocol that running programs cannot ask
        return True


def _listlike(kind: type) -> bool:
    return kind is tuple or (_covers(kind, list) and not _covers(kind, int))


def in_words(kind: Any) -> str:
    """What fits a kind, for people; classes of objects are left out where plain values fit too."""
    members = list(dict.fromkeys(_members(kind)))
    if float in members and int in members:
        members.remove(int)
    told = [word for one in members if (word := _told(one))]
    if set(told) <= {WORDS[type(None)]}:  # without the classes it would say that nothing fits
        told = [_told(one) or getattr(one, "__name__", str(one)) for one in members]
    return " or ".join(dict.fromkeys(told))


def _told(kind: Any) -> str:
    """A kind that is no union in words; empty for classes of objects."""
    wanted, inside = typing.get_origin(kind) or kind, typing.get_args(kind)
    if wanted in WORDS:
        return WORDS[wanted]
    if wanted is typing.Literal:
        return " or ".join(map(repr, inside))
    if not isinstance(wanted, type):
        return ""
    if issubclass(wanted, PathLike):
        return "a path"
    if _listlike(wanted):
        count = f" of {len(inside)}" if wanted is tuple and inside and inside[-1] is not Ellipsis else ""
        return f"a list{count}" + (f" (each {in_words(inside[0])})" if inside else "")
    return "a mapping" if _covers(wanted, dict) and not _covers(wanted, int) else ""
