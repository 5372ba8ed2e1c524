"""`mmzoo train` of a recipe with stages: one after the other, each in a folder of its own, each an ordinary run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from multimodal_zoo.commands.app import primary_config
from multimodal_zoo.commands.names import PROGRAM, RANK_VARIABLES
from multimodal_zoo.commands.train import rank, settle_run_folder, train_recipe
from multimodal_zoo.config import compose_whole, quoted
from multimodal_zoo.files import read_record, reading, write_text
from multimodal_zoo.stages import words_of

#: In the folder of a finished stage: what it was trained with, and how long that took.
FINISHED = "stage.json"
#: Seconds between two looks of another rank for the first one's files.
PATIENCE = 1.0
#: Differing keys that an error lists.
LISTED = 3


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, ready to run.

    Attributes:
        name: its key in `stages`, and its folder.
        recipe: name or YAML file of its recipe.
        words: all overrides.
        config: the composed recipe, with Hydra's own node.
        folder: its run folder.
    """

    name: str
    recipe: str
    words: tuple[str, ...]
    config: DictConfig
    folder: Path

    def content(self) -> dict[str, Any]:
        """The resolved recipe, with places below the whole run's folder written relative to it."""
        shown = {key: self.config[key] for key in self.config if key not in ("hydra", "resume")}
        plain = OmegaConf.create(shown, flags={"allow_objects": True})
        text = json.dumps(OmegaConf.to_container(plain, resolve=True), default=str)
        return json.loads(text.replace(json.dumps(str(self.folder.parent))[1:-1], "."))


def run_stages(config: DictConfig) -> float | None:
    """Train the stages of a recipe in order.

    The run folder ends up with a folder for each stage, as a run of its recipe alone would fill it, and a
    `report.html` over all. With `resume=auto` finished stages are skipped and one that was cut off is continued.

    Args:
        config: a composed recipe, see `conf/base/stages.yaml`.

    Returns:
        what the last stage returns, for sweeps.

    Raises:
        FileExistsError: the folder holds stages of an earlier run, and `resume` is null.
        ValueError: a finished stage was trained with other settings; or ranks that were started from outside would each
            take a folder of their own.
        KeyError, TypeError, OSError, RuntimeError: as a run of the stage's recipe, with the stage's name.
    """
    from multimodal_zoo.evaluation.stage_report import write_stage_report

    if config.resume not in (None, "auto"):
        raise ValueError(f"resume is {config.resume!r}; a recipe of several stages takes null or auto")
    _check_common_folder(config)
    place = settle_run_folder(config)
    stages = compose_stages(config)
    begun = [stage.folder for stage in stages if stage.folder.exists()]
    if config.resume is None and begun and rank() == 0:
        raise FileExistsError(
            f"{begun[0]} belongs to an earlier run: continue it with resume=auto, or choose another run.dir"
        )
    value = None
    for number, stage in enumerate(stages, start=1):
        title = f"stage {stage.name} ({number} of {len(stages)})"
        with named(stage.name, f"; finished stages are kept in {place}, resume=auto goes on from there"):
            found = finished(stage)
            if found is None:
                _say(f"{title}: {stage.recipe}")
                value = run_stage(stage)
            else:
                _say(f"{title}: finished before, taken from {stage.folder}")
                value = found["value"]
        if rank() == 0:
            report = write_stage_report(place, str(config.run.name), [one.name for one in stages[:number]])
    _say(f"report of all stages: {report}" if rank() == 0 else "")
    return value


def compose_stages(config: DictConfig) -> list[Stage]:
    """Every stage of a recipe, composed: a mistake in the last one shows before the first one trains.

    Args:
        config: a composed recipe, see `conf/base/stages.yaml`.

    Raises:
        ValueError: no stage, a stage without a recipe, or one that refers to a stage that does not come before it.
        KeyError: an unknown recipe, group, option or key, with the nearest names.
    """
    place = Path(config.run.dir).resolve()
    nodes = {str(name): node for name, node in config.stages.items() if node is not None}
    if not nodes:
        raise ValueError("stages: the recipe has none; give name: {recipe: NAME}")
    places = {str(name): quoted(str(Path(path).resolve())) for name, path in config.stage.items()}
    stages = []
    for name in nodes:
        with named(name):
            stages.append(_composed(config, name, place / name, places))
        places[name] = quoted(str(place / name / "model"))
    return stages


def _composed(config: DictConfig, name: str, folder: Path, places: Mapping[str, str]) -> Stage:
    seen: Any = OmegaConf.to_container(config, resolve=False)
    seen["stage"] = dict(places)
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(seen).stages[name], resolve=True)
    except OmegaConfBaseException as error:
        known = ", ".join(places) or "none"
        raise ValueError(f"stages.{name}: {str(error.msg).splitlines()[0]}; stages before it: {known}") from None
    try:
        own = words_of(resolved)
    except ValueError as error:
        raise ValueError(f"stages.{name}.{error}") from None
    shared = [f"seed={config.seed}", f"threads={'null' if config.threads is None else config.threads}", "resume=auto"]
    words = [*shared, *map(str, config.overrides), *own, f"run.dir={quoted(str(folder))}"]
    source, primary, _ = primary_config("train", resolved["recipe"])
    composed = compose_whole(primary, words, None if source.startswith("pkg://") else source)
    if "stages" in composed:
        raise ValueError(f"stages.{name}.recipe: {resolved['recipe']} has stages itself; name a recipe without")
    return Stage(name, resolved["recipe"], tuple(words), composed, folder)


def run_stage(stage: Stage) -> float | None:
    """Train a stage and note that it is finished; ranks other than the first wait for that."""
    start = time.perf_counter()
    content = stage.content()
    with alone(stage):
        value = train_recipe(_without_hydra(stage.config))
    if rank() == 0:
        seconds = round(time.perf_counter() - start, 1)
        note = {"recipe": stage.recipe, "seconds": seconds, "value": value, "config": content}
        write_text(stage.folder / FINISHED, json.dumps(note, indent=1) + "\n")
    while not (stage.folder / FINISHED).is_file():  # the first rank exports and evaluates what the next stage reads
        time.sleep(PATIENCE)
    return value


def finished(stage: Stage) -> dict[str, Any] | None:
    """What a stage's folder notes, None if the stage is not finished.

    Raises:
        ValueError: it was trained with other settings, with the first keys that differ.
    """
    path = stage.folder / FINISHED
    if not path.is_file():
        return None
    now = _flat(stage.content())
    said = ("note of a finished stage", "delete it, and the stage is trained on to its end")
    with reading(path, *said):
        note = read_record(path, *said)
        before = _flat(note["config"])
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        shown = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed[:LISTED])
        raise ValueError(
            f"{stage.folder} was finished with other settings ({shown}"
            f"{' and more' if len(changed) > LISTED else ''}): give the same, remove that folder, or choose another "
            "run.dir"
        )
    return note


@contextmanager
def alone(stage: Stage) -> Iterator[None]:
    """Let a stage find what it would find as the only recipe of a command; processes that it starts are of it alone."""
    import torch
    from hydra.core.hydra_config import HydraConfig

    holder = HydraConfig.instance()
    hydra, argv, threads = holder.cfg, sys.argv, torch.get_num_threads()
    names = (*RANK_VARIABLES, "OMP_NUM_THREADS")
    environment = {key: os.environ.get(key) for key in names}
    holder.set_config(stage.config)
    sys.argv = [PROGRAM, "train", stage.recipe, *stage.words]
    try:
        yield
    finally:
        holder.cfg, sys.argv = hydra, argv
        torch.set_num_threads(threads)
        started = environment["LOCAL_RANK"] is None and "LOCAL_RANK" in os.environ  # by Lightning, for this stage
        for key, value in environment.items():
            os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)
        if started and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def named(name: str, remark: str = "") -> Iterator[None]:
    """Say in an error in which stage it arose."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "add_note"):
            error.add_note(f"in stage {name!r}{remark}")
        raise


def _without_hydra(config: DictConfig) -> DictConfig:
    plain = config.copy()
    with open_dict(plain):
        plain.pop("hydra", None)
    OmegaConf.set_struct(plain, True)
    return plain


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, child in node.items():
        leaves |= _flat(child, f"{prefix}.{key}".lstrip("."))
    return leaves


def _check_common_folder(config: DictConfig) -> None:
    """Ranks of torchrun or Slurm wait for the first one's files, so they must look in the same folder."""
    ranks = max(int(os.environ.get(key, "1")) for key in ("WORLD_SIZE", "SLURM_NTASKS"))
    written = str(OmegaConf.to_container(config, resolve=False)["run"]["dir"])  # type: ignore[index, call-overload]
    if ranks > 1 and "${now:" in written:
        raise ValueError(f"run.dir is {written}, another one for each of {ranks} processes: give run.dir=FOLDER")


def _say(message: str) -> None:
    if rank() == 0 and message:
        print(message, flush=True)
