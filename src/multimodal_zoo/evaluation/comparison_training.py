"""The trainings of a comparison: which runs logged the same figures, what they ended with, and their curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multimodal_zoo.evaluation.comparison_families import Family, connected
from multimodal_zoo.evaluation.estimate import Estimate
from multimodal_zoo.evaluation.history import PANELS, telling
from multimodal_zoo.evaluation.methods import Method
from multimodal_zoo.evaluation.pictures import (
    FAINT,
    INK,
    LINES,
    blank,
    drawable,
    encode,
    is_noisy,
    plain_axes,
    shorten,
    smooth,
)
from multimodal_zoo.evaluation.result import Cell, Picture, Table
from multimodal_zoo.evaluation.runs import TRAINING, Run, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Columns that every training logs, whatever it trains.
COMMON = ("loss", "loss_weight", "learning_rate", "gradient_norm", "samples_per_second", "logit_scale")
#: Columns of an overview.
SHOWN = 4
#: Methods that a legend names.
NAMED = 12
#: How lines of one colour are told apart.
DASHES = ("-", "--", ":", "-.")
#: Characters of a name in a legend.
LABEL = 44
#: A method without a figure.
ABSENT = "-"


@dataclass(frozen=True)
class Trainings:
    """Methods whose trainings logged figures that can be compared.

    Attributes:
        title: their objectives.
        methods: each with those of its runs that logged something.
        columns: what they logged, the most telling first.
    """

    title: str
    methods: tuple[Method, ...]
    columns: tuple[str, ...]

    def family(self) -> Family:
        """What an overview shows of them where nothing was evaluated: validation before training."""
        first = sorted(self.columns, key=lambda column: not column.startswith("validation/"))[:SHOWN]
        return Family(self.methods, tuple((TRAINING, column) for column in first))

    def table(self) -> Table:
        """The last logged values, means over runs; the longer side of the table goes down."""
        title = f"{self.title}: last logged values"
        cells = {
            (method.name, column): _written(method.estimate(TRAINING, column))
            for method in self.methods
            for column in self.columns
        }
        names = [method.name for method in self.methods]
        if len(names) > len(self.columns):
            by_method: list[Sequence[Cell]] = [(name, *(cells[name, c] for c in self.columns)) for name in names]
            return Table(title, ("method", *self.columns), by_method)
        by_column: list[Sequence[Cell]] = [(c, *(cells[name, c] for name in names)) for c in self.columns]
        return Table(title, ("figure", *names), by_column)

    def picture(self) -> Picture:
        """Curves over steps: a chart for each of the most telling columns, a line for each run."""
        moving = [column for column in self.columns if _moves(self.methods, column)]
        shown = (moving or self.columns)[:PANELS]
        across = min(3, len(shown))
        deep = -(-len(shown) // across)
        named = self.methods[:NAMED]
        figure = blank(4.0 * across, 2.6 * deep + 0.24 * -(-len(named) // across))
        for place, column in enumerate(shown):
            axes = figure.add_subplot(deep, across, place + 1)
            for number, method in enumerate(self.methods):
                for run in method.runs:
                    _line(axes, run, column, LINES[number % len(LINES)], DASHES[number // len(LINES) % len(DASHES)])
            _plain(axes, column)
        _legend(figure, named, across)
        more = f"; {len(self.methods) - NAMED} more methods are not named" if len(self.methods) > NAMED else ""
        caption = f"{self.title}: curves over steps, a line for each run, bold: running mean{more}"
        if ", " in self.title:
            caption += ". Losses of several objectives cannot be compared"
        return Picture(encode(figure), caption)


def _written(found: Estimate | None) -> str:
    """A logged value with four digits: learning rates are too small for a fixed number of decimals."""
    if found is None:
        return ABSENT
    spread = "" if found.high is None else f" ± {found.high - found.mean:.4g}"
    return f"{found.mean:.4g}{spread}"


def trainings(methods: Sequence[Method]) -> list[Trainings]:
    """Methods by what their trainings logged.

    Methods belong together if they have a kind of model, an objective, or a column in common beside those that every
    training has.
    """
    logged = [replace(m, runs=runs) for m in methods if (runs := tuple(run for run in m.runs if run.history))]
    marked = [(method, {mark for run in method.runs for mark in _marks(run)}) for method in logged]
    return [Trainings(_title(members), tuple(members), _columns(members)) for members, _ in connected(marked)]


def _marks(run: Run) -> set[str]:
    own = {f"column {name}" for name in run.history if name.rpartition("/")[2] not in COMMON}
    model = select(run.config, "model.type") or select(run.about, "model.type")
    return own | {f"objective {_objective(run)}"} | ({f"model {model}"} if model else set())


def _objective(run: Run) -> str:
    return str(select(run.config, "objective.type") or "training")


def _title(methods: Sequence[Method]) -> str:
    return ", ".join(dict.fromkeys(_objective(run).replace("_", " ") for method in methods for run in method.runs))


def _columns(methods: Sequence[Method]) -> tuple[str, ...]:
    names = {name for method in methods for run in method.runs for name in run.history}
    return tuple(sorted(names, key=telling))


def _moves(methods: Sequence[Method], column: str) -> bool:
    """Whether a column has more than one value in any run."""
    lines = [run.history[column][1] for method in methods for run in method.runs if column in run.history]
    return any(len(set(values)) > 1 for values in lines)


def _line(axes: Axes, run: Run, column: str, colour: str, dashes: str) -> None:
    if column not in run.history:
        return
    steps, values = run.history[column][0], drawable(run.history[column][1])
    noisy = is_noisy(values)
    marker = "o" if len(values) < 15 else None
    alpha = 0.2 if noisy else 0.8
    axes.plot(steps, values, color=colour, ls=dashes, lw=0.8 if noisy else 1.2, alpha=alpha, marker=marker, ms=3)
    if noisy:
        axes.plot(steps, smooth(values), color=colour, ls=dashes, lw=1.5)


def _plain(axes: Axes, column: str) -> None:
    axes.set_title(shorten(column.replace("_", " "), 40), fontsize=9, color=INK, loc="left")
    axes.set_xlabel("step", fontsize=8, color=FAINT)
    plain_axes(axes)


def _legend(figure: Figure, methods: Sequence[Method], columns: int) -> None:
    from matplotlib.lines import Line2D

    looks = [(LINES[n % len(LINES)], DASHES[n // len(LINES) % len(DASHES)]) for n in range(len(methods))]
    handles = [Line2D([], [], color=colour, ls=dashes) for colour, dashes in looks]
    labels = [_label(method.name) for method in methods]
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, fontsize=8, frameon=False)


def _label(name: str) -> str:
    """A name that fits, with its end: the beginnings of names are often alike."""
    return shorten(name if len(name) <= LABEL else f"{name[: LABEL // 2]}...{name[-LABEL // 2 + 3 :]}", LABEL)
