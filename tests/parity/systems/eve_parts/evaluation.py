"""EVE's case of answers: normalisation, agreement with people, yes and no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.evaluation.vqa_answers import normalized, pope_answer, soft_accuracy
from multimodal_zoo.evaluation.vqa_scores import binary_figures

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"data"}
#: The published program's name of a figure -> ours.
FIGURES = {
    "Accuracy": "accuracy",
    "Precision": "precision",
    "Recall": "recall",
    "F1 score": "f1",
    "Yes ratio": "yes_ratio",
}


def _close(found: float, expected: float) -> Pair:
    """Shares to twelve digits: sums in another order differ in the last one."""
    return Pair(round(found, 12), round(float(expected), 12))


def answers(request: Request) -> Outcome:
    """Texts as the servers compare them."""
    take_known(request.case.config, (), "config")
    items = [take_known(one, ("text", "normalized"), "item") for one in request.call.extra["data"]]
    return {f"item {number}": Pair(normalized(one["text"]), one["normalized"]) for number, one in enumerate(items)}


def agreement(request: Request) -> Outcome:
    """How far people agree with each answer, and the mean."""
    data = take_known(request.call.extra["data"], ("items", "overall"), "data")
    items = [take_known(one, ("pred", "answers", "accuracy"), "item") for one in data["items"]]
    found = [soft_accuracy(one["pred"], one["answers"]) for one in items]
    pairs = {
        f"item {number}": _close(value, one["accuracy"])
        for number, (value, one) in enumerate(zip(found, items, strict=True))
    }
    return {**pairs, "overall": _close(sum(found) / len(found), data["overall"])}


def yes_and_no(request: Request) -> Outcome:
    """What each answer means, and the figures of all."""
    data: Mapping[str, Any] = take_known(request.call.extra["data"], ("items", "counts", "metrics"), "data")
    items = [take_known(one, ("text", "label", "parsed"), "item") for one in data["items"]]
    said = [pope_answer(one["text"]) for one in items]
    figures = binary_figures([(one, item["label"]) for one, item in zip(said, items, strict=True)])
    counts = take_known(data["counts"], ("TP", "FP", "TN", "FN"), "counts")
    metrics = take_known(data["metrics"], tuple(FIGURES), "metrics")
    return {
        "parsed": Pair(said, [one["parsed"] for one in items]),
        "counts": Pair({name: figures[name] for name in counts}, dict(counts)),
        **{name: _close(figures[FIGURES[name]], value) for name, value in metrics.items()},
    }


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"EvalAIAnswerProcessor")(answers)
    system.call(r"TextVQAAccuracyEvaluator")(agreement)
    system.call(r"eval_pope")(yes_and_no)
