"""Run folders with results: finding them, and reading what in their configurations tells them apart."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multimodal_zoo.addresses import is_address
from multimodal_zoo.evaluation.outcome import Outcome, load_results, measurements
from multimodal_zoo.evaluation.result import Result

#: Top-level keys that say where, how fast or how often, not what was trained.
BOOKKEEPING = frozenset(
    {"seed", "run", "hydra", "source", "weights", "device", "threads", "logger", "callbacks", "resume", "launcher"}
    | {"benchmark", "benchmark_root", "benchmark_batch_size", "evaluation", "only", "optimized_metric", "keep_memory"}
    | {"allow_random", "trainer"}
)
#: Keys below `trainer` that do say what was trained.
TRAINED_BY = ("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val", "precision")
#: Keys of an evaluation's configuration that do not change its figures.
WITHOUT_EFFECT = ("root", "batch_size", "examples")
NONE = "none"


@dataclass(frozen=True)
class Run:
    """One evaluated or trained run.

    Attributes:
        folder: holds `evaluation/*.json`, `run.json` and `config.yaml`.
        results: evaluation -> figures, without tables made from others.
    """

    folder: Path
    results: Mapping[str, Result]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the results of a folder, without their pictures."""
        results = load_results(folder, pictures=False)
        return cls(folder, {result.name: result for result in measurements(results)})

    @property
    def name(self) -> str:
        """The last two parts of its path."""
        return "/".join(self.folder.resolve().parts[-2:])

    @cached_property
    def about(self) -> dict[str, Any]:
        """What `run.json` says."""
        path = self.folder / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.yaml` says."""
        import yaml

        path = self.folder / "config.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}

    @cached_property
    def missing(self) -> dict[str, str]:
        """Evaluations that have no result -> why."""
        outcome = Outcome.load(self.folder)
        return {**outcome.absent, **outcome.failed}

    @cached_property
    def training(self) -> Run:
        """The run that trained what this one evaluated: itself, unless it evaluated another folder's model."""
        source = self.config.get("source") or self.config.get("weights")
        if source is None or is_address(str(source)):
            return self
        place = Path(str(source))
        homes = [place, *list(place.parents)[:3]]
        home = next((home for home in homes if (home / "config.yaml").is_file() and home != self.folder), None)
        return self if home is None else Run(home, {})

    @property
    def variant(self) -> str:
        """The name on the model's card, or else the folder's."""
        card = (self.about.get("model") or {}).get("card") or {}
        return str(self.about.get("variant") or card.get("name") or self.folder.resolve().name)

    @property
    def seed(self) -> Any:
        """Of its training; None if nobody knows."""
        return self.training.config.get("seed")

    def value(self, key: str) -> Any:
        """What a dotted key of the configuration is, here or in the training that came before; None without one.

        A group (`objective`) gives the file that was chosen for it; a node without a choice gives a name that it has.
        """
        for run in (self, self.training):
            choices = run.about.get("choices") or {}
            if choices.get(key) is not None:
                return choices[key]
        for tree in (self.training.config, self.config, {"model": self.about.get("model")}):
            found = select(tree, key)
            if found is not None:
                return named(found)
        return self.variant if key == "model" else None

    def declared(self) -> dict[str, Any]:
        """Dotted key -> value of everything that decides what was trained, seeds left out."""
        config = {key: value for key, value in self.training.config.items() if key not in BOOKKEEPING}
        config.setdefault("model", self.about.get("model") or {})
        trainer = self.training.config.get("trainer") or {}
        config["trainer"] = {key: trainer[key] for key in TRAINED_BY if key in trainer}
        return {key: value for key, value in leaves(config) if key.rpartition(".")[2] != "seed" and "card." not in key}

    def evaluator(self, name: str) -> dict[str, Any]:
        """Dotted key -> value of one evaluation's configuration, without what changes no figure; empty if unknown."""
        node = (self.config.get("benchmark") or self.config.get("evaluation") or {}).get(name) or {}
        return {key: value for key, value in leaves(node) if key.rpartition(".")[2] not in WITHOUT_EFFECT}


def find_runs(places: Sequence[str | Path]) -> list[Run]:
    """The runs in these folders, each once.

    Args:
        places: run folders, folders of run folders (a sweep, `evaluations`), or shell patterns of such.

    Raises:
        ValueError: no place was named.
        FileNotFoundError: a place that is not there, or has no results in it.
    """
    if not places:
        raise ValueError("mmzoo report needs folders of evaluated runs: mmzoo report runs/mine evaluations/*")
    found: dict[Path, Run] = {}
    for place in places:
        folders = expand(str(place))
        inside = [run for folder in folders for run in runs_below(folder)]
        if not inside:
            raise FileNotFoundError(
                f"{place}: no results there. A run folder has evaluation/*.json, which mmzoo eval writes, and mmzoo "
                "train at its end"
            )
        for folder in inside:
            found.setdefault(folder.resolve(), Run.load(folder))
    return [run for run in found.values() if run.results]


def expand(place: str) -> list[Path]:
    """A folder, or those that a shell pattern fits.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return [path]
    folders = [Path(name) for name in sorted(glob.glob(str(path))) if Path(name).is_dir()]
    if not folders:
        raise FileNotFoundError(f"{place}: no such folder")
    return folders


def runs_below(folder: Path) -> list[Path]:
    """The folder itself if it has results, or else those below it that have, sorted."""
    if any((folder / "evaluation").glob("*.json")):
        return [folder]
    return sorted({path.parents[1] for path in folder.rglob("evaluation/*.json")})


def without_results(places: Sequence[str | Path]) -> list[Path]:
    """Folders below these places that a run was started in, and that hold no results; an exported model is no run."""
    started = {path.parent for place in places for folder in expand(str(place)) for path in folder.rglob("config.yaml")}
    runs = [folder for folder in started if not (folder.parent / "config.yaml").is_file()]
    return sorted(folder for folder in runs if not any((folder / "evaluation").glob("*.json")))


def select(tree: Any, key: str) -> Any:
    """The node at a dotted key; None if there is none."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def named(value: Any) -> Any:
    """A scalar as it is; a node by the name on its card, its name or its type; a list by its members."""
    if isinstance(value, Mapping):
        card = value.get("card") or {}
        parts = value.get("parts")
        if isinstance(parts, Mapping) and parts:
            return "+".join(parts)
        return card.get("name") or value.get("name") or value.get("type") or f"{len(value)} keys"
    return "+".join(map(str, value)) if isinstance(value, list) else value


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a configuration with its dotted key."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.")
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{prefix}{number}.")
    else:
        yield prefix.rstrip("."), tree


def differing(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all tables, in order of appearance."""
    rows = list(tables)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if len({repr(row.get(key)) for row in rows}) > 1]
