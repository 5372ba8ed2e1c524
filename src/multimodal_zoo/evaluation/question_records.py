"""Question files of any benchmark with one record for each question, and their answers as examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.media import Media
from multimodal_zoo.evaluation.vqa_questions import Question, QuestionSet, below, json_at, json_lines
from multimodal_zoo.registry import EVALUATORS


def records_at(path: Path, records: str | None) -> list[dict[str, Any]]:
    """The records of a JSON list, of JSON lines (`*.jsonl`), or of what stands at a key of a JSON object.

    An object of objects is a list too: each has its name as `question_id`, if it has no own.

    Raises:
        ValueError: another content.
    """
    if path.suffix == ".jsonl":
        return list(json_lines(path, ()))
    content = json_at(path)
    for key in () if records is None else records.split("."):
        if not isinstance(content, Mapping) or key not in content:
            raise ValueError(f"{path}: no {key!r} (records is {records!r})")
        content = content[key]
    if isinstance(content, Mapping) and all(isinstance(row, dict) for row in content.values()):
        content = [{"question_id": name, **row} for name, row in content.items()]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path}: expected a list of objects at {records or 'the top'}, got {type(content).__name__}")
    return content


def _filled(pattern: str, row: Mapping[str, Any], path: Path, number: int, key: str) -> str:
    try:
        return pattern.format(**row)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        names = ", ".join(sorted(row))
        raise ValueError(
            f"{path}, record {number}: question_records.{key} is {pattern!r} ({error!r}); it has {names}"
        ) from None


@EVALUATORS.register_module(name="question_records")
class QuestionRecords:
    """Records with fields for question, picture and key: VQAv2, OKVQA, VizWiz, captions, questions about clips.

    Texts in braces are filled in from the record: `COCO_val2014_{image_id:012d}.jpg`, `video{video_id}.mp4`.

    Args:
        root: the benchmarks' folder.
        file: path of the records inside: a JSON list, JSON lines, or an object with such a list.
        images: folder of the pictures or clips inside.
        image: the name of a record's picture or clip.
        text: what is asked; empty where nothing is.
        key: what names a question.
        records: dotted key of the list in the file; None where the file is one.
        media: how a clip is read (`video_frames`); None for pictures.
    """

    def __init__(
        self,
        root: str | None,
        file: str,
        images: str,
        image: str,
        text: str = "{question}",
        key: str = "{question_id}",
        records: str | None = None,
        media: Media | None = None,
    ) -> None:
        self.root, self.file, self.images = root, file, images
        self.image, self.text, self.key, self.records, self.media = image, text, key, records, media

    def read(self) -> list[Question]:
        """See `QuestionSet`; all fields of a record are facts of its question."""
        path = below(self.root, self.file, "question_records.file")
        images = below(self.root, self.images, "question_records.images")
        found = []
        for number, row in enumerate(records_at(path, self.records)):
            text, image = (_filled(getattr(self, name), row, path, number, name) for name in ("text", "image"))
            plain = self.key.removeprefix("{").removesuffix("}")  # numbers stay numbers, as servers want them
            key = row[plain] if plain in row else _filled(self.key, row, path, number, "key")
            found.append(Question(key, text, image, images / image, row, self.media))
        return found


@EVALUATORS.register_module(name="answered_questions")
class AnsweredQuestions:
    """Questions with their most frequent answer, as examples for others.

    Args:
        questions: `question_records` or any other.
        root: the benchmarks' folder.
        file: the answers inside; None where the questions' own records have them.
        records: dotted key of the list in the file.
        key: what names a record's question.
        answers: the field of the answer, or of a list of answers, or of a list of objects with `answer`.
        words: what answers become that are numbers of something, by number (`{0: "no", 1: "yes"}`); None for none.
        form: words around an answer, `{answer}` where it goes: a blank in front and a full stop behind, say, where
            documents are written down as they are.
    """

    def __init__(
        self,
        questions: QuestionSet,
        root: str | None = None,
        file: str | None = None,
        records: str | None = "annotations",
        key: str = "{question_id}",
        answers: str = "answers",
        words: Mapping[Any, str] | None = None,
        form: str = "{answer}",
    ) -> None:
        self.questions, self.root, self.file = questions, root, file
        self.words = {str(number): word for number, word in (words or {}).items()}
        self.records, self.key, self.answers, self.form = records, key, answers, form
        self.title = f"answered questions of {file or 'the question file'}"
        self._rows: list[tuple[Question, str]] | None = None

    def _all(self) -> list[tuple[Question, str]]:
        """Questions and answers, read once."""
        if self._rows is None:
            asked = self.questions.read()
            known: dict[str, Mapping[str, Any]] = {str(one.key): one.facts for one in asked}
            if self.file is not None:
                path = below(self.root, self.file, "answered_questions.file")
                rows = enumerate(records_at(path, self.records))
                known = {_filled(self.key, row, path, number, "key"): row for number, row in rows}
            said = [(one, known[str(one.key)].get(self.answers)) for one in asked if str(one.key) in known]
            self._rows = [(one, self.words.get(answer := usual(given), answer)) for one, given in said]
            if not self._rows:
                raise ValueError(f"answered_questions.file: {self.file} answers none of the questions")
        return self._rows

    def __len__(self) -> int:
        return len(self._all())

    def facts(self, number: int) -> dict[str, Any]:
        """The metadata of a document, without reading its picture."""
        question = self._all()[number][0]
        return {"key": str(question.key), **({} if question.image is None else {"image": question.image})}

    def __getitem__(self, number: int) -> Document:
        question, answer = self._all()[number]
        asked = question.document()
        return Document([*asked.segments, Text(self.form.replace("{answer}", answer), role="assistant")], asked.meta)


def usual(given: Any) -> str:
    """The most frequent of some answers, of equally frequent ones the first.

    Args:
        given: an answer, answers, or objects with `answer`.

    Raises:
        ValueError: none.
    """
    rows: Sequence[Any] = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    found = [str(one["answer"]) if isinstance(one, Mapping) else str(one) for one in rows if one is not None]
    if not found:
        raise ValueError("answered_questions.answers: a question has no answer in this field")
    return Counter(found).most_common(1)[0][0]
