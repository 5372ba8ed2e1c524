"""CLIP, SLIP, FILIP, DeCLIP and DeFILIP on the embedded emoji data: same tower, same samples seen, several seeds.

    python benchmarks/method_comparison.py                # three seeds, two runs at a time
    python benchmarks/method_comparison.py --size full    # longer, with a larger tower, for a GPU
    python benchmarks/method_comparison.py --report       # tables and figures of what is finished

Finished runs are skipped and cut-off ones go on, so that the command can be repeated. Every run trains on Twemoji
alone, by the recipe of its method (`recipes/clip_benchmark/*_emoji.yaml`), and is examined on

* held-out concepts: R@5 of retrieval among the 360 Twemoji of concepts that no run has seen,
* style shift: R@1 of retrieval among 500 concepts of the training data, drawn in OpenMoji's style,
* groups: zero-shot top-1 on the nine groups of the held-out Twemoji, class vectors from training names,
* probe: a linear probe of the groups on frozen features, both styles.

Three questions: (a) the order of the five methods, against that of the paper's table (arXiv 2203.05796: ViT-B/32 on
YFCC15M, zero-shot ImageNet); (b) accuracy against the share of the training concepts, CLIP against DeCLIP, at equal
samples seen: with how many times less data does DeCLIP reach what CLIP reaches with all of it (the smaller the share,
the fewer of the 500 concepts of the style-shift figure were trained on; the probe always reads all training emoji);
(c) depth of the text tower, 1 to 6. Behind each mean stands half of its 95 % interval: that of the seeds (Student's t)
or that of the number of queries (Wilson), whichever is more; "how many times less" has none.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from _report import record, use_threads

FIGURES_FOLDER = Path(__file__).parents[1] / "docs" / "figures"
#: The order of the paper's table, weakest first, with its figures (README of the published code, ViT-B/32, YFCC15M-V2).
PAPER = {"clip": 32.8, "slip": 34.3, "filip": 39.5, "declip": 43.2, "defilip": 45.0}
NAMES = {"clip": "CLIP", "slip": "SLIP", "filip": "FILIP", "declip": "DeCLIP", "defilip": "DeFILIP"}
SHARES = (0.1, 0.25, 0.5, 1.0)
DEPTHS = (1, 2, 3, 4, 5, 6)
PAIR = ("clip", "declip")


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        steps: of 128 pairs each.
        depth: of the text tower where that is not the question.
        overrides: of every run.
        processes: runs at a time.
        seeds: of question (a), and of (b) and (c).
        suffix: of the names of tables and figures.
    """

    steps: int
    depth: int
    overrides: tuple[str, ...]
    processes: int
    seeds: tuple[int, int]
    suffix: str = ""


SIZES = {
    "hour": Size(300, 2, ("trainer=cpu", "threads=1"), 2, (3, 1)),
    "full": Size(
        4000,
        4,
        (
            "trainer=gpu",
            "data.workers=8",
            "model.image.image_size=64",
            "model.image.width=512",
            "model.image.channels=[128,256,512]",
            "model.image.depths=[2,2,2]",
        ),
        1,
        (3, 3),
        "_full",
    ),
}
#: figure -> evaluation, metric, independent queries
FIGURES = {
    "held-out concepts R@5": ("unseen_twemoji", "R@5", 360),
    "style shift R@1": ("seen_openmoji", "R@1", 500),
    "groups top-1": ("groups_twemoji", "top1", 360),
    "probe top-1": ("probe_groups", "top1", 360),
}
HELD_OUT = next(iter(FIGURES))


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    share: float
    depth: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method}_share{round(100 * self.share)}_depth{self.depth}_seed{self.seed}"

    def words(self, folder: Path, size: Size) -> list[str]:
        """The arguments of `mmzoo train`."""
        return [
            f"clip_benchmark/{self.method}_emoji",
            f"run.dir={folder / self.name}",
            "resume=auto",
            f"seed={self.seed}",
            "logger=csv",
            "data.train.styles=[twemoji]",
            "data.validation.styles=[twemoji]",
            f"data.train.share={self.share}",
            f"model.text.blocks.depth={self.depth}",
            f"trainer.max_steps={size.steps}",
            "trainer.limit_val_batches=0",
            "callbacks.samples=null",
            "callbacks.checkpoint.every_n_steps=200",
            "callbacks.checkpoint.keep=1",
            *(f"evaluation.{name}=null" for name in ("seen_twemoji", "unseen_openmoji", "groups_openmoji")),
            *(f"evaluation.{name}=null" for name in ("subgroups_twemoji", "subgroups_openmoji")),
            *size.overrides,
        ]


def runs_of(size: Size, questions: str) -> list[Run]:
    """Every run that the questions need, each once, those of (a) first."""
    found: dict[Run, None] = {}
    many, few = size.seeds
    if "a" in questions:
        found |= dict.fromkeys(Run(method, 1.0, size.depth, seed) for seed in range(many) for method in PAPER)
    if "b" in questions:
        found |= dict.fromkeys(Run(m, share, size.depth, seed) for seed in range(few) for share in SHARES for m in PAIR)
    if "c" in questions:
        found |= dict.fromkeys(Run(m, 1.0, depth, seed) for seed in range(few) for depth in DEPTHS for m in PAIR)
    return list(found)


def train(run: Run, folder: Path, size: Size) -> None:
    """Do a run unless it is finished; `result.json` in its folder says so."""
    place = folder / run.name
    if (place / "result.json").exists():
        steps = json.loads((place / "result.json").read_text())["steps"]
        if steps != size.steps:
            raise ValueError(f"{place} was trained for {steps} steps, not {size.steps}: choose another --folder")
        return
    whole = not place.exists()  # of a run that was cut off, only the rest could be timed
    command = [sys.executable, "-m", "multimodal_zoo", "train", *run.words(folder, size)]
    print(time.strftime("%H:%M:%S"), run.name, flush=True)
    start = time.perf_counter()
    with (folder / f"{run.name}.log").open("a") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{run.name} failed; see {folder / run.name}.log")
    found: dict[str, Any] = {
        "steps": size.steps,
        "cpu_seconds": used.ru_utime + used.ru_stime if whole else None,
        "seconds": time.perf_counter() - start if whole else None,
    }
    for path in sorted((place / "evaluation").glob("*.json")):
        found[path.stem] = json.loads(path.read_text())["metrics"]
    (place / "result.json").write_text(json.dumps(found, indent=1))


def results_of(runs: list[Run], folder: Path) -> list[dict[str, Any]]:
    """The results of those runs that are finished."""
    paths = [folder / run.name / "result.json" for run in runs]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def wilson(share: float, queries: int) -> float:
    """Half of the 95 % interval of a share of so many queries."""
    z = 1.96
    return z / (1 + z * z / queries) * math.sqrt(share * (1 - share) / queries + z * z / (4 * queries * queries))


def point(results: list[dict[str, Any]], title: str) -> tuple[float, float] | None:
    """Mean over seeds of a figure and half of its interval; None without a result."""
    evaluation, metric, queries = FIGURES[title]
    values = [result[evaluation][metric] for result in results]
    if not values:
        return None
    mean, half = statistics.mean(values), wilson(statistics.mean(values), queries)
    if len(values) > 1:
        t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(values), 2.571)
        half = max(half, t * statistics.stdev(values) / math.sqrt(len(values)))
    return mean, half


def cells(results: list[dict[str, Any]]) -> dict[str, str | float]:
    """The figures of one row."""
    row: dict[str, str | float] = {}
    for title in FIGURES:
        found = point(results, title)
        row[title] = f"{found[0]:.3f} ± {found[1]:.3f}" if found else ""
    seconds = [result["cpu_seconds"] for result in results if result["cpu_seconds"]]
    return {**row, "seeds": len(results), "CPU s": f"{statistics.mean(seconds):.0f}" if seconds else ""}


def agreement(values: dict[str, float]) -> float:
    """Kendall's tau between the methods' order by a figure and the paper's."""
    names = [name for name in PAPER if name in values]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return sum((values[b] > values[a]) - (values[b] < values[a]) for a, b in pairs) / len(pairs)


def report_methods(folder: Path, size: Size, command: str) -> None:
    """Question (a): table, order and figure."""
    groups = {m: results_of([Run(m, 1.0, size.depth, s) for s in range(size.seeds[0])], folder) for m in PAPER}
    groups = {method: results for method, results in groups.items() if results}
    if len(groups) < 2:
        return
    rows: list[dict[str, str | float]] = [
        {"method": NAMES[m], "paper, ImageNet": PAPER[m], **cells(results)} for m, results in groups.items()
    ]
    order: dict[str, str | float] = {"method": "order as in the paper (Kendall's tau)"}
    for title in FIGURES:
        order[title] = f"{agreement({m: (point(r, title) or (0.0, 0.0))[0] for m, r in groups.items()}):+.2f}"
    record(f"method_comparison{size.suffix}", [*rows, order], command)
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(FIGURES), figsize=(13, 3.4), layout="constrained")
    for axis, title in zip(axes, FIGURES, strict=True):
        found = [point(results, title) or (0.0, 0.0) for results in groups.values()]
        axis.bar([NAMES[m] for m in groups], [mean for mean, _ in found], yerr=[half for _, half in found], capsize=3)
        axis.set_title(title)
        axis.tick_params(axis="x", labelrotation=30)
        axis.grid(axis="y", alpha=0.3)
    save(figure, f"method_comparison{size.suffix}.png")


def curves(folder: Path, size: Size, points: tuple[float, ...], key: str) -> dict[str, dict[float, list[Any]]]:
    """Method -> place on the axis -> results."""
    found: dict[str, dict[float, list[Any]]] = {}
    for method in PAIR:
        for place in points:
            share, depth = (place, size.depth) if key == "share" else (1.0, int(place))
            runs = [Run(method, share, depth, seed) for seed in range(size.seeds[1])]
            if results := results_of(runs, folder):
                found.setdefault(method, {})[place] = results
    return found


def less_data(declip: dict[float, float], goal: float) -> str:
    """How many times less data DeCLIP needs for a figure, its curve taken as straight in the logarithm of the share."""
    shares = sorted(declip)
    if declip[shares[0]] >= goal:
        return f"at least {1 / shares[0]:.1f}x less data"
    for low, high in pairwise(shares):
        if declip[low] < goal <= declip[high]:
            part = (goal - declip[low]) / (declip[high] - declip[low])
            return f"{math.exp(-math.log(low) - part * (math.log(high) - math.log(low))):.1f}x less data"
    return "not reached"


def report_shares(folder: Path, size: Size, command: str) -> None:
    """Question (b): table, how many times less data, and figure."""
    found = curves(folder, size, SHARES, "share")
    if set(found) != set(PAIR) or any(set(line) != set(SHARES) for line in found.values()):
        return
    rows: list[dict[str, str | float]] = [
        {"method": NAMES[m], "share of the concepts": f"{share:.0%}", **cells(results)}
        for m, line in found.items()
        for share, results in line.items()
    ]
    answer: dict[str, str | float] = {"method": "DeCLIP reaches CLIP's 100 % with", "share of the concepts": ""}
    for title in FIGURES:
        means = {m: {s: (point(r, title) or (0.0, 0.0))[0] for s, r in line.items()} for m, line in found.items()}
        answer[title] = less_data(means["declip"], means["clip"][1.0])
    record(f"method_comparison_data{size.suffix}", [*rows, answer], command)
    draw_curves(found, "share of the training concepts", f"data_efficiency{size.suffix}.png", logarithmic=True)


def report_depths(folder: Path, size: Size, command: str) -> None:
    """Question (c): table and figure."""
    found = curves(folder, size, tuple(map(float, DEPTHS)), "depth")
    if any(len(line) < 2 for line in found.values()) or not found:
        return
    rows: list[dict[str, str | float]] = [
        {"method": NAMES[m], "text blocks": int(depth), **cells(results)}
        for m, line in found.items()
        for depth, results in line.items()
    ]
    record(f"method_comparison_depth{size.suffix}", rows, command)
    draw_curves(found, "blocks of the text tower", f"text_depth{size.suffix}.png", logarithmic=False)


def draw_curves(found: dict[str, dict[float, list[Any]]], label: str, name: str, logarithmic: bool) -> None:
    """Each figure over an axis, a line for each method."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(FIGURES), figsize=(13, 3.4), layout="constrained")
    for axis, title in zip(axes, FIGURES, strict=True):
        for method, line in found.items():
            values = [point(results, title) or (0.0, 0.0) for results in line.values()]
            axis.errorbar(
                list(line), [v for v, _ in values], [h for _, h in values], marker="o", capsize=3, label=NAMES[method]
            )
        places = list(next(iter(found.values())))
        if logarithmic:
            axis.set_xscale("log")
        axis.set_xticks(places, [f"{p:.0%}" if logarithmic else f"{p:g}" for p in places], minor=False)
        axis.minorticks_off()
        axis.set(title=title, xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    save(figure, name)


def save(figure: Any, name: str) -> None:
    """Write a figure into the docs."""
    from matplotlib import pyplot as plt

    FIGURES_FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES_FOLDER / name, dpi=110)
    plt.close(figure)


def main() -> None:
    """Do the runs that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="hour")
    parser.add_argument("--folder", type=Path, default=Path("runs/method_comparison"))
    parser.add_argument("--questions", default="abc", help="which of the three: abc, a, bc, ...")
    parser.add_argument("--report", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    import matplotlib as mpl

    mpl.use("Agg")
    use_threads(1)
    size, folder = SIZES[chosen.size], chosen.folder.resolve() / chosen.size
    folder.mkdir(parents=True, exist_ok=True)
    if not chosen.report:
        with ThreadPoolExecutor(size.processes) as pool:
            list(pool.map(lambda run: train(run, folder, size), runs_of(size, chosen.questions)))
    command = f"python benchmarks/method_comparison.py --size {chosen.size}"
    report_methods(folder, size, command)
    report_shares(folder, size, command)
    report_depths(folder, size, command)


if __name__ == "__main__":
    main()
