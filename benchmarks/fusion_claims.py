"""CapsFusion's claim on the embedded emoji: a CLIP and an Emu that learn from raw, synthetic, mixed and fused captions.

    python benchmarks/fusion_claims.py                          # everything, from the captioner on
    python benchmarks/fusion_claims.py --sets raw synthetic mix rules names   # what needs no language model
    python benchmarks/fusion_claims.py --report                 # table and figure of what is finished

Finished stages and cells are skipped, so that the command can be repeated; a cell is one training and leaves one file.
The captions (`fusion_parts/texts.py`):

* raw: names and keywords shuffled with the noise of the web (`data/emoji_triples.py`);
* synthetic: a small Emu that learnt from half of the training emoji to name kinds and colours (`capsfusion/captioner`);
* mix: one or the other, drawn for each sample;
* rules, SmolLM2 as it is, SmolLM2 distilled (`capsfusion/emoji_distill`): `mmzoo fuse` with three engines; where an
  answer was rejected, the synthetic caption stands in;
* clean names: what a perfect annotator would write, the upper bound.

Each set trains the quickstart's CLIP (a narrower image tower) and then an Emu behind that tower, on Twemoji alone, at
three sizes. A pair is seen equally often at every size, as in the paper (one pass there), so that more data is more
computation. Measured on 500 emoji of training in its largest size (`seen`) and 360 of concepts of no training
(`unseen`): recall of clean names, and of sentences with name, kind and colours; CIDEr of what the Emu writes against
three sentences that have the name, and against two plain ones with kind and colours alone; names kept, the share of a
picture's specific names that the caption says: world knowledge. The sentences have the forms of the captioner's and of
the student's training, so that CIDEr favours what is written in these forms; names kept favours nobody.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _report import record, use_threads
from fusion_parts.cells import Budget, Cell, finish, results
from fusion_parts.sets import FUSED, SETS, Captions
from fusion_parts.texts import write_fused, write_synthetic

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
SHARES = (0.16, 0.4, 1.0)
#: Column -> model, part of its results, figure.
COLUMNS = {
    "seen names R@1": ("clip", "seen names", "R@1"),
    "seen names R@5": ("clip", "seen names", "R@5"),
    "seen sentences R@5": ("clip", "seen sentences", "R@5"),
    "unseen names R@1": ("clip", "unseen names", "R@1"),
    "unseen names R@5": ("clip", "unseen names", "R@5"),
    "unseen sentences R@5": ("clip", "unseen sentences", "R@5"),
    "CIDEr seen": ("emu", "seen", "cider"),
    "CIDEr unseen": ("emu", "unseen", "cider"),
    "plain CIDEr seen": ("emu", "seen", "plain_cider"),
    "plain CIDEr unseen": ("emu", "unseen", "plain_cider"),
    "names kept seen": ("emu", "seen", "names"),
    "names kept unseen": ("emu", "unseen", "names"),
}
DRAWN = ("seen names R@5", "seen sentences R@5", "CIDEr seen", "names kept seen")

Found = dict[Cell, dict[str, Any]]


def cells_of(sets: Sequence[str], shares: Sequence[float], models: Sequence[str], seeds: int) -> list[Cell]:
    """All trainings: seed by seed, the largest size first, so that what is cut off lacks the least."""
    return [
        Cell(name, share, model, seed)
        for seed in range(seeds)
        for model in models
        for share in sorted(shares, reverse=True)
        for name in sets
    ]


def point(found: Found, name: str, share: float, column: str) -> tuple[float, float] | None:
    """Mean over seeds of a figure and its standard error: that over pictures, or that over seeds if it is more."""
    model, part, figure = COLUMNS[column]
    known = [
        result[part][figure]
        for cell, result in found.items()
        if (cell.captions, cell.share, cell.model) == (name, share, model)
    ]
    if not known:
        return None
    means = [one["mean"] for one in known]
    error = max(one["error"] for one in known) / math.sqrt(len(known))
    if len(means) > 1:
        error = max(error, statistics.stdev(means) / math.sqrt(len(means)))
    return statistics.fmean(means), error


def shown(known: tuple[float, float] | None, column: str) -> str:
    """A figure with its standard error: CIDEr a hundredfold, as papers print it, shares in per cent."""
    if known is None:
        return ""
    scale = 1.0 if "CIDEr" in column else 100.0
    return f"{scale * known[0]:.1f} ± {scale * known[1]:.1f}"


def rows_of(found: Found) -> list[dict[str, str | float | int]]:
    """The table: set by set, from the smallest to the largest size."""
    sizes = {cell.share: result["pictures"] for cell, result in found.items()}
    rows: list[dict[str, str | float | int]] = []
    for name, title in SETS.items():
        for share in sorted(sizes):
            points = {column: point(found, name, share, column) for column in COLUMNS}
            if any(points.values()):
                known = [cell.model for cell in found if (cell.captions, cell.share) == (name, share)]
                figures = {column: shown(one, column) for column, one in points.items()}
                seeds = f"{known.count('clip')} / {known.count('emu')}"
                rows.append({"captions": title, "pairs": sizes[share], **figures, "seeds (CLIP / Emu)": seeds})
    return rows


def report(found: Found, command: str) -> None:
    """Table and figure of what is finished."""
    if found:
        record("fusion_claims", rows_of(found), command)
        draw(found)


def draw(found: Found) -> None:
    """Figures over the number of pairs, a line for each set of captions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = {cell.share: result["pictures"] for cell, result in found.items()}
    figure, axes = plt.subplots(1, len(DRAWN), figsize=(13, 3.8), layout="constrained")
    for axis, column in zip(axes, DRAWN, strict=True):
        scale = 1.0 if "CIDEr" in column else 100.0
        for number, (name, title) in enumerate(SETS.items()):
            line = [(sizes[s], known) for s in sorted(sizes) if (known := point(found, name, s, column)) is not None]
            if line:
                means, errors = zip(*(known for _, known in line), strict=True)
                style = {"color": "grey", "linestyle": "--"} if name == "names" else {"color": f"C{number}"}
                axis.errorbar(
                    [size for size, _ in line],
                    [scale * mean for mean in means],
                    [scale * error for error in errors],
                    marker="o",
                    markersize=4,
                    capsize=2,
                    label=title,
                    **style,
                )
        axis.set(xscale="log", title=column, xlabel="pairs")
        if "names" in column:  # clean names lie far above the rest
            axis.set(yscale="log", ylim=(0.4, 100.0))
            axis.set_yticks((0.5, 1, 2, 5, 10, 20, 50), ("0.5", "1", "2", "5", "10", "20", "50"))
        axis.set_xticks(sorted(sizes.values()), [str(size) for size in sorted(sizes.values())])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "fusion_claims.png", dpi=100)
    plt.close(figure)


def make_captions(captions: Captions, sets: Sequence[str]) -> None:
    """All sets that are asked for, each stage unless its file is there."""
    captions.write_raw()
    if set(sets) - {"raw", "names"}:
        write_synthetic(captions)
        captions.write_pairs()
    for name in FUSED:
        if name in sets:
            write_fused(name, captions)


def main() -> None:
    """Do what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/fusion"))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=["clip", "emu"], default=["clip", "emu"])
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="of the training concepts")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--clip-passes", type=float, default=20.0, help="over the pairs of a size")
    parser.add_argument("--emu-passes", type=float, default=10.0)
    parser.add_argument("--report", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    use_threads(1)
    folder: Path = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    captions = Captions(folder / "captions")
    if not chosen.report:
        make_captions(captions, chosen.sets)
        budget = Budget(chosen.clip_passes, chosen.emu_passes)
        for cell in cells_of(chosen.sets, chosen.shares, chosen.models, chosen.seeds):
            finish(cell, captions, folder, budget)
    everything = cells_of(list(SETS), chosen.shares, ["clip", "emu"], chosen.seeds)
    words = f"--seeds {chosen.seeds} --clip-passes {chosen.clip_passes:g} --emu-passes {chosen.emu_passes:g}"
    report(results(folder, everything), f"python benchmarks/fusion_claims.py {words}")


if __name__ == "__main__":
    main()
