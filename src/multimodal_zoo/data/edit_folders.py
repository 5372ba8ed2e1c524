"""Edits of pictures in InstructPix2Pix's published layout: a picture, an instruction, the changed picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.pictures import open_picture
from multimodal_zoo.data.skips import Skips, UnusableError, inside, usable
from multimodal_zoo.files import parsed
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="edit_folders")
class EditFolders:
    """Edits (arXiv 2211.09800) in folders of `prompt.json` and pictures `SEED_0.jpg`, `SEED_1.jpg`.

    `seeds.json` lists the name of each folder and the seeds of the pairs in it; each pair is one document.

    Args:
        folder: holds `seeds.json` and the folders.

    Raises:
        FileNotFoundError: no such list.
        ValueError: a list of another form, or an empty one.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser().resolve()
        path = self.folder / "seeds.json"
        if not path.is_file():
            raise FileNotFoundError(f"data.train.folder: no {path.name} in {folder!r}")
        try:
            listed: Any = parsed(path.read_text(encoding="utf-8"))
            self.pairs = [(str(name), str(seed)) for name, seeds in listed for seed in seeds]
        except (TypeError, ValueError) as error:
            raise ValueError(f"data.train.folder: {path.name} is no list of names and seeds: {error}") from error
        if not self.pairs:
            raise ValueError(f"data.train.folder: {path.name} lists no pair")
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Document:
        """One edit: the picture, the instruction, the changed picture, which are read as far as their headers.

        Raises:
            IndexError: no such pair.
            UnusableError: a missing or broken file, or a path outside of the folder.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"edit_folders has {len(self)} pairs, no number {index}")
        name, seed = self.pairs[index]
        key = f"{name}/{seed}"
        place = inside(self.folder, name, key)
        files = [inside(place, f"{seed}_{one}.jpg", key) for one in (0, 1)]
        try:
            told = str(parsed((place / "prompt.json").read_text(encoding="utf-8"))["edit"]).strip()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnusableError("broken record", key) from error
        if missing := [file.name for file in files if not file.is_file()]:
            raise UnusableError("missing image file", f"{key}: {missing[0]}")
        before, after = (Image(open_picture(file, f"{key}: {file.name}")) for file in files)
        return Document([before, Text(told), after], {"key": key})

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
