"""What a suite came to: its results in order, what was left out and why, and the overview tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from multimodal_zoo.evaluation.result import Result, Table
from multimodal_zoo.files import parsed, reading, write_text

FILE = "suite.json"


@dataclass(frozen=True)
class Outcome:
    """What a run folder notes beside the results of a suite.

    Attributes:
        order: names of the evaluations as the configuration has them.
        absent: evaluations whose data was not there -> why.
        failed: evaluations that raised -> the message.
    """

    order: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Write `suite.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        return write_text(folder / FILE, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Outcome:
        """What the last suite in a folder noted; nothing if there was none.

        Raises:
            ValueError: the file is damaged.
        """
        if not (folder / FILE).is_file():
            return cls()
        with reading(folder / FILE, "note of a suite", "delete it to evaluate again"):
            content = parsed((folder / FILE).read_bytes())
            return cls(tuple(map(str, content["order"])), {**content["absent"]}, {**content["failed"]})

    def ordered(self, results: Mapping[str, Result]) -> dict[str, Result]:
        """Results in the order of the configuration; others follow as they come."""
        first = [name for name in self.order if name in results]
        return {name: results[name] for name in dict.fromkeys([*first, *results])}

    def tables(self) -> list[Table]:
        """One short list: a row for each failure, and one for all that is absent."""
        rows = [("failed", name.replace("_", " "), message) for name, message in self.failed.items()]
        if self.absent:
            names = ", ".join(name.replace("_", " ") for name in self.absent)
            rows.append(("absent", names, "the data is not there"))
        return [Table("left out", ("what", "which", "why"), rows)] if rows else []


def load_results(folder: Path, pictures: bool = True) -> dict[str, Result]:
    """All results saved in a run folder, by name, in the order of the last suite; others follow by name.

    Args:
        folder: the run folder.
        pictures: whether their pictures are read too.
    """
    found = {path.stem: Result.load(path, pictures) for path in sorted((folder / "evaluation").glob("*.json"))}
    return Outcome.load(folder).ordered(found)


def summaries(results: Mapping[str, Result]) -> list[Table]:
    """The tables that were made from other results."""
    return [table for result in results.values() if result.details.get("summary") for table in result.tables]


def measurements(results: Mapping[str, Result]) -> list[Result]:
    """The results that are not made from others."""
    return [result for result in results.values() if not result.details.get("summary")]


def headlines(results: Mapping[str, Result]) -> list[Table]:
    """Overview tables: evaluations with the same headline figures stand in one table."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in measurements(results):
        groups.setdefault(result.headline or tuple(list(result.metrics)[:4]), []).append(result)
    return [
        Table(
            "overview",
            ("evaluation", *(metric.replace("_", " ") for metric in metrics)),
            [(result.name.replace("_", " "), *(result.metrics[m] for m in metrics)) for result in members],
        )
        for metrics, members in groups.items()
    ]
