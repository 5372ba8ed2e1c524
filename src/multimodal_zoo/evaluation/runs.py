"""Run folders with results: finding them, and reading what in their configurations tells them apart."""

from __future__ import annotations

import glob
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multimodal_zoo.addresses import is_address
from multimodal_zoo.evaluation.history import Line, telling
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.run_files import RunFiles

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
#: What the last logged values of a training are called among evaluations.
TRAINING = "training"
#: What a run has from its beginning on.
STARTED = ("train.log", "checkpoints")
#: Files of folders that other commands wrote -> what such a folder is.
OTHERS = {
    "manifest.engine.json": "a folder of mmzoo fuse, which has its own report.html; name runs trained on its captions",
    "manifest.json": "a folder of mmzoo embed or mmzoo fuse, not of a run",
}


@dataclass(frozen=True)
class Run:
    """One evaluated or trained run, finished or not.

    Attributes:
        folder: holds `evaluation/*.json`, `metrics.csv`, `run.json` and `config.yaml`, as far as it came.
        results: evaluation -> figures, without tables made from others.
        about: what `run.json` says.
        config: what `config.yaml` says.
        history: column of `metrics.csv` -> its curve.
        missing: evaluations that have no result -> why.
        problems: files that were damaged, one sentence each.
    """

    folder: Path
    results: Mapping[str, Result]
    about: Mapping[str, Any]
    config: Mapping[str, Any]
    history: Mapping[str, Line]
    missing: Mapping[str, str]
    problems: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a folder, without pictures; what is damaged is left out and noted."""
        files = RunFiles(folder, short_name(folder))
        outcome = files.outcome()
        results = files.results(outcome)
        content = (files.about(), files.config(), files.history())
        return cls(folder, results, *content, {**outcome.absent, **outcome.failed}, tuple(files.problems))

    @property
    def name(self) -> str:
        """The last two parts of its path."""
        return short_name(self.folder)

    @property
    def step(self) -> int | None:
        """The last logged step; None if nothing was logged."""
        return max((int(steps[-1]) for steps, _ in self.history.values() if steps), default=None)

    @property
    def state(self) -> str:
        """How far it came: `trained`, `evaluated`, or where it is or ended without having finished."""
        if self.results and not self.history:
            return "evaluated"
        if (self.folder / "run.json").is_file():
            return "trained"
        if not self.history:
            return "started, nothing logged yet"
        whole = select(self.config, "trainer.max_steps")
        return f"unfinished, step {self.step}" + (f" of {whole}" if isinstance(whole, int) and whole > 0 else "")

    def finals(self) -> Result | None:
        """The last logged value of each column of `metrics.csv`, as if it were an evaluation; None without any."""
        last = {name: values[-1] for name, (_, values) in self.history.items() if values}
        if not last:
            return None
        ordered = sorted(last, key=lambda name: (not name.startswith("validation/"), *telling(name)))
        return Result(TRAINING, {name: last[name] for name in ordered}, headline=tuple(ordered[:1]))

    @cached_property
    def training(self) -> Run:
        """The run that trained what this one evaluated: itself, unless it evaluated another folder's model."""
        source = self.config.get("source") or self.config.get("weights")
        if source is None or is_address(str(source)):
            return self
        place = Path(str(source))
        homes = [place, *list(place.parents)[:3]]
        home = next((home for home in homes if (home / "config.yaml").is_file() and home != self.folder), None)
        return self if home is None else Run.load(home)

    @property
    def variant(self) -> str:
        """The name on the model's card, or else the folder's."""
        named_by = (
            self.about.get("variant"),
            select(self.about, "model.card.name"),
            select(self.config, "model.card.name"),
        )
        return next((str(name) for name in named_by if name), self.folder.resolve().name)

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
        trainer = {key: select(self.training.config, f"trainer.{key}") for key in TRAINED_BY}
        config["trainer"] = {key: value for key, value in trainer.items() if value is not None}
        return {key: value for key, value in leaves(config) if key.rpartition(".")[2] != "seed" and "card." not in key}

    def evaluator(self, name: str) -> dict[str, Any]:
        """Dotted key -> value of one evaluation's configuration, without what changes no figure; empty if unknown."""
        node = select(self.config.get("benchmark") or self.config.get("evaluation"), name) or {}
        return {key: value for key, value in leaves(node) if key.rpartition(".")[2] not in WITHOUT_EFFECT}


def find_runs(places: Sequence[str | Path]) -> list[Run]:
    """The runs in these folders, each once.

    Args:
        places: run folders, folders of run folders (a sweep, stages, `evaluations`), or shell patterns of such.

    Raises:
        ValueError: no place was named.
        FileNotFoundError: a place that is not there, or has no run in it.
    """
    if not places:
        raise ValueError("mmzoo report needs folders of runs: mmzoo report runs/mine evaluations/*")
    found: dict[Path, Run] = {}
    for place in places:
        folders = expand(str(place))
        inside = [run for folder in folders for run in runs_below(folder)]
        if not inside:
            other = next((what for folder in folders for file, what in OTHERS.items() if (folder / file).is_file()), "")
            raise FileNotFoundError(
                f"{place}: no results there{f': it is {other}' if other else ''}. A run folder has metrics.csv, "
                "train.log or checkpoints/, which mmzoo train writes, or evaluation/*.json, which mmzoo eval writes"
            )
        for folder in inside:
            if folder.resolve() not in found:
                found[folder.resolve()] = Run.load(folder)
    return list(found.values())


def expand(place: str) -> list[Path]:
    """A folder, or those that a shell pattern fits.

    Raises:
        FileNotFoundError: there is none.
        NotADirectoryError: a file.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return [path]
    if path.is_file():
        raise NotADirectoryError(f"{place} is a file; name the run's folder")
    folders = [Path(name) for name in sorted(glob.glob(str(path))) if Path(name).is_dir()]
    if not folders:
        raise FileNotFoundError(f"{place}: no such folder")
    return folders


def runs_below(folder: Path) -> list[Path]:
    """The folder itself if it is a run's, or else those below it that are, sorted.

    A run of several stages has a log of its own and no figures: its stages are the runs.
    """
    if has_figures(folder):
        return [folder]
    figures = {path.parent for path in folder.rglob("metrics.csv")}
    figures |= {path.parents[1] for path in folder.rglob("evaluation/*.json")}
    begun = {path.parent for name in STARTED for path in folder.rglob(name)}
    return sorted(figures | {one for one in begun if not any(one in other.parents for other in figures)})


def has_figures(folder: Path) -> bool:
    """Whether a run left figures in a folder: curves or results."""
    return (folder / "metrics.csv").is_file() or any((folder / "evaluation").glob("*.json"))


def without_results(places: Sequence[str | Path]) -> list[Path]:
    """Folders below these places that hold a run's configuration and nothing else; an exported model is no run."""
    started = {path.parent for place in places for folder in expand(str(place)) for path in folder.rglob("config.yaml")}
    runs = [folder for folder in started if not (folder.parent / "config.yaml").is_file()]
    return sorted(f for f in runs if not has_figures(f) and not any((f / name).exists() for name in STARTED))


def short_name(folder: Path) -> str:
    """The last two parts of a path."""
    return "/".join(folder.resolve().parts[-2:])


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
        parts = value.get("parts")
        if isinstance(parts, Mapping) and parts:
            return "+".join(map(str, parts))
        return select(value, "card.name") or value.get("name") or value.get("type") or f"{len(value)} keys"
    return "+".join(map(str, value)) if isinstance(value, list) else value


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a configuration with its dotted key; what can be no key of a table (a set) as text."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.")
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{prefix}{number}.")
    else:
        yield prefix.rstrip("."), tree if isinstance(tree, Hashable) else str(tree)


def differing(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all tables, in order of appearance."""
    rows = list(tables)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if len({repr(row.get(key)) for row in rows}) > 1]
