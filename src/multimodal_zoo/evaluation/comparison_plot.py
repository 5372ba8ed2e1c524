"""The plot of a comparison: a panel for each figure, with dots by method, or lines over a number that was varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal_zoo.evaluation.comparison_families import Family
from multimodal_zoo.evaluation.estimate import Estimate
from multimodal_zoo.evaluation.methods import Method, numeric
from multimodal_zoo.evaluation.pictures import DRAWN, FAINT, INK, LINES, blank, drawable, encode, plain_axes, shorten
from multimodal_zoo.evaluation.result import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Panels beside each other.
ACROSS = 3
#: Panels of one picture.
PANELS = 18


def plot(families: Sequence[Family], by: Sequence[str]) -> Picture:
    """A PNG with a panel for each evaluation's figure.

    Args:
        families: what is compared; a panel has the methods of its figure's family.
        by: keys of the methods' values; when those of the last one are numbers, they are the horizontal axis and the
            other keys make the lines.
    """
    methods = [method for family in families for method in family.methods]
    across = bool(by) and numeric(m.values[-1] for m in methods) and len({m.values[-1] for m in methods}) > 1
    panels = [(family, *column) for family in families for column in family.columns]
    shown = panels[:PANELS]
    wide = min(ACROSS, len(shown))
    deep = -(-len(shown) // wide)
    height = 2.7 if across else 0.9 + 0.3 * max(len(family.methods) for family in families)
    figure = blank(4.2 * wide, height * deep + 0.4)
    for place, (family, evaluation, name) in enumerate(shown):
        axes = figure.add_subplot(deep, wide, place + 1)
        if across:
            _lines(axes, family.methods, evaluation, name, by[-1])
        else:
            named = place % wide == 0 or shown[place - 1][0] is not family
            _dots(axes, family.methods, evaluation, name, named)
        axes.set_title(shorten(f"{evaluation}, {name}".replace("_", " "), 46), fontsize=9, color=INK, loc="left")
        plain_axes(axes, ink=INK)
    what = f"over {by[-1]}" if across else "by method"
    more = f"; the first {PANELS} of {len(panels)} figures" if len(panels) > PANELS else ""
    caption = f"Each figure {what}: mean and 95 % interval, and the runs themselves as faint dots{more}"
    return Picture(encode(figure), caption)


def _dots(axes: Axes, methods: Sequence[Method], evaluation: str, name: str, named: bool) -> None:
    for place, method in enumerate(methods):
        found = method.estimate(evaluation, name)
        if found is None:
            axes.text(
                0.01, place, "missing", transform=axes.get_yaxis_transform(), fontsize=7, va="center", color=FAINT
            )
            continue
        colour = LINES[place % len(LINES)]
        axes.plot(drawable(found.values), [place] * len(found.values), "o", color=colour, alpha=0.3, ms=4, lw=0)
        axes.errorbar(drawable([found.mean]), place, xerr=_reach(found), fmt="o", color=colour, ms=6, capsize=3, lw=1.4)
    labels = [shorten(method.name, 30) for method in methods] if named else [""] * len(methods)
    axes.set_yticks(range(len(methods)), labels, fontsize=8)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)


def _lines(axes: Axes, methods: Sequence[Method], evaluation: str, name: str, key: str) -> None:
    lines: dict[tuple[object, ...], list[Method]] = {}
    for method in methods:
        lines.setdefault(method.values[:-1], []).append(method)
    for place, (values, members) in enumerate(lines.items()):
        members = sorted(members, key=lambda method: method.values[-1])
        found = [(method.values[-1], e) for method in members if (e := method.estimate(evaluation, name)) is not None]
        colour = LINES[place % len(LINES)]
        for x, one in found:
            axes.plot([x] * len(one.values), drawable(one.values), "o", color=colour, alpha=0.3, ms=3, lw=0)
            axes.errorbar(x, drawable([one.mean]), yerr=_reach(one), color=colour, capsize=2, lw=1)
        label = shorten(", ".join(map(str, values)), 30) or None
        means = drawable([one.mean for _, one in found])
        axes.plot([x for x, _ in found], means, "o-", color=colour, ms=4, lw=1.4, label=label)
        if label:
            axes.legend(fontsize=7, frameon=False)
    axes.set_xlabel(shorten(key.rpartition(".")[2], 40), fontsize=8, color=FAINT)


def _reach(found: Estimate) -> list[list[float]] | None:
    """How far the interval goes below and above the mean."""
    if found.low is None or found.high is None or not found.high - found.low <= DRAWN:
        return None
    return [[found.mean - found.low], [found.high - found.mean]]
