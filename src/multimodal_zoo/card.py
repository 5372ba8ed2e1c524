"""The card of a variant: where it comes from, what it weighs, what was published; for terminals and notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

#: Bytes a parameter takes, by precision; what inference needs for the weights alone.
BYTES = {"float32": 4, "float16 / bfloat16": 2, "int8": 1}
TITLES = {
    "system": "system",
    "summary": "what it is",
    "paper": "paper",
    "licence": "licence",
    "parameters": "parameters",
    "weights": "weights",
    "figures": "published figures",
}
#: What the parts of a processor are, for those whose key does not say it.
PROCESSOR_TITLES = {"images": "images transform", "texts": "texts tokenizer"}


@dataclass(frozen=True)
class Card:
    """What is known about one variant.

    Attributes:
        name: the variant's name.
        facts: the `card:` node of its YAML.
        processor: the `processor:` node: the image transform and tokenizer that the weights need.
    """

    name: str
    facts: Mapping[str, Any]
    processor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> Card:
        """The card in a complete model node."""
        return cls(name, dict(config.get("card") or {}), dict(config.get("processor") or {}))

    def rows(self) -> list[tuple[str, str]]:
        """(title, text) pairs in reading order; every key of the card's YAML appears."""
        rows = []
        for key in [*TITLES, *(k for k in self.facts if k not in TITLES and k != "name")]:
            value = self.facts.get(key)
            if value not in (None, {}, []):
                rows.append((TITLES.get(key, key.replace("_", " ")), _text(value)))
            if key == "parameters" and isinstance(value, int):
                sizes = ", ".join(f"{value * size / 1e9:.3g} GB {kind}" for kind, size in BYTES.items())
                rows.append(("memory of the weights", sizes))
        parts = {key: part for key, part in self.processor.items() if isinstance(part, Mapping)}
        return rows + [(PROCESSOR_TITLES.get(key, key.replace("_", " ")), _text(part)) for key, part in parts.items()]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=self.name, show_header=False, title_justify="left")
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for title, text in self.rows():
            table.add_row(title, Text(text))  # brackets of special tokens are no markup
        yield table

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(t)}</th><td>{html.escape(x)}</td></tr>" for t, x in self.rows())
        return f"<table><caption><b>{html.escape(self.name)}</b></caption>{rows}</table>"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, (list, tuple)):
        if all(isinstance(item, (int, float)) for item in value):
            return ", ".join(map(str, value))
        return "\n".join(_text(item).replace("\n", ", ") for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
