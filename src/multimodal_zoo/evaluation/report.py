"""report.html: one file that shows a training run or an evaluation completely, on paper too, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from multimodal_zoo.card import Card
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.history import panels, read_history
from multimodal_zoo.evaluation.outcome import Outcome, headlines, load_results, measurements, summaries
from multimodal_zoo.evaluation.result import Picture, Result, Table, plain, show
from multimodal_zoo.evaluation.run_files import read_mapping
from multimodal_zoo.evaluation.style import CSS
from multimodal_zoo.files import reading, write_text

#: Columns of text of a table that is printed elsewhere than on a terminal.
WIDTH = 140
#: What report.json takes over from run.json.
KEPT = ("variant", "weights", "parameters", "command", "date", "environment", "left_out")
#: Sample pictures shown, the last ones of the run.
SAMPLES = 4


def write_report(folder: Path, title: str | None = None) -> Path:
    """Write `report.html`, `report.md` and `report.json` from what lies in a run folder.

    Read are, as far as they exist: `run.json` (by `record_run`), `config.yaml`, `metrics.csv`, `samples/*.png` and
    `evaluation/*.json` with `suite.json`. A report can be written again at any time, during the run too.

    Args:
        folder: of a training run or of `mmzoo eval`.
        title: the heading; None takes the variant's name, or else the folder's.

    Returns:
        the path of the HTML file.

    Raises:
        FileNotFoundError: the folder holds none of these.
        ValueError: one of them is damaged, with its path.
    """
    results = load_results(folder)
    run = _run(folder)
    if not results and not run and not (folder / "metrics.csv").is_file():
        raise FileNotFoundError(f"{folder}: no run.json, metrics.csv or evaluation/*.json to report on")
    title = title or str(run.get("variant") or folder.resolve().name)
    overview = [*summaries(results), *Outcome.load(folder).tables(), *headlines(results)]
    sections = {
        "Results": "".join(table.html() for table in overview),
        "Training": _training(folder),
        "Evaluations": "".join(_evaluation(result) for result in measurements(results)),
        "Samples": "".join(picture.html() for picture in _samples(folder)),
        "Model card": _card(run),
        "Data": "".join(
            [
                *(table.html() for table in left_out(run)),
                *(f"<p>{escape(line)}</p>" for line in attributions(results.values())),
            ]
        ),
        "Configuration": _configuration(folder),
        "How it was made": _provenance(run),
    }
    write_text(folder / "report.md", _markdown(title, run, overview, results))
    write_text(folder / "report.json", _summary(title, run, results))
    return write_text(folder / "report.html", page(title, _subtitle(run), sections))


def page(title: str, subtitle: str, sections: Mapping[str, str]) -> str:
    """A complete HTML document; sections without content are left out."""
    kept = {heading: body for heading, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(heading)}">{escape(heading)}</a>' for heading in kept)
    body = "".join(
        f'<section id="{_anchor(heading)}"><h2>{escape(heading)}</h2>{content}</section>'
        for heading, content in kept.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header><nav>{links}</nav>{body}"
        "</main></body></html>\n"
    )


def attributions(results: Iterable[Result]) -> list[str]:
    """Whom the evaluated data credit, each once."""
    return [*dict.fromkeys(line for result in results for line in result.details.get("attribution", ()))]


def left_out(run: Mapping[str, Any]) -> list[Table]:
    """The samples that training could not use, with a few names of each kind; no table where there were none.

    Args:
        run: the content of `run.json`.
    """
    rows = [
        (key, reason, count, ", ".join(examples))
        for key, reasons in run.get("left_out", {}).items()
        for reason, (count, examples) in reasons.items()
    ]
    return [Table("Samples left out", ["data", "reason", "samples", "among them"], rows)] if rows else []


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Pairs of title and text as an HTML table."""
    cells = "".join(f"<tr><td>{escape(title)}</td><td>{escape(text)}</td></tr>" for title, text in rows)
    return f'<table class="facts"><tbody>{cells}</tbody></table>' if cells else ""


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _subtitle(run: Mapping[str, Any]) -> str:
    count = run.get("parameters")
    parts = [
        f"weights: {run['weights']}" if run.get("weights") else "",
        f"{count:,} parameters" if isinstance(count, int) else "",
        str(run.get("date", "")),
    ]
    return " · ".join(part for part in parts if part)


def _training(folder: Path) -> str:
    path = folder / "metrics.csv"
    charts = panels(read_history(path)) if path.is_file() else {}
    return Picture(pictures.curves(charts), "Training curves (bold: running mean)").html() if charts else ""


def _evaluation(result: Result) -> str:
    about = [
        (key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for key, value in result.details.items()
        if key != "attribution" and value not in ("", None)
    ]
    tables = "".join(table.html() for table in result.tables or [result.metric_table()])
    drawn = "".join(picture.html() for picture in result.figures.values())
    return (
        f"<details open><summary>{escape(result.name.replace('_', ' '))}</summary>{tables}{drawn}"
        f"<details><summary>all figures and facts</summary>{result.metric_table().html()}{facts(about)}</details>"
        "</details>"
    )


def _samples(folder: Path) -> list[Picture]:
    paths = sorted((folder / "samples").glob("*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    return [Picture(path.read_bytes(), path.stem.replace("_", " ")) for path in paths[-SAMPLES:]]


def _card(run: Mapping[str, Any]) -> str:
    if not run.get("model"):
        return ""
    return facts(Card.of(str(run.get("variant") or "model"), run["model"]).rows())


def _configuration(folder: Path) -> str:
    path = folder / "config.yaml"
    if not path.is_file():
        return ""
    return f"<details><summary>config.yaml</summary><pre>{escape(path.read_text(encoding='utf-8'))}</pre></details>"


def _provenance(run: Mapping[str, Any]) -> str:
    if not run:
        return ""
    rows = [(key, str(value)) for key, value in run.get("environment", {}).items()]
    return f"<pre>{escape(str(run.get('command', '')))}</pre>{facts(rows)}"


def _markdown(title: str, run: Mapping[str, Any], overview: Iterable[Table], results: Mapping[str, Result]) -> str:
    parts = [f"# {plain(title)}\n", plain(_subtitle(run)), ""]
    parts += [table.markdown() for table in overview]
    for result in measurements(results):
        parts.append(result.markdown().replace(f"]({result.name}_", f"](evaluation/{result.name}_"))
    if about := [*(table.markdown() for table in left_out(run)), *attributions(results.values())]:
        parts.append("## Data\n\n" + "\n\n".join(about) + "\n")
    if run.get("command"):
        parts.append(f"## Command\n\n    {run['command']}\n")
    return "\n".join(parts)


def _summary(title: str, run: Mapping[str, Any], results: Mapping[str, Result]) -> str:
    content = {
        "title": title,
        **{key: run.get(key) for key in KEPT},
        "evaluations": {name: result.metrics for name, result in results.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def _run(folder: Path) -> dict[str, Any]:
    """What `run.json` says; empty without one."""
    path = folder / "run.json"
    if not path.is_file():
        return {}
    with reading(path, "record of a run", "delete it to report without it"):
        return read_mapping(path)


def print_overview(results: Mapping[str, Result]) -> None:
    """Print the overview, and the tables of published figures, with rich."""
    from rich.markup import escape

    console = _console()
    for table in headlines(results):
        console.print(_grid(table))
    for table in summaries(results):
        console.print(f"\n[bold]{escape(table.title)}[/bold]")
        console.print(_grid(table))


def print_table(table: Table) -> None:
    """Print one table with rich."""
    _console().print(_grid(table))


def _console() -> Any:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, WIDTH))  # a log file can scroll, a wrapped table cannot be read
    return console


def _grid(content: Table) -> Any:
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for column, numeric in zip(content.columns, content.numeric(), strict=True):
        grid.add_column(column, justify="right" if numeric else "left")
    for row in content.rows:
        grid.add_row(*(show(cell) for cell in row))
    return grid
