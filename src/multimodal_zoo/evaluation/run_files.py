"""What lies in a run folder, read so that a damaged file costs a remark and not the comparison of thirty runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from multimodal_zoo.evaluation.history import Line, read_history, thin
from multimodal_zoo.evaluation.outcome import Outcome, measurements
from multimodal_zoo.evaluation.pictures import DRAWN
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.files import bounded

T = TypeVar("T")

#: Bytes of the largest file that is read, by its suffix.
LARGEST = {".csv": 128 << 20, ".json": 32 << 20, ".yaml": 4 << 20}
#: Nodes of the largest configuration.
NODES = 20_000
#: Columns of metrics.csv that are read.
COLUMNS = 200
#: Characters of an error that a remark repeats.
QUOTED = 160
#: Whatever reading a damaged file can raise. yaml's errors are put into ValueErrors where they arise.
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error)


class RunFiles:
    """Reads the files of one run folder and collects what could not be read.

    Args:
        folder: the run folder.
        name: what remarks call it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.problems: list[str] = []

    def about(self) -> dict[str, Any]:
        """What `run.json` says; empty without one. Nodes that should be mappings and are none are left out."""
        found = self._read(self.folder / "run.json", read_mapping) or {}
        nodes = ("environment", "choices", "model", "left_out")
        kept = {key: value for key, value in found.items() if key not in nodes or isinstance(value, dict)}
        if "choices" in kept:
            kept["choices"] = {key: str(value) for key, value in kept["choices"].items() if value is not None}
        return kept

    def config(self) -> dict[str, Any]:
        """What `config.yaml` says; empty without one."""
        return self._read(self.folder / "config.yaml", read_yaml) or {}

    def outcome(self) -> Outcome:
        """What the last suite noted."""
        return self._read(self.folder / "suite.json", lambda path: Outcome.load(path.parent)) or Outcome()

    def history(self) -> dict[str, Line]:
        """The curves of `metrics.csv`, thinned; empty without one."""
        lines = self._read(self.folder / "metrics.csv", read_history) or {}
        return {name: thin(line) for name, line in list(lines.items())[:COLUMNS]}

    def results(self, outcome: Outcome) -> dict[str, Result]:
        """The measured results without their pictures, in the order of the last suite; others follow by name."""
        paths = sorted((self.folder / "evaluation").glob("*.json"))
        found = {path.stem: result for path in paths if (result := self._read(path, read_result)) is not None}
        return {result.name: result for result in measurements(outcome.ordered(found))}

    def _read(self, path: Path, read: Callable[[Path], T]) -> T | None:
        """What a reader makes of a file; None, with a remark, if the file is damaged, and None if there is none."""
        if not path.is_file():
            return None
        try:
            size, most = path.stat().st_size, LARGEST[path.suffix]
            if size > most:
                raise ValueError(f"it has {size:,} bytes; at most {most:,} are read")
            return read(path)
        except DAMAGED as error:
            said = " ".join(f"{type(error).__name__}: {error}".replace(str(self.folder), self.name).split())[:QUOTED]
            self.problems.append(f"{self.name}: {path.relative_to(self.folder)} is damaged and left out ({said})")
            return None


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: something else.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, not {type(found).__name__}")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of bounded size, by the safe loader.

    Raises:
        ValueError: something else, or more nodes than a configuration has.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"expected a mapping, not {type(found).__name__}")
    bounded(found, NODES)
    return found


def read_result(path: Path) -> Result:
    """A saved result without its pictures; figures that are no numbers are left out.

    Raises:
        ValueError: no saved result, or one whose parts are of another kind.
    """
    found = Result.load(path, pictures=False)
    if not isinstance(found.metrics, dict) or not isinstance(found.details, dict):
        raise ValueError("metrics and details are no mappings")
    metrics = {
        str(key): float(value) for key, value in found.metrics.items() if is_number(value) and not abs(value) > DRAWN
    }
    headline = tuple(key for key in found.headline if key in metrics)
    return Result(str(found.name), metrics, found.tables, {}, found.details, headline)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
