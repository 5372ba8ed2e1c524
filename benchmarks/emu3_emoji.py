"""Emu3's claim on the embedded data: drawing and naming learnt together by one transformer, against each alone.

    python benchmarks/emu3_emoji.py                      # all runs, two at a time (one thread each)
    python benchmarks/emu3_emoji.py --clip runs/quickstart/RUN  # with a quickstart that is there already
    python benchmarks/emu3_emoji.py --report             # table and figures of what is finished

Finished runs are skipped and cut-off ones go on, so that the command can be repeated. All runs share one visual
tokenizer (`emu3/emoji_tokenizer`) and one CLIP that scores drawings (the quickstart), both trained first:

* together: `emu3/emoji_language` as it is, half of all sequences in each direction;
* alone, as often: one direction, half as many steps, so that it sees as many of its sequences as the run together does;
* alone, as long: one direction, as many steps, so that it computes as much as the run together does for both.

Measured on concepts that no run has seen, mean of both styles, beside the concepts of training (Twemoji): drawings by
CLIP's retrieval of the prompt among 100, by copies of training pictures, and by how unlikely the true picture's codes
are behind its prompt; names by exact agreement, overlap of words, and the choice among 100 by likelihood.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _report import record, use_threads

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
DRAWN = ("drawn_unseen_twemoji", "drawn_unseen_openmoji", "drawn_seen_twemoji")
NAMED = ("named_unseen_twemoji", "named_unseen_openmoji", "named_seen_twemoji")
#: Column -> evaluations whose mean it is, figure.
COLUMNS = {
    "drawn R@1": (DRAWN[:2], "clip_R@1"),
    "drawn R@5": (DRAWN[:2], "clip_R@5"),
    "copies": (DRAWN[:2], "copied"),
    "nats per code": (DRAWN[:2], "code_nats"),
    "seen, drawn R@1": (DRAWN[2:], "clip_R@1"),
    "name exact": (NAMED[:2], "exact"),
    "name F1": (NAMED[:2], "word_f1"),
    "name choice R@1": (NAMED[:2], "choice_R@1"),
    "name choice R@5": (NAMED[:2], "choice_R@5"),
    "nats per name": (NAMED[:2], "name_nats"),
    "seen, name exact": (NAMED[2:], "exact"),
}
#: Pictures for the docs: name -> evaluation of the run together, figure.
SHEETS = {
    "emu3_emoji_drawn": ("drawn_unseen_twemoji", "drawings"),
    "emu3_emoji_drawn_openmoji": ("drawn_unseen_openmoji", "drawings"),
    "emu3_emoji_named": ("named_unseen_twemoji", "answers"),
}


@dataclass(frozen=True)
class Run:
    """One training of the language stage.

    Attributes:
        name: of its folder.
        title: of its row.
        direction: the only one that is trained, `draw` or `name`; None trains both.
        share: of the steps.
    """

    name: str
    title: str
    direction: str | None = None
    share: float = 1.0

    def words(self, steps: int) -> list[str]:
        """Overrides that make the recipe this run."""
        words = [f"trainer.max_steps={round(steps * self.share)}"]
        if self.direction is not None:
            other, evaluations = ("name", NAMED) if self.direction == "draw" else ("draw", DRAWN)
            words += [f"~data.layout.layouts.{other}", f"~data.layout.weights.{other}"]
            words += [f"evaluation.{evaluation}=null" for evaluation in evaluations]
        return words


RUNS = (
    Run("together", "together"),
    Run("draw_as_often", "drawing alone, as often", "draw", 0.5),
    Run("name_as_often", "naming alone, as often", "name", 0.5),
    Run("draw_as_long", "drawing alone, as long", "draw"),
    Run("name_as_long", "naming alone, as long", "name"),
)


@dataclass(frozen=True)
class Plan:
    """What is trained and where.

    Attributes:
        folder: of all runs.
        steps: of the run together.
        clip: folder of a quickstart run; None trains one in `folder`.
        seeds: of the language runs.
        words: further overrides of the language runs.
    """

    folder: Path
    steps: int
    clip: Path | None
    seeds: int
    words: tuple[str, ...] = field(default_factory=tuple)

    @property
    def scorer(self) -> Path:
        """Folder of the CLIP run."""
        return self.clip or self.folder / "clip"

    def language(self, run: Run, seed: int) -> list[str]:
        """The arguments of `mmzoo train` for a language run."""
        scored = [f"evaluation.{name}.clip='{self.scorer}'" for name in DRAWN if run.direction != "name"]
        return [
            "emu3/emoji_language",
            f"initial_weights.vision_tokenizer='{self.folder / 'tokenizer' / 'model'}'",
            f"data.train.cache='{self.folder / 'codes_train.npz'}'",
            f"data.validation.cache='{self.folder / 'codes_validation.npz'}'",
            f"seed={seed}",
            *scored,
            *run.words(self.steps),
            *self.words,
        ]


def recipe_steps() -> int:
    """The steps of `emu3/emoji_language`."""
    from multimodal_zoo.config import compose

    return int(compose("emu3/emoji_language").trainer.max_steps)


def train(name: str, words: list[str], folder: Path) -> None:
    """Do a run unless it is finished; `result.json` in its folder says so, with the run's words and seconds."""
    place = folder / name
    if (place / "result.json").exists():
        known = json.loads((place / "result.json").read_text())["words"]
        if known != words:
            raise ValueError(f"{place} was trained with {known}, not with {words}: choose another --folder")
        return
    whole = not place.exists()  # of a run that was cut off, only the rest could be timed
    shared = [f"run.dir='{place}'", "resume=auto", "logger=csv", "threads=1"]
    print(time.strftime("%H:%M:%S"), name, flush=True)
    start = time.perf_counter()
    with (folder / f"{name}.log").open("a") as log:
        command = [sys.executable, "-m", "multimodal_zoo", "train", *words, *shared]
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{name} failed; see {folder / name}.log")
    found: dict[str, Any] = {
        "words": words,
        "cpu_seconds": used.ru_utime + used.ru_stime if whole else None,
        "seconds": time.perf_counter() - start if whole else None,
    }
    for path in sorted((place / "evaluation").glob("*.json")):
        found[path.stem] = json.loads(path.read_text())["metrics"]
    (place / "result.json").write_text(json.dumps(found, indent=1))


def train_all(plan: Plan, processes: int) -> None:
    """The tokenizer and the CLIP, then the language runs, several at a time."""
    first = {"tokenizer": ["emu3/emoji_tokenizer"]} | ({} if plan.clip else {"clip": ["quickstart"]})
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda item: train(*item, plan.folder), first.items()))
        names = [(f"{run.name}_seed{seed}", run, seed) for seed in range(plan.seeds) for run in RUNS]
        list(pool.map(lambda one: train(one[0], plan.language(one[1], one[2]), plan.folder), names))


def results_of(plan: Plan, run: Run) -> list[dict[str, Any]]:
    """The results of a run's seeds, as far as they are finished."""
    paths = [plan.folder / f"{run.name}_seed{seed}" / "result.json" for seed in range(plan.seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def value_of(results: list[dict[str, Any]], evaluations: tuple[str, ...], figure: str) -> float | str:
    """Mean of a figure over evaluations and seeds; empty where it was not measured."""
    values = [result[name][figure] for result in results for name in evaluations if figure in result.get(name, {})]
    return statistics.mean(values) if values else ""


def row_of(plan: Plan, run: Run, results: list[dict[str, Any]]) -> dict[str, str | float | int]:
    """One row of the table."""
    row: dict[str, str | float | int] = {"trained": run.title, "steps": round(plan.steps * run.share)}
    row |= {title: value_of(results, *column) for title, column in COLUMNS.items()}
    seconds = [result["cpu_seconds"] for result in results if result["cpu_seconds"]]
    return {**row, "seeds": len(results), "CPU s": round(statistics.mean(seconds)) if seconds else ""}


def real_row(results: list[dict[str, Any]]) -> dict[str, str | float | int]:
    """What the true pictures reach by the same measures."""
    row: dict[str, str | float | int] = {"trained": "(true pictures)", "steps": ""}
    for title, (evaluations, figure) in COLUMNS.items():
        name = {"clip_R@1": "true_R@1", "clip_R@5": "true_R@5", "copied": "true_copied"}.get(figure)
        row[title] = value_of(results, evaluations, name) if name else ""
    return row


def report(plan: Plan, command: str) -> None:
    """The table, and the pictures of the run together."""
    found = {run: results_of(plan, run) for run in RUNS}
    rows = [row_of(plan, run, results) for run, results in found.items() if results]
    if not rows:
        return
    if found[RUNS[0]]:
        rows.append(real_row(found[RUNS[0]]))
        save_sheets(plan.folder / f"{RUNS[0].name}_seed0" / "evaluation")
    record("emu3_emoji", rows, command)
    tokenizer = plan.folder / "tokenizer" / "result.json"
    if tokenizer.exists():
        known = json.loads(tokenizer.read_text())
        row = {"evaluation": "reconstruction", **known.get("reconstruction", {}), "CPU s": known["cpu_seconds"] or ""}
        record("emu3_emoji_tokenizer", [row], command)


def save_sheets(evaluations: Path) -> None:
    """Small copies of the sheets for the docs: 128 colours are enough."""
    from PIL import Image

    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, (evaluation, figure) in SHEETS.items():
        path = evaluations / f"{evaluation}_{figure}.png"
        if path.exists():
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(128).save(FIGURES / f"{name}.png", optimize=True)


def main() -> None:
    """Do the runs that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emu3_emoji_benchmark"))
    parser.add_argument("--clip", type=Path, help="folder of a quickstart run; without it one is trained first")
    parser.add_argument("--steps", type=int, default=1200, help="of the run together")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("words", nargs="*", help="overrides of the language runs, as of mmzoo train")
    chosen = parser.parse_args()
    use_threads(1)
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    clip = chosen.clip.resolve() if chosen.clip else None
    plan = Plan(folder, chosen.steps or recipe_steps(), clip, chosen.seeds, tuple(chosen.words))
    if not chosen.report:
        train_all(plan, chosen.processes)
    report(plan, "python benchmarks/emu3_emoji.py")


if __name__ == "__main__":
    main()
