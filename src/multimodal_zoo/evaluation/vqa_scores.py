"""Scores of benchmarks whose answers lie beside the questions: TextVQA, POPE, GQA, ScienceQA, SEED, MME, MMBench."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from multimodal_zoo.evaluation.result import Cell, Table
from multimodal_zoo.evaluation.vqa_answers import gqa_answer, mme_answer, option_letter, pope_answer, soft_accuracy
from multimodal_zoo.evaluation.vqa_questions import Answered, Question, below, json_at, json_lines
from multimodal_zoo.files import reading
from multimodal_zoo.registry import EVALUATORS

#: MME's tasks of perception, in the order of its paper (arXiv 2306.13394, table 1); its others are of cognition.
PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Scored:
    """What a score says.

    Attributes:
        metrics: shares are fractions of 1; MME has its points.
        tables: for people.
        headline: the metrics of the overview.
    """

    metrics: dict[str, float]
    tables: list[Table]
    headline: tuple[str, ...]


class Score(Protocol):
    """Judges answers, or writes the file that a server judges.

    Attributes:
        name: of the benchmark; names the folder of its answers.
    """

    name: str

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """Figures of answers.

        Args:
            answered: questions and answers.
            folder: where a file for a server goes.

        Raises:
            ValueError: a question whose true answer is not there.
        """
        ...


def mean(values: Iterable[float]) -> float:
    """The mean; 0 of none."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def truth(known: Mapping[K, V], key: K, question: Question, file: object) -> V:
    """The true answer to a question, or what a file says of it.

    Raises:
        ValueError: the file does not have it.
    """
    if key not in known:
        raise ValueError(f"{file}: no answer to question {question.key!r} ({question.bare[:60]!r})")
    return known[key]


def of_truth(path: Path, name: str) -> AbstractContextManager[None]:
    """Name a benchmark's file of true answers in whatever is wrong with its records."""
    return reading(path, f"file of true answers of {name}")


def by_group(rights: Mapping[str, Sequence[float]], title: str, head: str) -> Table:
    """How many questions there are of each kind, and the mean of each."""
    rows = [(name, len(found), mean(found)) for name, found in rights.items()]
    return Table(title, (head, "questions", "accuracy"), rows)


@EVALUATORS.register_module(name="textvqa_score")
class TextVqaScore:
    """TextVQA (arXiv 1904.08920): how far ten people agree with each answer.

    Args:
        root: the benchmarks' folder.
        file: TextVQA's annotations inside; rows are found by picture and question.
    """

    name = "textvqa"

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        path = below(self.root, self.file, "textvqa_score.file")
        with of_truth(path, self.name):
            rows = json_at(path)["data"]
            known = {(str(row["image_id"]), row["question"].strip().lower()): row["answers"] for row in rows}
            found = [
                soft_accuracy(said, truth(known, (str(one.key), one.bare.lower()), one, path)) for one, said in answered
            ]
        return Scored({"accuracy": mean(found)}, [], ("accuracy",))


def binary_figures(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Counts and shares of yes-and-no answers, `yes` being positive; a share of nothing is 0.

    Args:
        pairs: what was answered, and what is true.
    """
    count = {(said, true): 0 for said in ("yes", "no") for true in ("yes", "no")}
    for pair in pairs:
        count[pair] += 1
    hits, false_hits, misses = count["yes", "yes"], count["yes", "no"], count["no", "yes"]
    right, said_yes, true_yes = hits + count["no", "no"], hits + false_hits, hits + misses
    return {
        "TP": hits,
        "FP": false_hits,
        "TN": count["no", "no"],
        "FN": misses,
        "accuracy": right / len(pairs) if pairs else 0.0,
        "precision": hits / said_yes if said_yes else 0.0,
        "recall": hits / true_yes if true_yes else 0.0,
        "f1": 2 * hits / (said_yes + true_yes) if said_yes + true_yes else 0.0,
        "yes_ratio": said_yes / len(pairs) if pairs else 0.0,
    }


@EVALUATORS.register_module(name="pope_score")
class PopeScore:
    """POPE (arXiv 2305.10355): is an object in the picture; each of three splits, and their means.

    Args:
        root: the benchmarks' folder.
        folder: where the splits' files `coco_pope_<split>.json` lie inside; rows are found by picture and question.
    """

    name = "pope"

    def __init__(self, root: str | None, folder: str) -> None:
        self.root, self.folder = root, folder

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`; questions name their split as `category`."""
        place = below(self.root, self.folder, "pope_score.folder")
        pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
        labels: dict[str, dict[tuple[str, str], str]] = {}
        for one, said in answered:
            split = str(one.facts.get("category", "all"))
            file = below(str(place), f"coco_pope_{split}.json", "pope_score.folder")
            if split not in labels:
                rows = json_lines(file, ("image", "text", "label"))
                labels[split] = {(str(row["image"]), str(row["text"]).strip()): row["label"] for row in rows}
            label = truth(labels[split], (str(one.image), one.bare), one, file)
            pairs[split].append((pope_answer(said), "no" if label == "no" else "yes"))
        each = {split: binary_figures(found) for split, found in pairs.items()}
        shown = ("accuracy", "precision", "recall", "f1", "yes_ratio")
        metrics = {name: mean(figures[name] for figures in each.values()) for name in shown}
        metrics |= {f"{split}_{name}": figures[name] for split, figures in each.items() for name in figures}
        rows_: list[tuple[Cell, ...]] = [(split, *(found[name] for name in shown)) for split, found in each.items()]
        rows_.append(("mean", *(metrics[name] for name in shown)))
        return Scored(metrics, [Table("splits", ("split", *shown), rows_)], ("accuracy", "f1"))


@EVALUATORS.register_module(name="gqa_score")
class GqaScore:
    """GQA (arXiv 1902.09506): the answer itself, in lower case and without periods at its end.

    Args:
        root: the benchmarks' folder.
        file: GQA's questions with answers inside.
    """

    name = "gqa"

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        path = below(self.root, self.file, "gqa_score.file")
        rights: dict[str, list[float]] = defaultdict(list)
        with of_truth(path, self.name):
            known: dict[str, Any] = json_at(path)
            for one, said in answered:
                row = truth(known, str(one.key), one, path)
                kind = str((row.get("types") or {}).get("structural", "all"))
                rights[kind].append(float(gqa_answer(said) == row["answer"]))
        accuracy = mean(right for found in rights.values() for right in found)
        return Scored({"accuracy": accuracy}, [by_group(rights, "kinds of questions", "kind")], ("accuracy",))


@EVALUATORS.register_module(name="scienceqa_score")
class ScienceQaScore:
    """ScienceQA (arXiv 2209.09513): the letter of the right option; those with a picture are SQA-I.

    Args:
        root: the benchmarks' folder.
        file: ScienceQA's `problems.json` inside.
    """

    name = "scienceqa"

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        path = below(self.root, self.file, "scienceqa_score.file")
        rights: dict[str, list[float]] = {"with a picture": [], "without": []}
        unread = 0
        with of_truth(path, self.name):
            known: dict[str, Any] = json_at(path)
            for one, said in answered:
                row = truth(known, str(one.key), one, path)
                letter = option_letter(said, LETTERS[: len(row["choices"])])
                unread += letter is None
                kind = "without" if one.image is None else "with a picture"
                rights[kind].append(float(letter == LETTERS[row["answer"]]))
        metrics = {"image_accuracy": mean(rights["with a picture"])}
        metrics |= {"accuracy": mean([*rights["with a picture"], *rights["without"]]), "no_letter": float(unread)}
        return Scored(metrics, [by_group(rights, "questions", "kind")], ("image_accuracy", "accuracy"))


@EVALUATORS.register_module(name="seed_score")
class SeedScore:
    """SEED-Bench (arXiv 2307.16125): the letter alone, of pictures and of middle frames of clips.

    Args:
        root: the benchmarks' folder.
        file: `SEED-Bench.json` inside.
    """

    name = "seed"

    def __init__(self, root: str | None, file: str) -> None:
        self.root, self.file = root, file

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        path = below(self.root, self.file, "seed_score.file")
        rights: dict[str, list[float]] = defaultdict(list)
        with of_truth(path, self.name):
            known = {str(row["question_id"]): row for row in json_at(path)["questions"]}
            for one, said in answered:
                row = truth(known, str(one.key), one, path)
                rights[str(row.get("data_type", "image"))].append(float(said == row["answer"]))
        metrics = {"accuracy": mean(right for found in rights.values() for right in found)}
        metrics |= {f"{kind}_accuracy": mean(found) for kind, found in rights.items()}
        return Scored(metrics, [by_group(rights, "questions", "kind")], tuple(metrics))


@EVALUATORS.register_module(name="mme_score")
class MmeScore:
    """MME (arXiv 2306.13394): points of each task, per cent of right answers and of pictures with both right.

    Args:
        root: the benchmarks' folder.
        folder: the release inside: a folder for each task with a text file for each picture, `question TAB answer`.
    """

    name = "mme"

    def __init__(self, root: str | None, folder: str) -> None:
        self.root, self.folder = root, folder

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`; a question's `question_id` is `task/picture`."""
        place = below(self.root, self.folder, "mme_score.folder")
        rights: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for one, said in answered:
            task, _, picture = str(one.key).partition("/")
            file = self._file(place / task, Path(picture).stem)
            with of_truth(file, self.name):
                lines = (line.rstrip().rpartition("\t") for line in file.read_text(encoding="utf-8").splitlines())
                known = {question.strip(): answer.strip().lower() for question, _, answer in lines}
            asked = one.bare if one.bare in known else f"{one.bare} Please answer yes or no."
            rights[task][picture].append(float(mme_answer(said) == truth(known, asked, one, file)))
        points = {}
        for task, pictures in rights.items():
            both = mean(float(all(found)) for found in pictures.values())
            points[task] = 100 * (mean(right for found in pictures.values() for right in found) + both)
        perception = sum(value for task, value in points.items() if task in PERCEPTION)
        metrics = {"perception": perception, "cognition": sum(points.values()) - perception}
        metrics |= {"total": sum(points.values()), **points}
        rows: list[tuple[Cell, ...]] = list(points.items())
        return Scored(metrics, [Table("tasks", ("task", "points"), rows)], ("perception", "cognition", "total"))

    @staticmethod
    def _file(task: Path, picture: str) -> Path:
        """Where the questions of a picture are; some tasks keep them apart from the pictures."""
        apart = task / "questions_answers_YN" / f"{picture}.txt"
        return apart if apart.is_file() else below(str(task), f"{picture}.txt", "mme_score.folder")
