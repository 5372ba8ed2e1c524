"""What an evaluation hands back: numbers, tables and pictures that read, save and show the same everywhere."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from multimodal_zoo.files import parsed, reading, write_bytes, write_text

Cell = str | float | int
#: A figure as text, with what may stand behind it.
WRITTEN = re.compile(
    r"[+-]?[\d.,]+(e[+-]\d+)?(-[\d.,]+| \(of [\d,]+\)| ± [\d.]+(e[+-]\d+)?| \([\d.]+-[\d.]+\))?( \[\d+ of \d+\])?|-"
)


def show(value: Cell) -> str:
    """One table cell as text: a fraction of 1 keeps three decimals, a count none."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def percent(share: float | None) -> str:
    """A fraction of 1 as per cent with one decimal; `-` for none."""
    return "-" if share is None else f"{100 * share:.1f}"


@dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
        title: one line above the table.
        columns: the head of each column.
        rows: one sequence of cells per row, each as long as `columns`.

    Raises:
        ValueError: a row with another number of cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: row {number} has {len(row)} cells for {len(self.columns)}")

    def numeric(self) -> list[bool]:
        """Whether each column holds figures alone, which are set flush right under their head."""
        return [bool(self.rows) and all(_figure(row[n]) for row in self.rows) for n in range(len(self.columns))]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        rules = ["--:" if numeric else "---" for numeric in self.numeric()]
        lines = [self.columns, rules, *([show(c) for c in row] for row in self.rows)]
        body = "\n".join("| " + " | ".join(_cell(str(c)) for c in line) + " |" for line in lines)
        return f"**{plain(self.title)}**\n\n{body}\n"

    def html(self) -> str:
        """The table as an HTML fragment."""
        kinds = ["number" if numeric else "text" for numeric in self.numeric()]
        head = "".join(f'<th class="{kind}">{escape(c)}</th>' for c, kind in zip(self.columns, kinds, strict=True))
        body = "".join(
            "<tr>"
            + "".join(f'<td class="{kind}">{escape(show(c))}</td>' for c, kind in zip(row, kinds, strict=True))
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<figure class="table"><figcaption>{escape(self.title)}</figcaption>'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></figure>"
        )


def plain(text: str) -> str:
    """A text in Markdown: one line, without tags."""
    return " ".join(text.split()).replace("<", "&lt;")


def _cell(text: str) -> str:
    """A cell of Markdown: one line, no column or tag of its own."""
    return plain(text).replace("|", "\\|")


def _figure(cell: Cell) -> bool:
    """Whether a cell is a number or a written one: `12.3`, `+0.4`, `1,000 (of 1,200)`, `1.2-3.4`, `-` for none.

    With an interval, `0.4 ± 0.1` or `0.4 (0.3-0.5)`, it is one too.
    """
    return isinstance(cell, (int, float)) or bool(WRITTEN.fullmatch(str(cell)))


@dataclass(frozen=True)
class Picture:
    """A PNG with a caption.

    Attributes:
        png: the encoded file.
        caption: what to see in it, one sentence.
    """

    png: bytes
    caption: str

    def html(self) -> str:
        """The picture as an HTML fragment that refers to no other file."""
        data = base64.b64encode(self.png).decode()
        caption = escape(self.caption)
        return (
            f'<figure class="picture"><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Result:
    """The outcome of one evaluation.

    Attributes:
        name: the key of the evaluation in the configuration; also the stem of its files.
        metrics: figure name -> value; recalls and accuracies are fractions of 1.
        tables: for people; `metrics` holds all that a program needs.
        figures: short name -> picture.
        details: whatever makes the figures reproducible (sizes, seconds, data attribution, configuration hash);
            anything that JSON holds.
        headline: the names in `metrics` that stand in the overview, in order.
    """

    name: str
    metrics: dict[str, float]
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Picture] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    headline: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        missing = [key for key in self.headline if key not in self.metrics]
        if missing:
            raise ValueError(f"result {self.name!r}: headline names {missing} are not metrics: {sorted(self.metrics)}")

    def json(self) -> str:
        """Everything but the pixels, as JSON."""
        content = {
            "name": self.name,
            "metrics": self.metrics,
            "headline": list(self.headline),
            "tables": [{"title": t.title, "columns": list(t.columns), "rows": list(t.rows)} for t in self.tables],
            "figures": {
                key: {"file": f"{self.name}_{key}.png", "caption": p.caption} for key, p in self.figures.items()
            },
            "details": self.details,
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """Tables and references to the picture files, as Markdown."""
        parts = [f"## {self.name}\n", *(t.markdown() for t in self.tables or [self.metric_table()])]
        for key, picture in self.figures.items():
            caption = plain(picture.caption)
            parts.append(f"![{caption}]({self.name}_{key}.png)\n\n*{caption}*\n")
        return "\n".join(parts)

    def metric_table(self) -> Table:
        """All metrics, one per row."""
        return Table("metrics", ("metric", "value"), list(self.metrics.items()))

    def html(self) -> str:
        """Tables and pictures as an HTML fragment without references to other files."""
        tables = "".join(t.html() for t in self.tables or [self.metric_table()])
        return f"<h3>{escape(self.name)}</h3>{tables}" + "".join(p.html() for p in self.figures.values())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.html()

    def save(self, folder: Path) -> Path:
        """Write `<name>.json`, `<name>.md` and `<name>_<figure>.png`; the JSON comes last and marks completion.

        Returns:
            the path of the JSON file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for key, picture in self.figures.items():
            write_bytes(folder / f"{self.name}_{key}.png", picture.png)
        write_text(folder / f"{self.name}.md", self.markdown())
        return write_text(folder / f"{self.name}.json", self.json())

    @classmethod
    def load(cls, path: Path, pictures: bool = True) -> Result:
        """Read what `save` wrote.

        Args:
            path: the JSON file.
            pictures: whether its pictures are read too.

        Raises:
            FileNotFoundError: the JSON or one of its pictures is gone.
            ValueError: the file is not a saved result.
        """
        with reading(path, "saved evaluation result", "delete it to evaluate again"):
            content = parsed(path.read_bytes())
            figures = {
                key: Picture((path.parent / Path(entry["file"]).name).read_bytes(), entry["caption"])
                for key, entry in content["figures"].items()
                if pictures
            }
            tables = [Table(t["title"], t["columns"], t["rows"]) for t in content["tables"]]
            return cls(
                content["name"], content["metrics"], tables, figures, content["details"], tuple(content["headline"])
            )
