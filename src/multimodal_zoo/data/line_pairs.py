"""Image-text pairs in a list of JSON lines too long to be held: only the places of the lines are kept in memory."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.pictures import open_picture
from multimodal_zoo.data.skips import MapReader, Skips, UnusableError, inside, usable
from multimodal_zoo.files import parsed
from multimodal_zoo.registry import DATASETS

log = logging.getLogger(__name__)

#: Bytes of a list that are searched for line ends at a time.
BLOCK = 1 << 24
#: Lists from this size on show how far the search is.
LONG = 1 << 28
#: What DeCLIP's loader takes for a sign that a caption is not English: U+4E00 to U+9FA5.
CHINESE = "[\u4e00-\u9fa5]"
#: Fields of a line that become facts about its document.
FACTS = ("url", "label", "label_name", "tag")


def line_places(path: Path) -> np.ndarray:
    """Where the lines of a file start and the last one ends, int64 (lines + 1,): eight bytes a line."""
    from rich.progress import Progress

    size = path.stat().st_size
    found = [np.zeros(1, np.int64)]
    with path.open("rb") as file, Progress(transient=True, disable=size < LONG) as progress:
        task = progress.add_task(f"lines of {path.name}", total=size)
        done = 0
        while block := file.read(BLOCK):
            found.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + done + 1)
            done += len(block)
            progress.update(task, completed=done)
    places = np.concatenate(found)
    return places if places[-1] == size else np.append(places, size)


class LineFile:
    """The lines of a text file by number; blank ones are left out.

    Safe in forked and spawned worker processes: reading moves no position that processes could share.

    Args:
        path: the file, of one or more lines, UTF-8.

    Raises:
        FileNotFoundError: no such file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"data.train.table: no file {str(path)!r}")
        self.path = path
        places = line_places(path)
        lengths = np.diff(places)
        self.starts, self.lengths = places[:-1][lengths > 1], lengths[lengths > 1]
        self._file: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        return os.pread(self._file, int(self.lengths[index]), int(self.starts[index]))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


@DATASETS.register_module(name="line_pairs")
class LinePairs:
    """Pairs of a list as DeCLIP publishes it: one JSON object a line with `filename` and `caption`.

    `caption` is a text or a list of texts: the first is the document's, all are in `texts` for `any_caption`. Where a
    line has `url`, `label`, `label_name` or `tag`, they are facts about the document. Lines are read when they are
    asked for, and what is wrong with one is found out then.

    Args:
        table: the list.
        folder: what stands before each file name; the pictures must be inside of it.
        refused: regular expression of characters that make a caption unusable; None: any caption will do.
        expected: lines of the published list; another number is warned of. None: any number will do.

    Raises:
        FileNotFoundError: no such list or folder.
        ValueError: a list without any line, or an expression that cannot be read.
    """

    def __init__(self, table: str, folder: str, refused: str | None = CHINESE, expected: int | None = None) -> None:
        self.folder = Path(folder).expanduser().resolve()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"data.train.folder: no folder {folder!r}")
        try:
            self.refused = None if refused is None else re.compile(refused)
        except re.error as error:
            raise ValueError(f"data.train.refused is {refused!r}, no regular expression: {error}") from error
        self.lines = LineFile(Path(table).expanduser())
        if not len(self.lines):
            raise ValueError(f"data.train.table: {table!r} has no line")
        if expected is not None and len(self.lines) != expected:
            log.warning(
                "data.train.table: %s has %s lines, the published list has %s; data.train.expected=null takes any",
                table,
                f"{len(self.lines):,}",
                f"{expected:,}",
            )
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.lines)

    def _row(self, index: int) -> dict[str, Any]:
        try:
            row = parsed(self.lines[index])
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UnusableError("broken line", f"{self.lines.path.name}, entry {index + 1}")
        return row

    def _facts(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        name = row.get("filename")
        if not isinstance(name, str) or not name.strip("/"):
            raise UnusableError("missing file name", f"{self.lines.path.name}, entry {index + 1}")
        given = row.get("caption")
        texts = [text.strip() for text in (given if isinstance(given, list) else [given]) if isinstance(text, str)]
        if not texts or not texts[0]:
            raise UnusableError("missing caption", name)
        if self.refused is not None and self.refused.search(texts[0]):
            raise UnusableError("caption with refused characters", name)
        return {"key": name, "texts": [text for text in texts if text], **{f: row[f] for f in FACTS if f in row}}

    def facts(self, index: int) -> dict[str, Any]:
        """What `self[index].meta` is, without opening the picture.

        Raises:
            UnusableError: a broken line, or one without a file name or a usable caption.
        """
        return self._facts(self._row(index), index)

    def __getitem__(self, index: int) -> Document:
        """One pair; the picture is read as far as its header.

        Raises:
            IndexError: no such line.
            UnusableError: a broken line, one without a file name or a usable caption, or a picture that is missing,
                broken or outside the folder.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"line_pairs has {len(self)} lines, no number {index}")
        meta = self.facts(index % len(self))
        path = inside(self.folder, meta["key"], meta["key"])
        return pair(open_picture(path, key=meta["key"]), meta["texts"][0], meta)

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


@DATASETS.register_module(name="joined_pairs")
class JoinedPairs:
    """Several readers with numbered samples as one: every sample once an epoch, whatever reader it is from.

    What one of them cannot use is counted together. `source_mixture` draws its sources by weight instead.

    Args:
        readers: readers by name.

    Raises:
        ValueError: no reader, or one without numbered samples.
    """

    def __init__(self, readers: dict[str, MapReader]) -> None:
        streams = [name for name, reader in readers.items() if not hasattr(reader, "__getitem__")]
        if not readers or streams:
            what = f"{streams[0]} has no numbered samples; take source_mixture" if streams else "it is empty"
            raise ValueError(f"data.train.readers: {what}")
        self.readers: Sequence[MapReader] = list(readers.values())
        self.ends = np.cumsum([len(reader) for reader in self.readers])
        self.skips = Skips()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Document:
        """One pair.

        Raises:
            IndexError: no such sample.
            UnusableError: its reader cannot use it.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"joined_pairs has {len(self)} samples, no number {index}")
        index %= len(self)
        number = int(np.searchsorted(self.ends, index, side="right"))
        before = int(self.ends[number - 1]) if number else 0
        return self.readers[number][index - before]

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
