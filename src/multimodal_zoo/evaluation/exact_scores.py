"""Scores of questions with one right answer of one word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from multimodal_zoo.evaluation.vqa_questions import Answered
from multimodal_zoo.evaluation.vqa_scores import Scored, by_group, mean, truth
from multimodal_zoo.registry import EVALUATORS


@EVALUATORS.register_module(name="exact_score")
class ExactScore:
    """The answer itself, in lower case: MSVD-QA and MSRVTT-QA (arXiv 1704.04497), whose records have one word each.

    Args:
        name: of the benchmark; names the folder of its answers.
        answer: the column of the questions with the true answer.
    """

    def __init__(self, name: str, answer: str = "answer") -> None:
        self.name, self.answer = name, answer

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`; questions are grouped by their first word."""
        rights: dict[str, list[float]] = defaultdict(list)
        for one, said in answered:
            true = str(truth(one.facts, self.answer, one, f"exact_score.answer of {self.name}"))
            kind = one.text.split(" ", 1)[0].lower()
            rights[kind].append(float(said.strip().lower() == true.strip().lower()))
        accuracy = mean(right for found in rights.values() for right in found)
        return Scored({"accuracy": accuracy}, [by_group(rights, "by first word", "first word")], ("accuracy",))
