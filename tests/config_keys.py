"""Keys of configurations that nothing reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from multimodal_zoo.registry import find

SOURCE = Path(__file__).parents[1] / "src" / "multimodal_zoo"
#: Nodes whose children bear names of the user's choice.
NAMED = ("callbacks", "logger", "evaluation", "benchmark", "fusion_filters", "card", "stages")
#: Nodes that are no parts, and what they are built into.
BUILT = {"trainer": "lightning.Trainer"}
#: What stands in the node of a part and is read before the part is built.
BESIDE = {"card", "processor", "groups", "defaults"}


@cache
def words() -> frozenset[str]:
    """All that the library names in quotation marks, as an attribute, a parameter or a field."""
    pattern = re.compile(r"\.([a-z_]\w*)|[\"']([a-z_]\w*)[\"']|\b([a-z_]\w*)\s*[:=]")
    texts = (path.read_text() for path in SOURCE.rglob("*.py"))
    return frozenset(word for text in texts for found in pattern.findall(text) for word in found if word)


@cache
def parameters(key: str, name: str) -> frozenset[str] | None:
    """What a part takes; None where it takes whatever it is given."""
    part = find(name) if key == "type" else get_object(name)
    taken = inspect.signature(part).parameters
    return None if any(one.kind is one.VAR_KEYWORD for one in taken.values()) else frozenset(taken)


def unread(node: Any, path: str = "", free: bool = False) -> Iterator[str]:
    """Paths of keys that no part takes, and of keys of other nodes that the library never names.

    Args:
        node: of a configuration, as plain containers.
        path: of the node.
        free: whether its keys are names, or values of a parameter.
    """
    if isinstance(node, list):
        for number, one in enumerate(node):
            yield from unread(one, f"{path}.{number}", True)
    if not isinstance(node, dict):
        return
    kind = next((key for key in ("type", "_target_") if isinstance(node.get(key), str)), None)
    if path in BUILT:
        kind, node = "_target_", {"_target_": BUILT[path], **node}
    taken = None if kind is None or "${" in node[kind] else parameters(kind, node[kind])
    for key, one in node.items():
        place = f"{path}.{key}".lstrip(".")
        if key in ("type", "_target_") or (kind is None and key in ("hydra", "defaults")):
            continue
        if kind is None and not free and key not in words():
            yield f"{place}: nothing of this name is read"
        if taken is not None and key not in taken | BESIDE:
            yield f"{place}: {node[str(kind)]} takes no such parameter"
        yield from unread(one, place, kind is not None or free or key in NAMED)
