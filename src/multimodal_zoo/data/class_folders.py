"""Labelled files in one folder per class, or listed in a CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.media import Media, StillPictures
from multimodal_zoo.data.prompt_lists import listed_lines
from multimodal_zoo.data.skips import Skips, UnusableError, made_of
from multimodal_zoo.files import reading
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="class_folders")
class ClassFolders:
    """Pictures (or videos) with class labels from `SPLIT/CLASS/FILE`, or from `SPLIT.csv` with columns path and label.

    Classes are numbered in the order of their folder names, by value where all names are numbers. In the CSV a path is
    relative to the root, a label a class number or name. `classnames.txt` and
    `zeroshot_classification_templates.txt` may lie in the root; without the first a class is called as its folder.

    Args:
        root: the folder of one data set.
        split: folder of the classes, or stem of the CSV.
        media: how a file is read; None for still pictures.

    Raises:
        FileNotFoundError: neither folder nor CSV.
        ValueError: a CSV without these columns, another number of folders than of names, or an empty line among names.
    """

    def __init__(self, root: str, split: str = "test", media: Media | None = None) -> None:
        self.root = Path(root).expanduser()
        self.media = media or StillPictures()
        self.skips = Skips()
        self.title = self.root.name
        self.classnames = _lines(self.root / "classnames.txt")
        self.named = bool(self.classnames)
        self.templates = _lines(self.root / "zeroshot_classification_templates.txt")
        listed = self.root / f"{split}.csv"
        if listed.is_file():
            self.files = self._from_csv(listed)
        else:
            self.files = self._from_folders(self.root / split)
        self.numbers = {name: place for place, name in enumerate(self.classnames)}

    @classmethod
    def fits(cls, root: Path, split: str) -> bool:
        """Whether a folder has this layout."""
        folder = root / split
        return (root / f"{split}.csv").is_file() or (folder.is_dir() and any(p.is_dir() for p in folder.iterdir()))

    def _from_folders(self, folder: Path) -> list[tuple[Path, int | str]]:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder} with a folder per class, and no {folder}.csv")
        classes = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda path: path.name)
        if all(path.name.isdecimal() for path in classes):
            classes.sort(key=lambda path: int(path.name))
        self.classnames = self.classnames or [spoken(path.name) for path in classes]
        if len(classes) != len(self.classnames):  # the n-th folder would get another class's name
            names = f"{self.root}/classnames.txt names {len(self.classnames)} classes"
            raise ValueError(f"{names}, but {folder} has {len(classes)} folders; one folder, empty or not, per class")
        return [
            (path, number)
            for number, place in enumerate(classes)
            for path in sorted(place.rglob("*"))
            if path.suffix.lower().lstrip(".") in self.media.suffixes
        ]

    def _from_csv(self, path: Path) -> list[tuple[Path, int | str]]:
        with reading(path, "table of path and label in UTF-8"), path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            has = ", ".join(reader.fieldnames or ())
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path} needs the columns path and label; it has {has}")
            rows = [(self.root / row["path"], row["label"].strip()) for row in reader]
        if not self.classnames:
            labels = {label for _, label in rows}
            self.classnames = sorted(labels, key=int) if all(map(str.isdecimal, labels)) else sorted(labels)
        return [(place, int(label) if label.isdecimal() else label) for place, label in rows]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Document]:
        """Every usable file once.

        Raises:
            NoUsableSamplesError: there is none.
        """
        self.skips.take()
        yield from made_of(self.files, self._read, self.skips, str(self.root), "benchmark_root")
        self.skips.report(self.title)

    def _read(self, file: tuple[Path, int | str]) -> Document:
        path, written = file
        key = str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
        label = self.numbers.get(written, -1) if isinstance(written, str) else written
        if not 0 <= label < len(self.classnames):
            raise UnusableError("class that has no name", key)
        return Document([self.media.read(path, key), Text(self.classnames[label])], {"key": key, "label": label})


def spoken(name: str) -> str:
    """A folder name as words: `ApplyEyeMakeup` and `apply_eye_makeup` become `Apply Eye Makeup`, `apply eye makeup`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).strip()


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with reading(path, "text in UTF-8"):
        return listed_lines(path.read_text(encoding="utf-8"), str(path))
