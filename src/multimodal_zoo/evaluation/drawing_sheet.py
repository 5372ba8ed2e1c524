"""A sheet of drawings: a row for each prompt, columns of pictures with a remark below each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_zoo.evaluation.pictures import FAINT, INK, canvas, encode, place_picture, wrap

#: Inches of the prompt's column, of a row and of the head.
LABEL, ROW, HEAD = 2.2, 1.14, 0.3


def drawing_sheet(prompts: Sequence[str], columns: Mapping[str, Sequence[tuple[Any, str]]]) -> bytes:
    """Prompts and what belongs to them, as PNG.

    Args:
        prompts: one per row.
        columns: title -> a picture (PIL or uint8 array) and a remark for each row.
    """
    axes = canvas(LABEL + len(columns), HEAD + len(prompts) * ROW)
    for column, (title, cells) in enumerate(columns.items()):
        left = LABEL + column
        axes.text(left + 0.5, 0.1, wrap(title, 16, lines=2), ha="center", va="center", fontsize=7, color=INK)
        for row, (picture, remark) in enumerate(cells):
            top = HEAD + row * ROW
            place_picture(axes, picture, left, top, "miss")
            axes.text(left + 0.5, top + 1.01, remark, ha="center", va="center", fontsize=6.5, color=FAINT)
    for row, prompt in enumerate(prompts):
        middle = HEAD + row * ROW + 0.5
        axes.text(LABEL - 0.12, middle, wrap(prompt, 22), ha="right", va="center", fontsize=8.5, color=INK)
    return encode(axes.figure)
