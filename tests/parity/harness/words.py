"""Reading what a case says in words: calls written as code, and lists of names inside notes."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Written(NamedTuple):
    """A call as it is written in a method.

    Attributes:
        name: what is called.
        args: its positional arguments; a bare word stands for itself.
        kwargs: its named arguments.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def written_call(text: str) -> Written:
    """Parse `image_transform(32, is_train=False)`.

    Raises:
        AssertionError: the text is no call of literals.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        assert isinstance(node, ast.Call)
        kwargs = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        return Written(ast.unparse(node.func), tuple(_value(one) for one in node.args), kwargs)
    except (SyntaxError, ValueError, AssertionError) as error:
        raise AssertionError(f"cannot read {text!r} as a call") from error


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def take_known(given: Mapping[str, Any], known: Collection[str], what: str) -> dict[str, Any]:
    """The values given, all of which must be known.

    Raises:
        AssertionError: with the unknown ones.
    """
    strange = given.keys() - set(known)
    assert not strange, f"{what}: not understood: {sorted(strange)}; known: {sorted(known)}"
    return dict(given)


def listed_names(note: str, known: Collection[str], prefix: str = "") -> list[str]:
    """The names of a note's list, `... for: a.weight, b.bias; further words`, in order.

    Args:
        note: holds a comma-separated list; its names end at a semicolon, a full stop or the end.
        known: what names there are; a list that holds others is an error.
        prefix: stands before them in `known` and not in the note.

    Raises:
        AssertionError: no list, or names that do not exist.
    """
    word = r"[A-Za-z_]\w*(?:\.\w+)*"
    lists = [
        [name.strip() for name in found.split(",")]
        for found in re.findall(rf"(?:^|[\s:])({word}(?:\s*,\s*{word})*)\s*(?=;|\.\s|\.?$)", note)
    ]
    real = [names for names in lists if prefix + names[0] in known]
    assert len(real) == 1, f"found {len(real)} lists of names in {note!r}, expected one"
    missing = [name for name in real[0] if prefix + name not in known]
    assert not missing, f"the note {note!r} lists names that the manifest lacks: {missing}"
    return [prefix + name for name in real[0]]
