"""Answer files: JSON lines in the order of the questions, which an interrupted run goes on with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.settings_file import settle
from multimodal_zoo.evaluation.vqa_questions import Question, json_lines
from multimodal_zoo.files import write_bytes


class AnswerFile:
    """`answers.jsonl` of one benchmark: `question_id`, `prompt`, `text`, `answer_id`, `model_id`, `metadata`.

    Args:
        folder: where it lies.
        model: how the file names the model.
        ending: the line that was put behind each question.
    """

    def __init__(self, folder: Path, model: str, ending: str) -> None:
        self.folder, self.model, self.ending = folder, model, ending
        self.path = folder / "answers.jsonl"

    def settle(self, wanted: Mapping[str, Any]) -> None:
        """Note what answers are written with, or compare with what an earlier run noted; raises like `settle`."""
        settle(self.folder, wanted, "answers", "vqa.folder")

    def read(self, questions: Sequence[Question]) -> list[str]:
        """The answers so far; a line that an interrupted run left unfinished is dropped.

        Raises:
            ValueError: an answer to another question than the one in its place.
        """
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) != len(content):
            write_bytes(self.path, whole)
        rows = list(json_lines(self.path, ("question_id", "prompt", "text")))
        if len(rows) > len(questions):
            raise ValueError(f"{self.path}: {len(rows)} answers to {len(questions)} questions; delete it")
        for number, (row, question) in enumerate(zip(rows, questions, strict=False), start=1):
            if (row["question_id"], row["prompt"]) != (question.key, question.asked(self.ending)):
                raise ValueError(f"{self.path}, line {number}: no answer to question {question.key!r}; delete it")
        return [str(row["text"]) for row in rows]

    def add(self, questions: Sequence[Question], texts: Sequence[str]) -> None:
        """Put answers behind those that are there."""
        rows = [self._row(question, text) for question, text in zip(questions, texts, strict=True)]
        with self.path.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def _row(self, question: Question, text: str) -> dict[str, Any]:
        prompt = question.asked(self.ending)
        name = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([self.model, question.key, prompt]))  # the same in every run
        return {
            "question_id": question.key,
            "prompt": prompt,
            "text": text,
            "answer_id": name.hex,
            "model_id": self.model,
            "metadata": {},
        }
