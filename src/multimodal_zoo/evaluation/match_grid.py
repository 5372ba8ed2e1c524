"""A picture of what a search found: a row for each query, its matches from the left, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from multimodal_zoo.evaluation.pictures import FAINT, GRADES, INK, canvas, encode, place_picture, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches from one row to the next, and for the query at its left.
ROW, LABEL = 1.25, 2.9


class Tile(NamedTuple):
    """One match.

    Attributes:
        picture: PIL picture or uint8 array; None for a tile that shows the caption.
        caption: the text.
        note: what stands below, a score say.
    """

    picture: Any
    caption: str
    note: str


def match_grid(queries: Sequence[Any], found: Sequence[Sequence[Tile]]) -> bytes:
    """A PNG of queries and what was found for each.

    Args:
        queries: a text or a picture (PIL or uint8 array) for each row.
        found: the matches of each row.
    """
    axes = canvas(LABEL + max(len(row) for row in found), len(queries) * ROW)
    for number, (query, row) in enumerate(zip(queries, found, strict=True)):
        top = number * ROW
        if isinstance(query, str):
            axes.text(LABEL - 0.15, top + 0.5, wrap(query, 26), ha="right", va="center", fontsize=9, color=INK)
        else:
            place_picture(axes, query, LABEL - 1.2, top, "related")
        for column, tile in enumerate(row):
            _draw(axes, tile, LABEL + column, top)
    return encode(axes.figure)


def _draw(axes: Axes, tile: Tile, left: float, top: float) -> None:
    if tile.picture is not None:
        place_picture(axes, tile.picture, left, top, "miss")
    else:
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle((left + 0.07, top + 0.07), 0.86, 0.86, facecolor="#f2f4f7", edgecolor=GRADES["miss"]))
        axes.text(
            left + 0.5, top + 0.5, wrap(tile.caption, 15, lines=6), ha="center", va="center", fontsize=6, color=INK
        )
    axes.text(left + 0.5, top + 1.02, tile.note, ha="center", va="center", fontsize=6.5, color=FAINT)
