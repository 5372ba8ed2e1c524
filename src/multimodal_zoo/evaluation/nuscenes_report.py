"""Tables and pictures of nuScenes' detection metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.nuscenes_boxes import ERRORS
from multimodal_zoo.evaluation.nuscenes_curves import RECALLS
from multimodal_zoo.evaluation.nuscenes_metrics import DetectionScores
from multimodal_zoo.evaluation.result import Picture, Table

#: What is measured -> words with the unit.
MEANINGS = {
    "NDS": "nuScenes detection score, from 0 to 1",
    "mAP": "mean average precision, from 0 to 1",
    "mATE": "translation, m",
    "mASE": "scale, 1 - overlap",
    "mAOE": "orientation, rad",
    "mAVE": "velocity, m/s",
    "mAAE": "attribute, 1 - accuracy",
}
#: Panels of classes beside each other.
ACROSS = 5


def metrics_of(scores: DetectionScores) -> dict[str, float]:
    """NDS, mAP, mean errors and each class's AP by name; errors that no class has are left out."""
    summary = scores.summary()
    metrics = {name: summary[name] for name in MEANINGS if not math.isnan(summary[name])}
    precision = scores.average_precision.mean(1).tolist()
    return {**metrics, **{f"AP_{name}": value for name, value in zip(scores.protocol.classes, precision, strict=True)}}


def tables_of(scores: DetectionScores, title: str) -> list[Table]:
    """The summary, and a row for each class.

    Args:
        scores: what was measured.
        title: what on, for the head of the tables.
    """
    rules = scores.protocol
    rows = [(name, MEANINGS[name], value) for name, value in metrics_of(scores).items() if name in MEANINGS]
    heads = ("class", "objects", "found", "AP", *(f"AP {metres:g} m" for metres in rules.distances), *ERRORS)
    classes = []
    for name, precision, errors in zip(rules.classes, scores.average_precision, scores.errors, strict=True):
        curves = scores.curves[name, rules.error_distance]
        written = ["-" if math.isnan(error) else error for error in errors.tolist()]
        counts = (name.replace("_", " "), curves.objects, curves.found)
        classes.append((*counts, float(precision.mean()), *precision.tolist(), *written))
    what = f"each class; found and errors within {rules.error_distance:g} m"
    return [Table(title, ("figure", "what it is", "value"), rows), Table(what, heads, classes)]


def recall_precision(scores: DetectionScores) -> Picture:
    """A panel for each class with a curve for each distance of matching."""
    rules = scores.protocol
    across = min(ACROSS, len(rules.classes))
    deep = -(-len(rules.classes) // across)
    figure = pictures.blank(2.6 * across, 2.5 * deep)
    lines = pictures.LINES * (1 + len(rules.distances) // len(pictures.LINES))
    for place, (name, precision) in enumerate(zip(rules.classes, scores.average_precision, strict=True)):
        axes = figure.add_subplot(deep, across, place + 1)
        for colour, metres in zip(lines, rules.distances, strict=False):
            axes.plot(RECALLS, scores.curves[name, metres].precision, color=colour, lw=1.4, label=f"{metres:g} m")
        title = f"{name.replace('_', ' ')}, AP {precision.mean():.3f}"
        axes.set_title(title, fontsize=9, color=pictures.INK, loc="left")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        pictures.plain_axes(axes, size=7)
        if place % across == 0:
            axes.set_ylabel("precision", fontsize=8, color=pictures.FAINT)
        if place >= len(rules.classes) - across:
            axes.set_xlabel("recall", fontsize=8, color=pictures.FAINT)
        if place == 0:
            axes.legend(fontsize=7, frameon=False, title="centres within", title_fontsize=7)
    return Picture(
        pictures.encode(figure), "Precision over recall of each class, for each distance within which a box is right"
    )


def headline_of(metrics: Mapping[str, float]) -> Sequence[str]:
    """The figures of the overview."""
    return tuple(name for name in MEANINGS if name in metrics)
