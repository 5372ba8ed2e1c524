"""A scaling ladder on the embedded emoji data, and weak-to-strong pretraining of its largest tower.

    python benchmarks/scaling_ladder.py                 # one seed on one thread, about 35 CPU-minutes
    python benchmarks/scaling_ladder.py --seeds 0 1     # finished runs are skipped, cut-off ones go on
    python benchmarks/scaling_ladder.py --report        # table and figure of what is finished

EVA-02 towers (rotary positions, sub-LN, SwiGLU) of three sizes train contrastively on the same samples by the same
recipe, the quickstart's. Then the trained `small` teaches `base` by masked image modelling, on pictures alone, and
`base` trains contrastively from there. It is compared with `base` from scratch after as many contrastive samples, and
after as many samples in all (the teacher's own samples are not counted). Behind each figure stands half of its 95 %
interval for the number of queries (Wilson), or half of the range of the seeds if that is more; it says nothing of other
first weights where there is one seed. The learning rate was the best of 0.005, 0.01, 0.02 for `small` in 120 steps and
is the same for every size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from _report import record, use_threads

os.environ["OMP_NUM_THREADS"] = "1"

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "scaling_ladder.png"
BATCH = 128
#: width, blocks, heads (32 wide each), hidden width of the SwiGLU
TOWERS = {"tiny": (64, 4, 2, 172), "small": (128, 4, 4, 344), "base": (192, 4, 6, 512)}
PATCH = 12  # 16 patches of a 48-pixel image: what a CPU can afford


class Run(NamedTuple):
    """One training: its tower, `contrastive` or `masked`, steps as a multiple of the ladder's, and the run it needs."""

    tower: str
    kind: str
    share: float
    needs: str | None


MASKED = 0.5
RUNS = {
    "tiny": Run("tiny", "contrastive", 1.0, None),
    "small": Run("small", "contrastive", 1.0, None),
    "base": Run("base", "contrastive", 1.0, None),
    "base_masked": Run("base", "masked", MASKED, "small"),
    "base_weak_to_strong": Run("base", "contrastive", 1.0, "base_masked"),
    "base_longer": Run("base", "contrastive", 1.0 + MASKED, None),
}
#: title: evaluations and metrics whose mean is taken, independent queries (concepts or emoji, not styles)
FIGURES: dict[str, tuple[tuple[str, ...], str, int]] = {
    "seen R@1": (("seen_twemoji", "seen_openmoji"), "R@1", 500),
    "unseen R@5": (("unseen_twemoji", "unseen_openmoji"), "R@5", 360),
    "groups top-1": (("groups_twemoji", "groups_openmoji"), "top1", 360),
    "probe top-1": (("probe_groups",), "top1", 360),
}


def tower_overrides(tower: str, prefix: str) -> list[str]:
    """What makes the small EVA tower at `prefix` one of the ladder's."""
    width, depth, heads, hidden = TOWERS[tower]
    block = f"{prefix}.blocks.block"
    return [
        f"{prefix}.width={width}",
        f"{prefix}.blocks.depth={depth}",
        f"{prefix}.patches.patch_size={PATCH}",
        f"{block}.attention.qkv.heads={heads}",
        f"{block}.mlp.hidden={hidden}",
    ]


def words(name: str, folder: Path, steps: int, lr: float, seed: int) -> list[str]:
    """The arguments of `mmzoo train` for a run."""
    run, place = RUNS[name], folder / f"{name}_{seed}"
    common = [
        f"run.dir={place}", "resume=auto", f"seed={seed}", "threads=1", "logger=csv", f"optim.lr={lr}",
        f"trainer.max_steps={round(steps * run.share)}", "trainer.limit_val_batches=0", "callbacks.samples=null",
        "callbacks.checkpoint.every_n_steps=100", "callbacks.checkpoint.keep=1",
        f"data.batch_size={BATCH}", *tower_overrides(run.tower, "model.image"),
    ]  # fmt: skip
    if run.kind == "contrastive":
        start = [f"initial_weights={place}_start"] if run.needs else []
        skipped = ["evaluation.subgroups_twemoji=null", "evaluation.subgroups_openmoji=null"]
        return ["quickstart", "model=eva_clip_tiny", *common, *start, *skipped]
    plain = (
        "{patterns: [image.patches.*, image.positions.*, image.prefix.*], weight_decay: 0.0, options: {fallback: true}}"
    )
    teacher = [
        f"teacher.weights={folder}/{run.needs}_{seed}",
        *tower_overrides(str(RUNS[str(run.needs)].tower), "teacher.model.image"),
    ]
    masks = ["data.masking.grid=[4,4]", "data.masking.most=6", "data.masking.smallest=2"]
    muon = ["optim=muon", f"+optim.groups.towers.adamw={plain}", "schedule.final=0.0"]
    return ["eva_clip/mim_tiny", *muon, *common, *teacher, *masks]


def prepare(name: str, folder: Path, seed: int) -> None:
    """Save the model that a run starts from: random, but for the tower of the masked student that it needs."""
    import multimodal_zoo as zoo
    from multimodal_zoo.checkpoints.store import save_model
    from multimodal_zoo.checkpoints.tables.eva_mim import add_identity_norms
    from multimodal_zoo.zoo import build_model, declaration

    run = RUNS[name]
    model = build_model(declaration("eva_clip_tiny", tower_overrides(run.tower, "model.image")), seed=seed)
    student = zoo.from_pretrained(folder / f"{run.needs}_{seed}")
    model.image.load_state_dict(add_identity_norms(student.image.state_dict(), model.image.state_dict()))
    save_model(model, folder / f"{name}_{seed}_start")


def train(name: str, folder: Path, steps: int, lr: float, seed: int) -> None:
    """Do a run unless it is finished; `result.json` in its folder says so."""
    place = folder / f"{name}_{seed}"
    if (place / "result.json").exists():
        return
    run = RUNS[name]
    if run.kind == "contrastive" and run.needs:
        prepare(name, folder, seed)
    whole = not place.exists()  # of a run that was cut off, only the rest could be timed
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "multimodal_zoo", "train", *words(name, folder, steps, lr, seed)]
    print(time.strftime("%H:%M:%S"), name, seed, flush=True)
    with (folder / f"{name}_{seed}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = {
        "run": name,
        "seed": seed,
        "steps": round(steps * run.share),
        "lr": lr,
        "cpu_seconds": used if whole else None,
    }
    for path in sorted((place / "evaluation").glob("*.json")):
        found[path.stem] = json.loads(path.read_text())["metrics"]
    (place / "result.json").write_text(json.dumps(found, indent=1))


def figure_of(result: dict[str, Any], title: str) -> float | None:
    """One figure of a run, None if the run has no such evaluation."""
    evaluations, metric, _ = FIGURES[title]
    if any(name not in result for name in evaluations):
        return None
    return statistics.mean(result[name][metric] for name in evaluations)


def half_width(share: float, queries: int) -> float:
    """Half of the 95 % interval of a share of so many queries (Wilson)."""
    z = 1.96
    return z / (1 + z * z / queries) * math.sqrt(share * (1 - share) / queries + z * z / (4 * queries * queries))


def parameters(tower: str) -> int:
    """Parameters of an image tower."""
    import multimodal_zoo as zoo

    model = zoo.create("eva_clip_tiny", device="meta", overrides=tower_overrides(tower, "model.image"))
    return sum(parameter.numel() for parameter in model.image.parameters())


def collect(folder: Path, seeds: list[int]) -> dict[str, list[dict[str, Any]]]:
    """The results of every finished run, by name."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for name in RUNS:
        for seed in seeds:
            path = folder / f"{name}_{seed}" / "result.json"
            if path.exists():
                found[name].append(json.loads(path.read_text()))
    return found


def spread(values: list[float], queries: int) -> float:
    """Uncertainty of a mean over seeds: the interval of the queries, or half the range of the seeds if that is more."""
    share = statistics.mean(values)
    return max(half_width(share, queries), (max(values) - min(values)) / 2)


def point(results: list[dict[str, Any]], title: str) -> tuple[float, float] | None:
    """Mean over seeds of one figure and its uncertainty, None if no run has it."""
    values = [value for result in results if (value := figure_of(result, title)) is not None]
    return (statistics.mean(values), spread(values, FIGURES[title][2])) if values else None


def report(folder: Path, seeds: list[int], command: str) -> None:
    """Table and figure of the finished runs."""
    results = collect(folder, seeds)
    rows: list[dict[str, str | float]] = []
    for name, runs in results.items():
        if not runs:
            continue
        run = RUNS[name]
        pictures = runs[0]["steps"] * BATCH
        row: dict[str, str | float] = {
            "run": name.replace("_", " "),
            "image tower": f"{parameters(run.tower):,}",
            "contrastive samples": f"{pictures:,}" if run.kind == "contrastive" else "",
            "masked samples": f"{round(pictures / run.share * MASKED):,}"
            if "masked" in (run.kind, str(run.needs)[5:])
            else "",
        }
        for title in FIGURES:
            found = point(runs, title)
            row[title] = f"{found[0]:.3f} ± {found[1]:.3f}" if found else ""
        seconds = [result["cpu_seconds"] for result in runs if result["cpu_seconds"] is not None]
        row |= {"seeds": len(runs), "CPU s": f"{statistics.mean(seconds):.0f}" if seconds else ""}
        rows.append(row)
    record("scaling_ladder", rows, command)
    draw(results)


def draw(results: dict[str, list[dict[str, Any]]]) -> None:
    """Each figure over the parameters of the image tower; the arms of `base` apart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = {tower: parameters(tower) / 1e6 for tower in TOWERS}
    arms = {"base_weak_to_strong": ("weak to strong", "^"), "base_longer": ("scratch, as many samples in all", "s")}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for axis, title in zip(axes, list(FIGURES)[:3], strict=True):
        ladder = [(sizes[tower], *found) for tower in TOWERS if (found := point(results[tower], title)) is not None]
        if ladder:
            x, y, error = zip(*ladder, strict=True)
            axis.errorbar(x, y, error, marker="o", capsize=3, label="from scratch")
        for number, (name, (label, marker)) in enumerate(arms.items(), start=1):
            if (found := point(results[name], title)) is not None:
                x_arm = sizes["base"] * 1.12**number
                axis.errorbar([x_arm], [found[0]], [found[1]], marker=marker, capsize=3, linestyle="", label=label)
        axis.set(xscale="log", title=title, xlabel="image tower, million parameters")
        axis.set_xticks(list(sizes.values()), [f"{size:.2g}" for size in sizes.values()], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=130)
    plt.close(figure)


def main() -> None:
    """Do the runs that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=500, help="contrastive steps of 128 pairs")
    parser.add_argument("--lr", type=float, default=0.02, help="Muon's learning rate, for every run")
    parser.add_argument("--folder", type=Path, default=Path("runs/scaling_ladder"))
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--report", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    use_threads(1)
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in chosen.seeds if not chosen.report else []:
        for name in chosen.only:
            train(name, folder, chosen.steps, chosen.lr, seed)
    seeds = " ".join(map(str, chosen.seeds))
    report(
        folder,
        chosen.seeds,
        f"python benchmarks/scaling_ladder.py --seeds {seeds} --steps {chosen.steps} --lr {chosen.lr}",
    )


if __name__ == "__main__":
    main()
