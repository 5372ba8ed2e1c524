"""`python -m sigmoid_sheets.shapes FOLDER`: two sheets of coloured shapes; the second has combinations of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

CELL, COLUMNS = 32, 6
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")
#: Corners in a cell, or None for what is round.
SHAPES = {
    "circle": None,
    "square": [(7, 7), (25, 7), (25, 25), (7, 25)],
    "triangle": [(16, 6), (27, 25), (5, 25)],
    "diamond": [(16, 3), (25, 16), (16, 29), (7, 16)],
    "arrow": [(4, 12), (16, 12), (16, 5), (28, 16), (16, 27), (16, 20), (4, 20)],
    "cross": [(12, 5), (20, 5), (20, 12), (27, 12), (27, 20), (20, 20), (20, 27), (12, 27), (12, 20), (5, 20), (5, 12),
              (12, 12)],
}  # fmt: skip


def draw(folder: Path) -> None:
    """Write `train` and `unseen`: a quarter of the combinations of colour and shape is only in the second."""
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    folder.mkdir(parents=True, exist_ok=True)
    for split, wanted in (("train", False), ("unseen", True)):
        chosen = [(c, s) for i, (c, s) in enumerate(pairs) if ((i // len(SHAPES) + i) % 4 == 0) is wanted]
        sheet = Image.new("RGB", (CELL * COLUMNS, CELL * -(-len(chosen) // COLUMNS)), "grey")
        for number, (colour, shape) in enumerate(chosen):
            cell = Image.new("RGB", (CELL, CELL), "grey")
            pen = ImageDraw.Draw(cell)
            pen.polygon(SHAPES[shape], fill=colour) if SHAPES[shape] else pen.ellipse((6, 6, 26, 26), fill=colour)
            sheet.paste(cell, (CELL * (number % COLUMNS), CELL * (number // COLUMNS)))
        sheet.save(folder / f"{split}.png")
        (folder / f"{split}.txt").write_text("".join(f"a {colour} {shape}\n" for colour, shape in chosen))


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
