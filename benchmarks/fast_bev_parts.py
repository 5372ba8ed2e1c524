"""The parts of Fast-BEV on drawn scenes: what each is worth, all others in place.

    python benchmarks/fast_bev_parts.py                                  # all ways, one seed
    python benchmarks/fast_bev_parts.py --ways all no_history --seeds 3  # some ways, three seeds
    python benchmarks/fast_bev_parts.py --steps 100 --folder runs/short  # shorter runs, in a folder of their own
    python benchmarks/fast_bev_parts.py --report                         # the table of what is finished

Finished runs are skipped and cut-off ones go on, so that the command can be repeated. All ways are `fast_bev/synthetic`
with some overrides, see the same key frames in the same order for as many steps, and are judged by the drives that are
kept for validation:

* all: two times, pictures and scenes augmented, one fine map that is fused from all levels, in one grid;
* no_history: the current time alone, in which nothing moves;
* no_bev_augment: boxes and camera poses as they are;
* no_image_augment: pictures as they are;
* coarse: a map of stride 16, fused from the two coarse levels alone, in place of the one of stride 4;
* multi_scale: three maps in three grids of 1, 4/3 and 2 m, as the published R50 and R101 do it;
* deep_bev: three blocks in the encoder in bird's-eye view in place of one;
* none: no history, no augmentation and the coarse map;
* untrained: random weights, with all candidates judged, however low their scores.

One part is not among them, the view transform by tables: it changes seconds and no figure
(`benchmarks/bev_view_transform.py`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _report import record, use_threads
from eve_emoji import spread, train

#: Figures of the evaluation, in the order of the columns.
FIGURES = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "AP_car", "AP_pedestrian")
NO_HISTORY = (
    "model.frames=1",
    "model.processor.history.frames=1",
    "model.processor.history.ids=[]",
    "model.bev_encoder.in_channels=128",
)
NO_BEV_AUGMENT = ("data.rules.bev_augment=null",)
NO_IMAGE_AUGMENT = ("data.rules.image_augment=null",)
COARSE = ("model.fusions=[{type:level_fusion,level:2,in_channels:64,channels:32}]",)
#: Style v4 of the published code: map i in grid i.
MULTI_SCALE = (
    "model.fusions=[{type:level_fusion,level:0,in_channels:128,channels:32},"
    "{type:level_fusion,level:1,in_channels:96,channels:32},{type:level_fusion,level:2,in_channels:64,channels:32}]",
    "model.lift.grids=[{type:voxel_grid,counts:[100,100,4],size:[1.0,1.0,1.5],centre:[0,0,-1]},"
    "{type:voxel_grid,counts:[75,75,4],size:[1.3333333333333333,1.3333333333333333,1.5],centre:[0,0,-1]},"
    "{type:voxel_grid,counts:[50,50,4],size:[2.0,2.0,1.5],centre:[0,0,-1]}]",
    "+model.lift.pairs=[[0,0],[1,1],[2,2]]",
    "model.bev_encoder.in_channels=768",
)


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        name: of its folders.
        title: of its row.
        words: overrides.
        learns: whether the number of steps is that of all.
    """

    name: str
    title: str
    words: tuple[str, ...] = ()
    learns: bool = True


WAYS = (
    Way("all", "all parts"),
    Way("no_history", "no earlier time", NO_HISTORY),
    Way("no_bev_augment", "scenes not augmented", NO_BEV_AUGMENT),
    Way("no_image_augment", "pictures not augmented", NO_IMAGE_AUGMENT),
    Way("coarse", "a coarse map (stride 16)", COARSE),
    Way("multi_scale", "three maps in three grids", MULTI_SCALE),
    Way("deep_bev", "three blocks in bird's-eye view", ("model.bev_encoder.depth=3",)),
    Way("none", "none of them, coarse map", (*NO_HISTORY, *NO_BEV_AUGMENT, *NO_IMAGE_AUGMENT, *COARSE)),
    Way(
        "untrained",
        "untrained, all candidates",
        ("trainer.max_steps=1", "optim.lr=1e-12", "model.head.selection.score_threshold=0"),
        learns=False,
    ),
)


@dataclass(frozen=True)
class Plan:
    """What is trained and where.

    Attributes:
        folder: of all runs.
        scenes: folder of the drawn scenes.
        seeds: how many.
        steps: of a run; None for those of the recipe.
        words: further overrides.
    """

    folder: Path
    scenes: Path
    seeds: int
    steps: int | None = None
    words: tuple[str, ...] = ()

    def run(self, way: Way, seed: int) -> tuple[str, list[str]]:
        """Name and arguments of a run of `mmzoo train`."""
        steps = [] if self.steps is None or not way.learns else [f"trainer.max_steps={self.steps}"]
        place = f"data.train.folder='{self.scenes}'"
        return f"{way.name}_seed{seed}", ["fast_bev/synthetic", *way.words, *steps, place, f"seed={seed}", *self.words]

    def results(self, way: Way) -> list[dict[str, Any]]:
        """The results of a way's seeds, as far as they are finished."""
        paths = [self.folder / self.run(way, seed)[0] / "result.json" for seed in range(self.seeds)]
        return [json.loads(path.read_text()) for path in paths if path.exists()]


def draw(scenes: Path) -> None:
    """Draw the scenes of the recipe unless they are there: runs beside each other would all begin to."""
    command = [sys.executable, "-m", "multimodal_zoo", "data", "synth-nuscenes", str(scenes), "rate=2"]
    subprocess.run(command, check=True)


def train_all(plan: Plan, processes: int, ways: Sequence[Way]) -> None:
    """All ways and seeds, several at a time."""
    jobs = [plan.run(way, seed) for seed in range(plan.seeds) for way in ways]
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda job: train(*job, plan.folder), jobs))


def row_of(way: Way, results: Sequence[dict[str, Any]]) -> dict[str, str | float | int]:
    """One row of the table: the figures, with several seeds their means and the range."""
    row: dict[str, str | float | int] = {"way": way.title, "seeds": len(results)}
    for figure in FIGURES:
        values = [one["detection"][figure] for one in results if figure in one["detection"]]
        row[figure.replace("AP_", "AP, ")] = (values[0] if len(values) == 1 else spread(values)) if values else ""
    known = [one["cpu_seconds"] for one in results if one["cpu_seconds"] is not None]
    return {**row, "CPU s": round(statistics.mean(known)) if known else ""}


def report(plan: Plan, command: str) -> None:
    """The table; with further overrides it is printed and not kept."""
    rows = [row_of(way, results) for way in WAYS if (results := plan.results(way))]
    if rows:
        record("fast_bev_parts", rows, command, keep=not plan.words)


def main() -> None:
    """Do the runs that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/fast_bev_parts"))
    parser.add_argument("--scenes", type=Path, help="folder of drawn scenes; without it one is drawn beside the runs")
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], help="some of the ways alone")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of a run, in place of the recipe's")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument(
        "--words", nargs="*", default=[], help="further overrides, as of mmzoo train; then nothing is kept"
    )
    chosen = parser.parse_args()
    use_threads(1)
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    scenes = chosen.scenes.resolve() if chosen.scenes else folder / "scenes"
    plan = Plan(folder, scenes, chosen.seeds, chosen.steps, tuple(chosen.words))
    if not chosen.report:
        if not chosen.scenes:
            draw(scenes)
        train_all(plan, chosen.processes, [way for way in WAYS if not chosen.ways or way.name in chosen.ways])
    steps = "" if chosen.steps is None else f" --steps {chosen.steps}"
    report(plan, f"python benchmarks/fast_bev_parts.py --seeds {chosen.seeds}{steps}")


if __name__ == "__main__":
    main()
