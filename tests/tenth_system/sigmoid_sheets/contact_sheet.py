"""Contact sheets: one picture of equal cells and a text file with one caption a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal_zoo import DATASETS
from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.skips import Skips, UnusableError, usable


@DATASETS.register_module(name="contact_sheet")
class ContactSheet:
    """The pairs of `FOLDER/SPLIT.png` and `FOLDER/SPLIT.txt`, cell by cell, row by row.

    Args:
        folder: where the sheets lie.
        split: which of them.
        cell: side of a cell, in pixels.
    """

    def __init__(self, folder: str, split: str, cell: int) -> None:
        place = Path(folder) / split
        self.name, self.cell, self.skips = split, cell, Skips()
        with Image.open(place.with_suffix(".png")) as sheet:
            self.pixels = np.asarray(sheet.convert("RGB"))
        self.captions = place.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        rows, columns = self.pixels.shape[0] // cell, self.pixels.shape[1] // cell
        if len(self.captions) > rows * columns:
            message = f"{split}.png has {rows * columns} cells of {cell} pixels, {split}.txt {len(self.captions)} lines"
            raise ValueError(f"{message}; change data.train.cell")
        self.columns = columns

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Document:
        """One cell with its caption; a line without words is left out and counted."""
        key = f"{self.name}-{index}"
        if not self.captions[index].strip():
            raise UnusableError("missing caption", key)
        top, left = (self.cell * place for place in divmod(index, self.columns))
        picture = self.pixels[top : top + self.cell, left : left + self.cell]
        return pair(picture, self.captions[index].strip(), {"key": key})

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
