"""Conversations about pictures in LLaVA's form of training file: a list of records, or a list of records' names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.data.conversation_templates import MARKER
from multimodal_zoo.data.documents import Document, Image, Segment, Text, Video
from multimodal_zoo.data.line_pairs import LineFile
from multimodal_zoo.data.media import Media
from multimodal_zoo.data.pictures import open_picture
from multimodal_zoo.data.skips import Skips, UnusableError, inside, usable
from multimodal_zoo.files import parsed
from multimodal_zoo.registry import DATASETS

#: What stands for a clip in records that have one.
CLIP_MARKER = "<video>"
#: Words for who speaks -> the role.
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def turns_of_record(record: dict[str, Any], key: str) -> list[tuple[str, str]]:
    """Role and words of each turn of a record; an answer at the beginning, which nothing asked for, is left out.

    Alpaca's records are read too: `instruction`, an `input` that may be empty, `output`.

    Raises:
        UnusableError: no conversation, or a speaker that is none.
    """
    turns = _given_turns(record)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise UnusableError("broken record", f"{key} (conversations must be a list of turns)")
    found = []
    for turn in turns:
        role, words = SPEAKERS.get(str(turn.get("from"))), turn.get("value")
        if role is None or not isinstance(words, str):
            raise UnusableError("broken record", f"{key} (a turn is from {turn.get('from')!r})")
        found.append((role, words))
    if found and found[0][0] == "assistant":
        found = found[1:]
    if not found:
        raise UnusableError("broken record", f"{key} (no turn)")
    return found


def _given_turns(record: dict[str, Any]) -> Any:
    """The turns of a record as they stand there, in LLaVA's form."""
    turns = record.get("conversations")  # null where a table has columns for both forms
    if turns is not None or not all(isinstance(record.get(name), str) for name in ("instruction", "output")):
        return turns
    asked = (record["instruction"], record.get("input"))
    question = "\n".join(part for part in asked if part and isinstance(part, str))
    return [{"from": "human", "value": question}, {"from": "gpt", "value": record["output"]}]


def segments_of(turns: list[tuple[str, str]], pictures: Sequence[Image | Video], key: str) -> list[Segment]:
    """Texts, and pictures or clips in the places of their markers.

    Where there is one picture for each turn with markers, further ones of a turn say nothing (published).

    Raises:
        UnusableError: another number of pictures than of places, with both; or a place in an answer.
    """
    if any(role == "assistant" and MARKER in words for role, words in turns):
        raise UnusableError("picture in an answer", f"{key} ({MARKER} belongs into a question)")
    places, shown = sum(words.count(MARKER) for _, words in turns), sum(MARKER in words for _, words in turns)
    if len(pictures) not in (places, shown):
        raise UnusableError("pictures and places differ", f"{key} ({len(pictures)} pictures, {places} x {MARKER})")
    waiting, found = iter(pictures), []
    for role, words in turns:
        for number, part in enumerate(words.split(MARKER)):
            if number == 1 or (number and len(pictures) == places):
                found.append(next(waiting))
            if part or MARKER not in words:
                found.append(Text(part, role))  # type: ignore[arg-type]
    return found  # type: ignore[return-value]


class JsonRows:
    """A list of JSON values in two blocks of memory, which worker processes share as they are.

    A list of Python objects would be copied bit by bit into each of them, since looking at an object changes it.

    Args:
        rows: the values.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        written = [json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") for row in rows]
        self.ends = np.cumsum([len(row) for row in written], dtype=np.int64)
        self.content = b"".join(written)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Any:
        return parsed(self.content[self.ends[index - 1] if index else 0 : self.ends[index]])


class JsonLines:
    """The lines of a file as JSON values; only their places are held. None stands for a line that is none.

    Args:
        lines: the file.
    """

    def __init__(self, lines: LineFile) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Any:
        try:
            return parsed(self.lines[index])
        except ValueError:
            return None  # found out when the record is asked for


@DATASETS.register_module(name="conversation_list")
class ConversationList:
    """Records `{"conversations": [{"from", "value"}, ...], "image": path or list of paths}` of a JSON file.

    The file is a list of records, or a list of strings each of which names the file of a record in a second folder, or
    lines of either (`.jsonl`, of which only the places are held). `<image>` in a turn is the place of a picture.

    Records with `video` in place of `image` tell of clips (VideoChat, Video-ChatGPT): their places are `<video>` or
    `<image>`.

    Args:
        table: the file.
        folder: what stands before each picture's path.
        records: the second folder, where the file is a list of names; None where it holds the records.
        suffix: what is put behind each name: `.json` for lists of EVE v1, nothing for those of v2.
        lengths: a JSON list with the words of each record, negative without picture or clip, for
            `modality_length_order`; None counts them when they are asked for.
        media: how clips are read (`video_frames`); None for lists without.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a file that is no such list, an empty one, or lengths of another number.
    """

    def __init__(
        self,
        table: str,
        folder: str,
        records: str | None = None,
        suffix: str = "",
        lengths: str | None = None,
        media: Media | None = None,
    ) -> None:
        self.folder, self.media = _folder(folder, "folder"), media
        self.records = None if records is None else _folder(records, "records")
        self.suffix, self.table = suffix, Path(table).expanduser()
        self.rows = _rows(self.table, "table")
        self.skips = Skips()
        self._lengths = None if lengths is None else _listed(Path(lengths).expanduser(), "lengths")
        if strange := [one for one in self._lengths or () if not isinstance(one, int)]:
            raise ValueError(f"data.train.lengths holds {strange[0]!r:.60}; expected whole numbers")
        if self._lengths is not None and len(self._lengths) != len(self.rows):
            raise ValueError(
                f"data.train.lengths has {len(self._lengths)} numbers, data.train.table {len(self.rows)} records"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, index: int) -> str:
        """The name of a record: its `id` or its file, and the place in the list."""
        row = self.rows[index]
        name = row if isinstance(row, str) else row.get("id") if isinstance(row, dict) else None
        return f"{self.table.name}, entry {index + 1}" + ("" if name is None else f" ({name})")

    def record(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            UnusableError: it is none, or its file cannot be read.
        """
        row = self.rows[index]
        if isinstance(row, str) and self.records is not None:
            row = self._file(row, index)
        if not isinstance(row, dict):
            what = " (a name: data.train.records must be a folder)" if isinstance(row, str) else ""
            raise UnusableError("broken record", f"{self.key(index)}{what}")
        return row

    def _file(self, name: str, index: int) -> Any:
        assert self.records is not None
        path = inside(self.records, f"{name}{self.suffix}", self.key(index))
        try:
            return parsed(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UnusableError("missing record", f"{self.key(index)}: {path.name}") from error
        except (OSError, ValueError) as error:
            raise UnusableError("broken record", f"{self.key(index)}: {path.name}") from error

    def _files(self, record: dict[str, Any], kind: str, key: str) -> list[tuple[Path, str]]:
        """The files of a record's pictures or clips, each with its name for messages."""
        given = record.get(kind)
        names = [] if given is None else given if isinstance(given, list) else [given]
        found = []
        for name in names:
            if not isinstance(name, str) or not name.strip("/"):
                raise UnusableError("broken record", f"{key} ({kind} is {name!r})")
            found.append((inside(self.folder, name, f"{key}: {name}"), f"{key}: {name}"))
        return found

    def _shown(self, record: dict[str, Any], key: str) -> list[Image | Video]:
        clips = self._files(record, "video", key)
        if not clips:
            return [Image(open_picture(path, key=name)) for path, name in self._files(record, "image", key)]
        if self.media is None:
            raise UnusableError("clip without a reader", f"{key} (set data.train.media to video_frames)")
        if missing := [name for path, name in clips if not path.is_file()]:
            raise UnusableError("missing video", missing[0])
        return [self.media.read(path, name) for path, name in clips]  # type: ignore[misc]

    def __getitem__(self, index: int) -> Document:
        """One conversation; pictures are read as far as their headers.

        Raises:
            IndexError: no such record.
            UnusableError: a broken record, a picture that is missing, broken or outside the folder, or another number
                of pictures than of places.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"conversation_list has {len(self)} records, no number {index}")
        index %= len(self)
        record, key = self.record(index), self.key(index)
        turns = turns_of_record(record, key)
        shown = self._shown(record, key)
        if record.get("video"):
            turns = [(role, words.replace(CLIP_MARKER, MARKER)) for role, words in turns]
        return Document(segments_of(turns, shown, key), {"key": key})

    def __iter__(self) -> Iterator[Document]:
        return usable(self)

    @cached_property
    def modality_lengths(self) -> list[int]:
        """Words of all turns of each record, negative without picture or clip; 1 of a record that cannot be read."""
        if self._lengths is not None:
            return self._lengths
        return [self._length(index) for index in range(len(self))]

    def _length(self, index: int) -> int:
        try:
            record = self.record(index)
            turns = _given_turns(record) or []
            words = sum(len(str(turn.get("value", "")).split()) for turn in turns if isinstance(turn, dict))
        except UnusableError:
            return 1
        return max(1, words) if record.get("image") or record.get("video") else -max(1, words)


def _folder(path: str, key: str) -> Path:
    found = Path(path).expanduser().resolve()
    if not found.is_dir():
        raise FileNotFoundError(f"data.train.{key}: no folder {path!r}")
    return found


def _rows(path: Path, key: str) -> JsonRows | JsonLines:
    """The entries of a file of records or names."""
    if path.suffix == ".jsonl" and path.is_file():
        rows: JsonRows | JsonLines = JsonLines(LineFile(path))
    else:
        rows = JsonRows(_listed(path, key))
    if not len(rows):
        raise ValueError(f"data.train.{key}: {str(path)!r} has no entry")
    return rows


def _listed(path: Path, key: str) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"data.train.{key}: no file {str(path)!r}")
    try:
        rows = parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"data.train.{key}: {str(path)!r} is no JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"data.train.{key}: {str(path)!r} must hold a list with at least one entry")
    return rows
