"""Plans as tables: in a terminal, in a notebook, and in words for people."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rich.table import Table

Rows = list[tuple[str, str]]
#: (title, rows of label and value), in reading order.
Tables = list[tuple[str, Rows]]


def terminal_table(name: str, tables: Tables) -> Table:
    """All tables as sections of one, for rich."""
    found = Table(title=name, title_justify="left", show_header=False)
    found.add_column(overflow="fold")
    found.add_column(justify="right", no_wrap=True)
    for title, rows in tables:
        found.add_section()
        found.add_row(f"[bold]{title}[/bold]", "")
        for label, value in rows:
            found.add_row(f"  {label}", value)
    return found


def html_tables(name: str, tables: Tables) -> str:
    """A table for each, for a notebook."""
    return "".join(
        f"<table><caption><b>{html.escape(f'{name}: {title}')}</b></caption>"
        + "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
        + "</table>"
        for title, rows in tables
    )


def share_rows(names: Sequence[str], counts: Sequence[int], whole: int) -> Rows:
    """Numbers with their shares of a whole."""
    return [(name, f"{n:,} ({100 * n / max(whole, 1):.1f} %)") for name, n in zip(names, counts, strict=True)]


def gflop(operations: int) -> str:
    """Operations for people, in powers of 1000."""
    return f"{operations / 1e9:.2f} GFLOP"


def amount(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"
