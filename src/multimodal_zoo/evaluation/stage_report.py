"""The report over a run of several stages: each stage's overview, with a link to its own report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from multimodal_zoo.evaluation.outcome import headlines, load_results, summaries
from multimodal_zoo.evaluation.report import page
from multimodal_zoo.evaluation.result import Result, Table
from multimodal_zoo.files import write_text


def write_stage_report(folder: Path, title: str, stages: Sequence[str]) -> Path:
    """Write `report.html`, `report.md` and `report.json` over the stages of a run, from what lies in their folders.

    Args:
        folder: of the whole run.
        title: the heading.
        stages: names of the stages, in order; each has a folder of its own with a `report.html`.

    Returns:
        the path of the HTML file.
    """
    results = {name: load_results(folder / name) for name in stages}
    seconds = {name: _seconds(folder / name) for name in stages}
    overview = Table("stages", ("stage", "minutes"), [(name, round(s / 60, 1)) for name, s in seconds.items()])
    sections = {"Stages": overview.html()}
    for name, found in results.items():
        link = f'<p><a href="{escape(name)}/report.html">the whole report of this stage</a></p>'
        shown = "".join(picture.html() for result in found.values() for picture in result.figures.values())
        sections[name] = link + "".join(table.html() for table in _tables(found)) + shown
    content = {
        "title": title,
        "stages": {
            name: {"seconds": seconds[name], "evaluations": {key: result.metrics for key, result in found.items()}}
            for name, found in results.items()
        },
    }
    write_text(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "report.md", _markdown(title, overview, results))
    return write_text(folder / "report.html", page(title, f"{len(stages)} stages", sections))


def _markdown(title: str, overview: Table, results: dict[str, dict[str, Result]]) -> str:
    parts = [f"# {title}\n", overview.markdown()]
    for name, found in results.items():
        parts += [f"## {name}\n", *(table.markdown() for table in _tables(found)), f"[report]({name}/report.html)\n"]
    return "\n".join(parts)


def _tables(results: dict[str, Result]) -> list[Table]:
    return [*summaries(results), *headlines(results)] if results else []


def _seconds(folder: Path) -> float:
    """What a finished stage took, by its note; 0 without one."""
    path = folder / "stage.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.is_file() else 0.0
