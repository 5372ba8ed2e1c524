"""Question files of benchmarks: JSON lines, lists of conversations, MMBench's tables."""

from __future__ import annotations

import csv
import re
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from multimodal_zoo.data.benchmark_set import AbsentDataError, NoRootError
from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.data.media import Media
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.evaluation.task_prompts import ENDINGS, mmbench_text, present
from multimodal_zoo.files import parsed, reading
from multimodal_zoo.registry import EVALUATORS

#: Where a text has its picture; the models here have theirs in front.
MARKER = re.compile(r"<image>\n?")


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        key: its `question_id`, as the file has it; not always unique.
        text: what is asked.
        image: the picture's name; None for none.
        source: the picture's path or encoded bytes; None for none.
        facts: the file's further columns.
        media: how `source` is read; None for a still picture.
    """

    key: Any
    text: str
    image: str | None = None
    source: Path | bytes | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    media: Media | None = None

    @property
    def bare(self) -> str:
        """The question without the lines that tell how to answer, and without the words found in the picture."""
        lines = [line for line in self.text.split("\n") if line.strip() not in ENDINGS]
        return "\n".join(line for line in lines if not line.startswith("Reference OCR token:")).strip()

    def document(self, ending: str = "") -> Document:
        """The picture or clip and the question, with one more line behind it; the first alone where nothing is asked.

        Raises:
            UnusableError: it is missing or broken.
        """
        segments: list[Segment] = []
        if self.source is not None:
            name = str(self.source) if isinstance(self.source, Path) else f"picture of question {self.key}"
            if self.media is None:
                segments.append(Image(load(open_picture(self.source, name), name)))
            else:
                segments.append(self.media.read(self.source, name))
        words = self.asked(ending)
        meta = {"key": str(self.key), **({} if self.image is None else {"image": self.image})}
        return Document([*segments, *([Text(words, role="user")] if words else [])], meta)

    def asked(self, ending: str = "") -> str:
        """The text with one more line behind it, unless it ends so already."""
        return f"{self.text}\n{ending}" if ending and not self.text.endswith(ending) else self.text


class QuestionSet(Protocol):
    """A benchmark's questions."""

    def read(self) -> list[Question]:
        """All questions in the file's order.

        Raises:
            AbsentDataError, NoRootError: no file, or no place where it could be.
            ValueError: a broken file.
        """
        ...


def below(root: str | None, name: str, what: str) -> Path:
    """A file or folder of a benchmark below the common folder.

    Args:
        root: the folder; None where nobody gave one.
        name: path inside.
        what: the key that names it, for the error.

    Raises:
        NoRootError: no folder.
        AbsentDataError: nothing there.
    """
    if root is None:
        raise NoRootError("root is null: give the benchmarks' folder, on the command line benchmark_root=PLACE")
    found = Path(root).expanduser() / name
    if not found.exists():
        raise AbsentDataError(f"{what}: nothing at {found}")
    return found


def file_and_pictures(root: str | None, file: str, images: str, part: str) -> tuple[Path, Path]:
    """A benchmark's file and the folder of its pictures, both below the common folder.

    Args:
        root: the folder; None where nobody gave one.
        file: path of the file inside.
        images: folder of the pictures inside.
        part: the part that names them, for errors.

    Raises:
        NoRootError, AbsentDataError: see `below`.
    """
    return below(root, file, f"{part}.file"), below(root, images, f"{part}.images")


def require_keys(row: Any, needed: Sequence[str], place: str) -> None:
    """Make sure that a record is an object with all that is needed.

    Args:
        row: what the file holds.
        needed: keys.
        place: of the record, for the error.

    Raises:
        ValueError: it is something else, or lacks a key.
    """
    missing = [name for name in needed if not isinstance(row, dict) or name not in row]
    if missing:
        raise ValueError(f"{place}: no {missing[0]!r}; expected an object with {', '.join(needed)}")


def json_at(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: no JSON.
    """
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error})") from None


def json_lines(path: Path, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; empty lines are left out.

    Raises:
        ValueError: a line that is no object, or has not what is needed; the message has its number.
    """
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parsed(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error})") from None
        require_keys(row, needed, f"{path}, line {number}")
        yield row


@EVALUATORS.register_module(name="question_lines")
class QuestionLines:
    """JSON lines with `question_id`, `text` and `image`, the playground format of LLaVA-1.5 and EVE.

    Args:
        root: the benchmarks' folder.
        file: path of the questions inside.
        images: folder of the pictures inside.
    """

    def __init__(self, root: str | None, file: str, images: str) -> None:
        self.root, self.file, self.images = root, file, images

    def read(self) -> list[Question]:
        """See `QuestionSet`."""
        path, images = file_and_pictures(self.root, self.file, self.images, "question_lines")
        found = []
        for row in json_lines(path, ("question_id", "text")):
            image = row.get("image")
            facts = {key: value for key, value in row.items() if key not in ("question_id", "text", "image")}
            with reading(path, "list of questions"):
                text, source = MARKER.sub("", row["text"]), None if image is None else images / image
            found.append(Question(row["question_id"], text, image, source, facts))
        return found


@EVALUATORS.register_module(name="conversation_questions")
class ConversationQuestions:
    """A JSON list of `id`, `conversations` (the first turn asks) and perhaps `image`: ScienceQA in LLaVA's form.

    Args:
        root: the benchmarks' folder.
        file: path of the questions inside.
        images: folder of the pictures inside.
    """

    def __init__(self, root: str | None, file: str, images: str) -> None:
        self.root, self.file, self.images = root, file, images

    def read(self) -> list[Question]:
        """See `QuestionSet`."""
        path, images = file_and_pictures(self.root, self.file, self.images, "conversation_questions")
        found = []
        rows = json_at(path)
        for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
            try:
                key, asked, image = row["id"], row["conversations"][0]["value"], row.get("image")
                text, source = MARKER.sub("", asked).strip(), None if image is None else images / image
            except (KeyError, IndexError, TypeError, AttributeError):
                raise ValueError(f"{path}, record {number}: expected an object with id and conversations") from None
            found.append(Question(key, text, image, source))
        return found


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Pictures in tables are longer than the csv module's usual limit, which is the whole process's."""
    usual = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


@EVALUATORS.register_module(name="mmbench_questions")
class MmbenchQuestions:
    """MMBench's tab-separated table (arXiv 2307.06281): hint, question and options on lines; pictures are in it.

    Args:
        root: the benchmarks' folder.
        file: path of the table inside.
    """

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def read(self) -> list[Question]:
        """See `QuestionSet`; the table's columns but the picture are the facts, `letters` names the options."""
        path = below(self.root, self.file, "mmbench_questions.file")
        found: list[Question] = []
        pictures: dict[str, str] = {}
        with (
            reading(path, "table of questions"),
            _cells_of_any_length(),
            path.open(encoding="utf-8", newline="") as lines,
        ):
            for row in csv.DictReader(lines, delimiter="\t"):
                if missing := [name for name in ("index", "question", "image", "A", "B") if row.get(name) is None]:
                    raise ValueError(f"{path}, row {len(found) + 1}: no {missing[0]!r}")
                image = row.pop("image")
                pictures[row["index"]] = image = pictures.get(image, image)  # a number refers to another row
                facts = {**row, "letters": "".join(name for name in "ABCD" if present(row, name))}
                found.append(Question(row["index"], mmbench_text(row), row["index"], b64decode(image), facts))
        return found


#: A question and the answer that was given.
Answered = tuple[Question, str]
