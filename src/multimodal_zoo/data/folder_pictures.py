"""Every picture below a folder, with the text file beside it as caption where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multimodal_zoo.data.documents import Document, Image, pair
from multimodal_zoo.data.pictures import PICTURE_SUFFIXES, open_picture
from multimodal_zoo.data.shards import decode_text
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.registry import DATASETS

#: As the names of files end.
SUFFIXES = tuple(f".{suffix}" for suffix in PICTURE_SUFFIXES)


def pictures_below(folder: Path) -> Iterator[str]:
    """Paths of all pictures relative to the folder, sorted folder by folder; hidden files and folders are left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name).relative_to(folder).as_posix()


@DATASETS.register_module(name="folder_pictures")
class FolderPictures:
    """Pictures of a folder and its subfolders in the order of their names; `a.txt` is the caption of `a.jpg`.

    Args:
        folder: where the pictures are.
        need_caption: whether a picture without a caption is unusable; else its document has no text.

    Raises:
        FileNotFoundError: no such folder, or no picture in it.
    """

    def __init__(self, folder: str, need_caption: bool = True) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.need_caption = need_caption
        self.skips = Skips()
        self.paths = list(pictures_below(self.folder))
        if not self.paths:
            raise FileNotFoundError(
                f"data.train.folder: no picture ({', '.join(PICTURE_SUFFIXES)}) below {str(self.folder)!r}"
            )

    def facts(self, index: int) -> dict[str, Any]:
        """What `self[index].meta` is, without opening the picture."""
        return {"key": self.paths[index]}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Document:
        """One picture, with its caption.

        Raises:
            UnusableError: the picture is missing or broken, or has no caption and needs one.
        """
        path = self.paths[index]
        text = self._caption(path)
        if not text and self.need_caption:
            raise UnusableError("missing caption", path)
        image = open_picture(self.folder / path, key=path)
        return pair(image, text, self.facts(index)) if text else Document([Image(image)], self.facts(index))

    def _caption(self, path: str) -> str:
        beside = (self.folder / path).with_suffix(".txt")
        try:
            return decode_text(beside.read_bytes())
        except OSError:
            return ""

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
