"""Pictures of an evaluation as PNG bytes: retrieval grids, confusion matrices, curves, sample sheets.

Drawn with matplotlib's figure objects alone: no global state, no window, no change of the caller's back end.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

#: How a result relates to its query -> colour of its frame.
GRADES = {"hit": "#1a9850", "related": "#f0a30a", "miss": "#c9ced6"}
INK = "#1f2430"
FAINT = "#8a93a3"
#: Largest figure that is drawn: axes cannot be made for numbers near the end of their range.
DRAWN = 1e100
LINES = ("#2f6fde", "#d1495b", "#2a9d8f", "#8d5fd3", "#e08e00", "#5c6b7a")


def text_queries(queries: Sequence[str], found: Sequence[Sequence[Any]], grades: Sequence[Sequence[str]]) -> bytes:
    """Rows of a query text and the pictures found for it, best first, framed by grade.

    Args:
        queries: one text per row.
        found: the pictures of each row (PIL or uint8 arrays).
        grades: a key of `GRADES` for each picture.
    """
    label = 2.9
    axes = canvas(label + max(len(row) for row in found), len(queries))
    for row, query in enumerate(queries):
        axes.text(label - 0.15, row + 0.5, wrap(query, 26), ha="right", va="center", fontsize=9, color=INK)
        for column, (picture, grade) in enumerate(zip(found[row], grades[row], strict=True)):
            place_picture(axes, picture, label + column, row, grade)
    return encode(axes.figure)


def image_queries(queries: Sequence[Any], found: Sequence[Sequence[str]], grades: Sequence[Sequence[str]]) -> bytes:
    """Rows of a query picture and the texts found for it, best first, coloured by grade.

    Args:
        queries: one picture per row (PIL or uint8 arrays).
        found: the texts of each row.
        grades: a key of `GRADES` for each text.
    """
    from matplotlib.patches import Rectangle

    longest = max(len(shorten(text, 80)) for row in found for text in row)
    axes = canvas(1.6 + 0.08 * longest, len(queries) * 1.25)
    for row, query in enumerate(queries):
        top = row * 1.25
        place_picture(axes, query, 0.0, top + 0.125, "miss")
        step = 1.15 / len(found[row])
        for place, (text, grade) in enumerate(zip(found[row], grades[row], strict=True)):
            colour, height = GRADES[grade], top + 0.05 + (place + 0.5) * step
            axes.add_patch(Rectangle((1.2, height - 0.38 * step), 0.07, 0.76 * step, color=colour, lw=0))
            weight, ink = ("bold" if grade == "hit" else "normal"), (INK if grade == "miss" else colour)
            axes.text(1.36, height, shorten(text, 80), va="center", fontsize=8.5, color=ink, weight=weight)
    return encode(axes.figure)


def confusion_matrix(counts: Tensor, names: Sequence[str]) -> bytes:
    """Shares of each true class (row) over the predicted classes (columns); numbers up to 20 classes.

    Args:
        counts: (classes, classes) rows are the truth.
        names: one per class; left out above 60 classes, where nobody could read them.
    """
    shares = (counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    size = float(np.clip(2.2 + 0.42 * len(names), 4.2, 13.0))
    figure = blank(size + 1.1, size)
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    if len(names) <= 60:
        places, font = range(len(names)), 9 if len(names) <= 20 else 6
        labels = [shorten(name, 24) for name in names]
        axes.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=font)
        axes.set_yticks(places, labels, fontsize=font)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if len(names) <= 20:
        for row, column in np.ndindex(shares.shape):
            if counts[row, column]:
                ink = "white" if shares[row, column] > 0.5 else INK
                share = f"{100 * shares[row, column]:.0f}"
                axes.text(column, row, share, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7, label="share of the true class")
    for drawn_axes in (axes, bar.ax):
        drawn_axes.tick_params(length=0, colors=INK)
    for spine in [*axes.spines.values(), bar.outline]:
        spine.set_visible(False)
    return encode(figure)


def curves(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> bytes:
    """Small charts over training steps, with fixed margins: matplotlib's search for them takes as long as the rest.

    Args:
        panels: title of a chart -> name of a line -> (steps, values).
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 3.7 * columns, 2.5 * rows
    figure = blank(width, height, layout="none")
    figure.subplots_adjust(
        0.6 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.4 / height, wspace=0.75 / 2.95, hspace=0.9 / 1.6
    )
    for place, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        for colour, (name, (steps, values)) in zip(LINES * (1 + len(lines) // len(LINES)), lines.items(), strict=False):
            line = drawable(values)
            marker = "o" if len(line) < 15 else None
            noisy = is_noisy(line)
            axes.plot(steps, line, color=colour, lw=1, alpha=0.3 if noisy else 1.0, marker=marker, ms=3,
                      label=None if noisy else name)  # fmt: skip
            if noisy:
                axes.plot(steps, smooth(line), color=colour, lw=1.6, label=name)
        axes.set_title(title.replace("_", " "), fontsize=10, color=INK, loc="left")
        axes.set_xlabel("step", fontsize=8, color=FAINT)
        axes.locator_params(nbins=5)
        plain_axes(axes)
        if len(lines) > 1:
            axes.legend(fontsize=7, frameon=False)
    return encode(figure, bbox_inches=None)


def plain_axes(axes: Axes, size: float = 8, ink: str = FAINT) -> None:
    """Labels of a size and a faint grid, without a frame or ticks."""
    axes.tick_params(axis="both", labelsize=size, colors=ink, length=0)
    axes.grid(color="#e6e9ee", lw=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def drawable(values: Sequence[float]) -> np.ndarray:
    """The values of a line with gaps (NaN) where no axis could show one: float64 (values,)."""
    line = np.asarray(values, dtype=float)
    return np.where(np.abs(line) <= DRAWN, line, np.nan)


def sheet(pictures: Sequence[Any], titles: Sequence[str], columns: int = 8) -> bytes:
    """Pictures with a title each, in a grid: what a batch looks like.

    Args:
        pictures: PIL pictures or uint8 arrays (height, width, 3 or 4).
        titles: one per picture.
        columns: pictures in a row.
    """
    columns = min(columns, len(pictures))
    axes = canvas(columns * 1.15, -(-len(pictures) // columns) * 1.4)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left, top = (place % columns) * 1.15, (place // columns) * 1.4
        place_picture(axes, picture, left, top, "miss")
        axes.text(left + 0.5, top + 1.04, wrap(title, 20, lines=2), ha="center", va="top", fontsize=6.5, color=INK)
    return encode(axes.figure)


def is_noisy(values: Sequence[float] | np.ndarray) -> bool:
    """Whether a line jumps so much from point to point that only its running mean can be read."""
    line = np.asarray(values, dtype=float)
    line = line[np.isfinite(line)]
    return len(line) > 60 and float(np.abs(np.diff(line, 2)).mean()) > 0.004 * float(np.ptp(line))


def smooth(values: Sequence[float] | np.ndarray, span: int = 25) -> np.ndarray:
    """Centred running mean over about `span` values, fewer at the ends and beside gaps: (values,), NaN in long gaps."""
    line = np.asarray(values, dtype=float)
    known = np.isfinite(line)
    total, count = (np.cumsum(np.insert(one, 0, 0.0)) for one in (np.where(known, line, 0.0), known.astype(float)))
    start = np.maximum(np.arange(len(line)) - span // 2, 0)
    stop = np.minimum(np.arange(len(line)) + span // 2 + 1, len(line))
    inside = count[stop] - count[start]
    return np.divide(total[stop] - total[start], inside, out=np.full(len(line), np.nan), where=inside > 0)


def shorten(text: str, length: int) -> str:
    """The beginning of a text that is too long, and glyphs that the drawing font has."""
    drawable = "".join(c if ord(c) < 0x2190 and c.isprintable() else "?" for c in " ".join(text.split()))
    short = drawable if len(drawable) <= length else drawable[: length - 1].rstrip() + "…"
    return short.replace("$", r"\$")  # a bare pair of them would be read as a formula


def encode(figure: Figure, bbox_inches: str | None = "tight") -> bytes:
    """A figure as PNG, without the white around what is drawn; `bbox_inches=None` keeps its size."""
    buffer = io.BytesIO()
    look: dict[str, Any] = {"dpi": 120, "facecolor": "white", "bbox_inches": bbox_inches, "pad_inches": 0.1}
    figure.savefig(buffer, format="png", metadata={"Software": None}, **look)
    return buffer.getvalue()


def pixels(picture: Any) -> np.ndarray:
    """A PIL picture or array on white: uint8 (height, width, 3)."""
    array = np.asarray(picture.convert("RGBA") if hasattr(picture, "convert") else picture)
    if array.ndim == 2:
        array = np.stack([array] * 3, axis=-1)
    if array.shape[-1] == 3:
        return array
    alpha = array[..., 3:].astype(np.float32) / 255
    return (array[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def blank(width: float, height: float, layout: str = "constrained") -> Figure:
    """An empty figure of so many inches, and who sets its margins: a layout engine of matplotlib, or `none`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def canvas(width: float, height: float) -> Axes:
    """One drawing area in inches from the top left: a grid of real axes would take seconds to lay out."""
    figure = blank(width + 0.2, height + 0.2)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-0.1, width + 0.1)
    axes.set_ylim(height + 0.1, -0.1)
    axes.axis("off")
    return axes


def place_picture(axes: Axes, picture: Any, left: float, top: float, grade: str) -> None:
    """A picture in a cell of one inch, its aspect kept, with a frame."""
    from matplotlib.patches import Rectangle

    array = pixels(picture)
    height, width = (side / max(array.shape[:2]) * 0.86 for side in array.shape[:2])
    x, y = left + (1 - width) / 2, top + (1 - height) / 2
    axes.imshow(array, extent=(x, x + width, y + height, y), interpolation="antialiased", aspect="auto")
    thick = 0.8 if grade == "miss" else 3.0
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=GRADES[grade], lw=thick))


def wrap(text: str, width: int, lines: int = 4) -> str:
    """The beginning of a text in lines of at most `width` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(shorten(text, width * lines), width)[:lines])
