"""How valid files are damaged: bytes that are cut, turned and overwritten, values of JSON trees that are swapped."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

#: Numbers at the edges of what formats count with.
EDGES = (0, 1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, 2**63, 2**64 - 1)
#: Pieces of text that parsers stumble over: no UTF-8, a zero, half a character, no end of line.
PIECES = (
    b"\xff\xfe",
    b"\x00",
    b"\xed\xa0\x80",
    b"\xc3",
    b"\r",
    b"\n",
    b'"',
    b"{",
    b"[" * 400,
    b"1e999",
    b"-",
    b"\\ud800",
)
#: Values that no schema asks for. Deep lists and long whole numbers are written as text, see `written`.
DEEP, LONG = "<<deep>>", "<<long>>"
LEAVES: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "a\0b", "\ud800",
    "../../up", "/", "nul\n", "é" * 300, [], {}, [[]], [None], {"": None}, [1, 2, 3], DEEP, LONG,
)  # fmt: skip


def cut(content: bytes, random: Random) -> bytes:
    """The beginning alone."""
    return content[: random.randrange(len(content))]


def flipped(content: bytes, random: Random) -> bytes:
    """One to eight bits turned, near the beginning in half of the cases: headers lie there."""
    changed = bytearray(content)
    end = min(len(changed), 96) if random.random() < 0.5 else len(changed)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(end)] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, random: Random) -> bytes:
    """A number of one to eight bytes at the edges of its range, in either order of bytes."""
    size, code = random.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    number = random.choice(EDGES) % (1 << 8 * size)
    place = random.randrange(min(len(content), 96) if random.random() < 0.5 else len(content))
    return content[:place] + struct.pack(random.choice("<>") + code, number) + content[place + size :]


def without(content: bytes, random: Random) -> bytes:
    """A piece left out."""
    place = random.randrange(len(content))
    return content[:place] + content[place + random.choice((1, 2, 8, 64, 512)) :]


def doubled(content: bytes, random: Random) -> bytes:
    """A piece twice."""
    place = random.randrange(len(content))
    return content[:place] + content[place : place + random.choice((1, 8, 64, 512))] + content[place:]


def inserted(content: bytes, random: Random) -> bytes:
    """A piece that parsers stumble over, or random bytes."""
    place = random.randrange(len(content) + 1)
    piece = random.choice(PIECES) if random.random() < 0.7 else random.randbytes(random.choice((1, 4, 32)))
    return content[:place] + piece + content[place:]


def zeroed(content: bytes, random: Random) -> bytes:
    """A piece of zeros, as a disk leaves it behind a crash."""
    place = random.randrange(len(content))
    size = min(random.choice((4, 64, 4096)), len(content) - place)
    return content[:place] + bytes(size) + content[place + size :]


def foreign(content: bytes, random: Random) -> bytes:
    """Something else under the name: nothing, noise, a page of a web server."""
    return random.choice(
        (b"", random.randbytes(len(content)), b"<!DOCTYPE html><html>404</html>\n", b"\0" * 64, b"null")
    )


WAYS: tuple[Callable[[bytes, Random], bytes], ...] = (
    cut, cut, flipped, flipped, flipped, overwritten, overwritten, without, doubled, inserted, zeroed, foreign,
)  # fmt: skip


def damaged(content: bytes, random: Random) -> bytes:
    """A file damaged in one way, sometimes in two."""
    for _ in range(1 if random.random() < 0.8 else 2):
        content = random.choice(WAYS)(content, random) if content else content
    return content


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all nodes of a tree below its root."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        found += places(child, (*path, key))
    return found


def leaf(random: Random) -> Any:
    """A value that no schema asks for."""
    return deepcopy(random.choice(LEAVES))


def swapped(value: Any, random: Random) -> Any:
    """A copy of a tree in which one to three nodes are replaced, left out, renamed or doubled."""
    tree = json.loads(json.dumps(value))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        known = places(tree)
        if not known or random.random() < 0.02:
            return leaf(random)
        path = random.choice(known)
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        key, way = path[-1], random.random()
        if way < 0.7:
            holder[key] = leaf(random)
        elif way < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[random.choice(("", "x", f"{key} ", "\ud800"))] = holder.pop(key)
        else:
            holder += [holder[key]] * random.choice((1, 5))
    return tree


def written(tree: Any) -> bytes:
    """A tree as JSON, with what Python's own writer would refuse."""
    text = json.dumps(tree)
    text = text.replace(json.dumps(DEEP), "[" * 5000 + "]" * 5000).replace(json.dumps(LONG), "9" * 5000)
    return text.encode("ascii")


def damaged_tree(content: bytes, random: Random) -> bytes:
    """A JSON file with other values, or damaged as any other file."""
    if random.random() < 0.3:
        return damaged(content, random)
    return written(swapped(json.loads(content), random))


def damaged_lines(content: bytes, random: Random) -> bytes:
    """A file of JSON lines of which one has other values, or damaged as any other file."""
    if random.random() < 0.4:
        return damaged(content, random)
    lines = content.splitlines()
    number = random.randrange(len(lines))
    lines[number] = written(swapped(json.loads(lines[number]), random))
    return b"\n".join(lines) + b"\n"


def damaged_yaml(content: bytes, random: Random) -> bytes:
    """A YAML file with other values, or damaged as any other file."""
    import yaml

    if random.random() < 0.3:
        return damaged(content, random)
    return written(swapped(yaml.safe_load(content), random))
