"""Vocabularies that lie beside published weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints import emu3_sources, emu_sources, eve_sources


def with_texts(node: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """A model node whose tokenizer reads the files in a folder, if they are there and the node names none yet.

    Args:
        node: of any model.
        place: the folder around the weights.
    """
    return emu_sources.with_texts(eve_sources.with_texts(emu3_sources.with_texts(node, place), place), place)
