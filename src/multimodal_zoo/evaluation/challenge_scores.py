"""Scores of questions that ten people answered, by the VQA challenge's own program: VQAv2, OKVQA, VizWiz.

Each person is left out once, and the answer gets a third for every other one who gave it, one at most (arXiv
1505.00468). That is `soft_accuracy` too, but for how texts are compared, which differs between programs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.vqa_answers import challenge_answer, left_out_accuracy, unpunctuated
from multimodal_zoo.evaluation.vqa_questions import Answered, below, json_at
from multimodal_zoo.evaluation.vqa_scores import Scored, by_group, mean, of_truth, truth
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import EVALUATORS


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    return needed("nltk.stem", "OKVQA, whose scores compare stems,", "eval").PorterStemmer()


def stem(text: str) -> str:
    """The stem of a text by Porter's rules (1980), of which the published program makes one word."""
    return str(_stemmer().stem(text))


def _marks(text: str) -> str:
    return unpunctuated(text, figures=True)


@dataclass(frozen=True)
class Comparison:
    """How a program compares answers.

    Attributes:
        said: what becomes of the model's answer.
        known: what becomes of those of people.
        unanimous: what becomes of those of people who all say the same.
    """

    said: Callable[[str], str]
    known: Callable[[str], str]
    unanimous: Callable[[str], str]

    def accuracy(self, said: str, answers: Sequence[str]) -> float:
        """How far people agree with an answer, in [0, 1].

        Args:
            said: the model's answer.
            answers: of people, two at least.

        Raises:
            ValueError: fewer than two people.
        """
        clean = self.known if len(set(answers)) > 1 else self.unanimous
        return left_out_accuracy(self.said(said), [clean(one) for one in answers])


def _same(text: str) -> str:
    return text


def _stemmed(text: str) -> str:
    return stem(challenge_answer(text))


#: Name of a program -> how it compares. Published OKVQA figures stem the model's answer always and those of people only
#: where they disagree, so that a unanimous `yes` is never met; `okvqa_corrected` does the same to both sides.
COMPARISONS = {
    "vqav2": Comparison(challenge_answer, _marks, _same),
    "okvqa": Comparison(_stemmed, lambda text: stem(_marks(text)), _same),
    "okvqa_corrected": Comparison(_stemmed, _stemmed, _stemmed),
}


def comparison_of(name: str) -> Comparison:
    """The way of comparing of a program.

    Raises:
        ValueError: no such program.
    """
    if name not in COMPARISONS:
        raise ValueError(f"challenge_score.comparison is {name!r}; expected one of {', '.join(COMPARISONS)}")
    return COMPARISONS[name]


def challenge_figures(rows: Iterable[tuple[str, str, float]]) -> dict[str, Any]:
    """Percentages with two decimals, as the published program prints them.

    Args:
        rows: kind of question, kind of answer, accuracy of each question.

    Returns:
        `overall`, `perQuestionType` and `perAnswerType`.
    """
    kinds: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[float]] = defaultdict(list)
    found = []
    for kind, answer, accuracy in rows:
        kinds[kind].append(accuracy)
        answers[answer].append(accuracy)
        found.append(accuracy)
    return {
        "overall": _percent(found),
        "perQuestionType": {name: _percent(own) for name, own in kinds.items()},
        "perAnswerType": {name: _percent(own) for name, own in answers.items()},
    }


def _percent(values: Sequence[float]) -> float:
    return round(100 * mean(values), 2)


def scored(rows: Sequence[tuple[str, str, float]]) -> Scored:
    """Accuracy of all questions, and of each kind of them.

    Args:
        rows: as in `challenge_figures`.
    """
    tables = []
    for place, head in enumerate(("kind of question", "kind of answer")):
        groups: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            groups[str(row[place])].append(row[2])
        if len(groups) > 1:
            tables.append(by_group(groups, f"by {head}", head))
    return Scored({"accuracy": mean(row[2] for row in rows)}, tables, ("accuracy",))


def people(row: Mapping[str, Any]) -> list[str]:
    """What people answered, of one record of annotations."""
    return [str(one["answer"]) if isinstance(one, Mapping) else str(one) for one in row["answers"]]


@EVALUATORS.register_module(name="challenge_score")
class ChallengeScore:
    """VQAv2 (arXiv 1612.00837) and OKVQA (arXiv 1906.00067): how far ten people agree with each answer.

    Args:
        root: the benchmarks' folder.
        file: the annotations inside: `annotations`, a list with `question_id` and `answers`.
        name: of the benchmark; names the folder of its answers.
        comparison: how answers are compared: `vqav2`, `okvqa` (as published) or `okvqa_corrected`.

    Raises:
        ValueError: no such comparison.
    """

    def __init__(self, root: str | None, file: str, name: str, comparison: str) -> None:
        self.root, self.file, self.name = root, file, name
        self.compared = comparison_of(comparison)

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        path = below(self.root, self.file, "challenge_score.file")
        rows = []
        with of_truth(path, self.name):
            known = {str(row["question_id"]): row for row in json_at(path)["annotations"]}
            for one, said in answered:
                row = truth(known, str(one.key), one, path)
                accuracy = self.compared.accuracy(said, people(row))
                rows.append((str(row.get("question_type", "all")), str(row.get("answer_type", "all")), accuracy))
        return scored(rows)


@EVALUATORS.register_module(name="vizwiz_score")
class VizWizScore:
    """VizWiz (arXiv 1802.08218), the split whose answers are there: how far ten people agree with each answer.

    Args:
        root: the benchmarks' folder.
        file: the annotations inside, a list with `image`, `question` and `answers`; rows are found by picture.
    """

    name = "vizwiz_val"

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        path = below(self.root, self.file, "vizwiz_score.file")
        rows = []
        with of_truth(path, self.name):
            known = {str(row["image"]): row for row in json_at(path)}
            for one, said in answered:
                row = truth(known, str(one.image), one, path)
                accuracy = COMPARISONS["vqav2"].accuracy(said, people(row))
                rows.append(("all", str(row.get("answer_type", "all")), accuracy))
        return scored(rows)
