"""All words that the emoji come with, as a part: what a small tokenizer's vocabulary is chosen from."""

from __future__ import annotations

from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="emoji_texts")
def emoji_texts() -> list[str]:
    """Distinct English names, aliases and keywords of every emoji of every split, in the table's order."""
    return list(dict.fromkeys(text for row in load_table() for text in (row.name, *row.aliases, *row.keywords)))
