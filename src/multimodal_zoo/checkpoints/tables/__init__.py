"""Published namings, one module per system, and how to tell from its names which one a file uses."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable

from multimodal_zoo.checkpoints.naming import Naming, Translator
from multimodal_zoo.checkpoints.tables import clip, eva_clip

NAMINGS: dict[str, Naming] = {
    naming.name: naming for naming in (clip.OPENAI, clip.OPEN_CLIP_CUSTOM, clip.HF, *eva_clip.ALL)
}


def find_naming(name: str) -> Naming:
    """The published naming that a card calls `name`.

    Raises:
        KeyError: with the nearest known name.
    """
    if name not in NAMINGS:
        near = difflib.get_close_matches(name, NAMINGS, n=1)
        hint = f"closest: {near[0]}" if near else f"known: {', '.join(NAMINGS)}"
        raise KeyError(f"card.weights.published.naming: no naming called {name!r}; {hint}")
    return NAMINGS[name]


def detect_naming(names: Iterable[str]) -> Naming | None:
    """The published naming whose table has a rule for most of a file's names, or None if no table knows half of them.

    Judging by most rather than all lets the exact accounting that follows say which names are wrong.
    """
    listed = Counter(re.sub(r"(?<=[.])[0-9]+(?=[.])", "0", name) for name in names)  # blocks are alike: look at one
    known: dict[str, int] = {}
    for naming in NAMINGS.values():
        translator = Translator(naming)
        known[naming.name] = sum(count for name, count in listed.items() if translator.knows(name))
    best = max(known, key=lambda name: known[name])
    return NAMINGS[best] if 2 * known[best] > listed.total() else None
