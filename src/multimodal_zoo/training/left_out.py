"""What the data of a run could not use, of all processes, for its report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.nn.processes import each_one


def left_out(data: Any) -> dict[str, Skips]:
    """Samples that a data module's readers left out since training was last started, by configuration key.

    All processes must call it: each has read a part of the data.

    Args:
        data: the data module, or anything else, which left nothing out.
    """
    found = {key: skips for key, skips in _readers(data) if len(skips)}
    together: dict[str, Skips] = {}
    for part in each_one({key: (dict(one.counts), one.examples) for key, one in found.items()}):
        for key, (counts, examples) in part.items():
            together.setdefault(key, Skips()).update(Skips.of(counts, examples))
    return together


def _readers(data: Any) -> Iterator[tuple[str, Skips]]:
    """Each reader's key and what it counted."""
    train, validation = getattr(data, "train", None), getattr(data, "validation", None)
    sources = {"data.train": train, "data.validation": validation}
    if isinstance(train, SourceMixture):
        del sources["data.train"]
        sources |= {f"data.train.sources.{name}": reader for name, reader in train.sources.items()}
    for key, reader in sources.items():
        if isinstance(skips := getattr(reader, "skips", None), Skips):
            yield key, skips
