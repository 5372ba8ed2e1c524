"""Emu's claims on the embedded data: SmolLM2 that reads pages of emoji, with and without the regression of embeddings.

    python benchmarks/emu_emoji.py                                  # all ways, one seed (about an hour on two cores)
    python benchmarks/emu_emoji.py --ways both words --seeds 3      # the ablation alone
    python benchmarks/emu_emoji.py --teacher runs/quickstart/RUN    # with a quickstart that is there already
    python benchmarks/emu_emoji.py --report                         # table and curves of what is finished

Finished runs are skipped and cut-off ones go on, so that the command can be repeated. All ways see the same pages in
the same order, through the same frozen SmolLM2-135M and the same frozen image encoder:

* both: `emu/emoji_language`, the next word and the next visual embedding;
* words: the next word alone (`objective.weight=0`);
* weighed: the regression counts ten times as much;
* pooled: Emu2's way, the encoder's own embeddings and two projections in place of a Causal Former.

Measured on concepts that no run has seen, behind 0, 1, 2 and 4 examples: the right name among few by its likelihood,
and what the name costs in nats. Then the generated visual embeddings of 100 names among those of their pictures:
without the regression the head that generates them has never learnt.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _report import record, use_threads
from eve_emoji import FIGURE, averaged, spread, train

#: Column -> evaluation, figure.
COLUMNS = {
    "choice of 10, 0 shots": ("named_random", "choice_of_10_0_shots"),
    "1 shot": ("named_random", "choice_of_10_1_shots"),
    "2 shots": ("named_random", "choice_of_10_2_shots"),
    "4 shots": ("named_random", "choice_of_10_4_shots"),
    "4 similar": ("named_similar", "choice_of_10_4_shots"),
    "nats per name, 0 shots": ("named_random", "name_nats_0_shots"),
    "nats, 4 shots": ("named_random", "name_nats_4_shots"),
    "nats, 4 similar": ("named_similar", "name_nats_4_shots"),
    "F1, 0 shots": ("named_random", "word_f1_0_shots"),
    "F1, 4 shots": ("named_random", "word_f1_4_shots"),
    "F1, 4 similar": ("named_similar", "word_f1_4_shots"),
    "seen, choice of 10": ("named_seen", "choice_of_10"),
    "imagined, R@5": ("imagined_unseen", "centred_R@5"),
    "imagined, mean rank": ("imagined_unseen", "centred_mean_rank"),
    "imagined seen, R@5": ("imagined_seen", "centred_R@5"),
    "imagined seen, mean rank": ("imagined_seen", "centred_mean_rank"),
}
#: What choosing blindly gives, by a part of the column's name.
CHANCE = {"shot": 0.1, "choice": 0.1, "4 similar": 0.1, "R@5": 0.05, "rank": 50.5}
#: Emu2's connector in front of the same encoder: all nine tokens, two projections, no word as a picture's last target.
POOLED = (
    "connector@model.connector=pooled",
    "model.connector.width=192",
    "model.input_projection={type: linear_layer, in_features: 192, out_features: 576, bias: false}",
    "model.processor.image_tokens=9",
    "model.processor.closing=false",
)


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        name: of its folders.
        title: of its row.
        words: overrides.
    """

    name: str
    title: str
    words: tuple[str, ...] = ()


WAYS = (
    Way("both", "words and embeddings"),
    Way("words", "words alone", ("objective.weight=0",)),
    Way("weighed", "embeddings count tenfold", ("objective.weight=10",)),
    Way("pooled", "Emu2's way", POOLED),
)


@dataclass(frozen=True)
class Plan:
    """What is trained and where.

    Attributes:
        folder: of all runs.
        teacher: folder of a quickstart run; None trains one in `folder`.
        seeds: how many.
        words: further overrides.
    """

    folder: Path
    teacher: Path | None
    seeds: int
    words: tuple[str, ...] = field(default_factory=tuple)

    def run(self, way: Way, seed: int) -> tuple[str, list[str]]:
        """Name and arguments of a run of `mmzoo train`."""
        image = f"initial_weights.image='{self.teacher or self.folder / 'teacher'}'"
        return f"{way.name}_seed{seed}", ["emu/emoji_language", *way.words, image, f"seed={seed}", *self.words]

    def results(self, way: Way) -> list[dict[str, Any]]:
        """The results of a way's seeds, as far as they are finished."""
        paths = [self.folder / self.run(way, seed)[0] / "result.json" for seed in range(self.seeds)]
        return [json.loads(path.read_text()) for path in paths if path.exists()]


def train_all(plan: Plan, processes: int, ways: Sequence[Way]) -> None:
    """The image encoder, then all ways and seeds, several at a time."""
    if plan.teacher is None:
        train("teacher", ["quickstart"], plan.folder)
    jobs = [plan.run(way, seed) for seed in range(plan.seeds) for way in ways]
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda job: train(*job, plan.folder), jobs))


def row_of(way: Way, results: Sequence[dict[str, Any]]) -> dict[str, str | float | int]:
    """One row of the table: means over seeds, with the range."""
    row: dict[str, str | float | int] = {"way": way.title, "seeds": len(results)}
    for title, (evaluation, figure) in COLUMNS.items():
        row[title] = spread([one[evaluation][figure] for one in results])
    known = [one["cpu_seconds"] for one in results if one["cpu_seconds"] is not None]
    return {**row, "CPU s": round(statistics.mean(known)) if known else ""}


def chance_row() -> dict[str, str | float | int]:
    """What choosing blindly gives."""
    found: dict[str, str | float | int] = {"way": "(chance)"}
    for title in COLUMNS:
        if not title.startswith(("nats", "F1")):
            found[title] = next(value for part, value in CHANCE.items() if part in title)
    return found


def report(plan: Plan, command: str) -> None:
    """The table and the curves."""
    found = {way: results for way in WAYS if (results := plan.results(way))}
    if found:
        record("emu_emoji", [*(row_of(way, results) for way, results in found.items()), chance_row()], command)
        plot(plan, {way: len(results) for way, results in found.items()})


def curve(plan: Plan, way: Way, seed: int, column: str) -> list[tuple[int, float]]:
    """Step and value of a logged figure."""
    with (plan.folder / plan.run(way, seed)[0] / "metrics.csv").open() as file:
        return [(int(line["step"]) + 1, float(line[column])) for line in csv.DictReader(file) if line.get(column)]


def plot(plan: Plan, seeds: dict[Way, int]) -> None:
    """Loss curves: words in training, names of unseen concepts, embeddings."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    titles = {
        "train/language_loss": "words of training pages, nats",
        "validation/language_loss": "names of unseen concepts, nats",
        "train/regression_loss": "embeddings, squared error",
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    for place, (column, title) in zip(axes, titles.items(), strict=True):
        for number, (way, count) in enumerate(seeds.items()):
            points = averaged([curve(plan, way, seed, column) for seed in range(count)])
            if points and not ("regression" in column and way.name == "words"):
                place.plot(*zip(*points, strict=True), ".-", color=f"C{number}", label=way.title)
        place.set(xlabel="steps", title=title)
        place.grid(alpha=0.3)
    axes[2].set_yscale("log")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    FIGURE.mkdir(exist_ok=True)
    figure.savefig(FIGURE / "emu_emoji_losses.png", dpi=90)
    plt.close(figure)


def main() -> None:
    """Do the runs that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/emu_emoji_benchmark"))
    parser.add_argument("--teacher", type=Path, help="folder of a quickstart run; without it one is trained first")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], help="some of the ways alone")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--words", nargs="*", default=[], help="further overrides, as of mmzoo train")
    chosen = parser.parse_args()
    use_threads(1)
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(folder, chosen.teacher.resolve() if chosen.teacher else None, chosen.seeds, tuple(chosen.words))
    if not chosen.report:
        train_all(plan, chosen.processes, [way for way in WAYS if not chosen.ways or way.name in chosen.ways])
    report(plan, "python benchmarks/emu_emoji.py")


if __name__ == "__main__":
    main()
