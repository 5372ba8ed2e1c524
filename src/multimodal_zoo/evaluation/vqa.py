"""Benchmarks of questions about pictures: answers into a file, and what is right among them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multimodal_zoo.data.documents import Document
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.answer_file import AnswerFile
from multimodal_zoo.evaluation.asking import Asking
from multimodal_zoo.evaluation.environment import fingerprint
from multimodal_zoo.evaluation.features import Counter
from multimodal_zoo.evaluation.result import Picture, Result
from multimodal_zoo.evaluation.shots import Shots, in_context
from multimodal_zoo.evaluation.vqa_questions import Question, QuestionSet
from multimodal_zoo.evaluation.vqa_scores import Score
from multimodal_zoo.evaluation.workspace import Workspace, share
from multimodal_zoo.registry import EVALUATORS


@EVALUATORS.register_module(name="vqa")
class VisualQuestions:
    """Answer every question of a benchmark; what an earlier run answered is not asked again.

    Without `asking` the likeliest token is taken at every step, and the whole answer counts. Answers lie in
    `answers.jsonl`, in the order of the questions. Texts never become special tokens.

    Args:
        questions: `question_lines`, `conversation_questions` or `mmbench_questions`.
        score: what judges the answers, or makes a server's file of them (`gqa_score`, `vqav2_upload`, ...).
        ending: a line behind each question that does not end so already.
        max_new_tokens: most tokens of an answer.
        batch_size: answers written at a time.
        first: only so many questions, from the front; None for all.
        folder: where answers go; None for a folder named like the score in that of the evaluated model.
        examples: questions on the report's sheet; 0 shows none.
        asking: words around questions, beams, what of an answer counts; None for the questions as they are.
        shots: examples with answers in front of each question (`random_shots`, `rices_shots`); None for none.
    """

    def __init__(
        self,
        questions: QuestionSet,
        score: Score,
        ending: str = "",
        max_new_tokens: int = 128,
        batch_size: int = 8,
        first: int | None = None,
        folder: str | None = None,
        examples: int = 6,
        asking: Asking | None = None,
        shots: Shots | None = None,
    ) -> None:
        if max_new_tokens < 1 or batch_size < 1:
            raise ValueError(f"max_new_tokens {max_new_tokens}, batch_size {batch_size}: expected 1 or more of both")
        self.questions, self.score, self.ending = questions, score, ending
        self.max_new_tokens, self.batch_size, self.first = max_new_tokens, batch_size, first
        self.folder = self.place = None if folder is None else Path(folder)
        self.examples = examples
        self.asking, self.shots = asking or Asking(), shots

    def with_shots(self, count: int) -> VisualQuestions:
        """The same with another number of examples, and a folder of its own.

        Raises:
            ValueError: without `shots`, or more than there are.
        """
        if self.shots is None:
            raise ValueError("vqa.shots is null: say where examples come from (random_shots, rices_shots)")
        other = copy.copy(self)
        other.shots = self.shots.taking(count)
        other.folder = other.place = None if self.folder is None else self.folder / f"{count}_shots"
        return other

    def share(self, workspace: Workspace) -> None:
        """Take the evaluated model's folder, where none was given."""
        share(self.shots, workspace)
        if self.folder is None and workspace.folder is not None:
            name = self.score.name if self.shots is None else f"{self.score.name}_{self.shots.count}_shots"
            self.place = workspace.folder.parent / name

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Answer what is not answered yet, and judge all.

        Raises:
            TypeError: a model that does not write.
            ValueError: no folder, no question, or answers of another model or of other settings in the folder.
            UnusableError: a picture that is missing or broken.
        """
        del processor  # `answer` finds it at the model
        if self.place is None:
            raise ValueError("vqa.folder: say where the answers go")
        questions = self.questions.read()[: self.first]
        if not questions:
            raise ValueError(f"vqa.questions: there is no question for {self.score.name}")
        settings = self._settings(model)
        file = AnswerFile(self.place, f"{settings['model']}-{settings['weights']}", self.ending)
        file.settle(settings)
        texts = file.read(questions)
        asked_now = len(questions) - len(texts)
        if self.shots is not None and asked_now:
            self.shots.ready(model, device)
        with Counter(f"questions of {self.score.name}", len(questions)) as counter:
            counter.advance(len(texts))
            for start in range(len(texts), len(questions), self.batch_size):
                part = questions[start : start + self.batch_size]
                said = self._answers(model, [one.document(self.ending) for one in part])
                file.add(part, said)
                texts += said
                counter.advance(len(part))
        scored = self.score(list(zip(questions, texts, strict=True)), self.place)
        metrics = {**scored.metrics, "questions": float(len(questions)), "asked_now": float(asked_now)}
        details = {**settings, "folder": str(self.place)}
        return Result(
            self.score.name, metrics, scored.tables, self._sheet(questions, texts), details, (*scored.headline,)
        )

    def _answers(self, model: nn.Module, documents: Sequence[Document]) -> list[str]:
        if self.shots is not None and self.shots.count:
            pairs = zip(self.shots.chosen(documents), documents, strict=True)
            documents = [in_context(some, one, self.shots.pictures) for some, one in pairs]
        return self.asking.answers(model, documents, self.max_new_tokens)

    def _settings(self, model: nn.Module) -> dict[str, Any]:
        return {
            "benchmark": self.score.name,
            "model": getattr(model, "variant", None) or type(model).__name__,
            "weights": fingerprint(model),
            "ending": self.ending,
            "max_new_tokens": self.max_new_tokens,
            **({} if self.asking.settings == Asking().settings else {"asking": self.asking.settings}),
            **({} if self.shots is None else {"shots": f"{self.shots.count}, {self.shots.name}"}),
        }

    def _sheet(self, questions: Sequence[Question], texts: Sequence[str]) -> dict[str, Picture]:
        shown = [place for place, one in enumerate(questions) if one.source is not None and one.media is None][
            : self.examples
        ]
        if not shown:
            return {}
        seen = [questions[place].document().image for place in shown]
        rows = [[questions[place].bare or "(nothing)", texts[place] or "(nothing)"] for place in shown]
        png = pictures.image_queries(seen, rows, [["miss", "related"]] * len(rows))
        return {"answers": Picture(png, f"First questions of {self.score.name}, and below each what the model answers")}
