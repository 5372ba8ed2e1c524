"""Emu's case of evaluation: what counts of an answer, agreement with people, allowed sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.evaluation.challenge_scores import COMPARISONS, challenge_figures
from multimodal_zoo.evaluation.clean_ups import short_answer, short_caption, vizwiz_answer
from multimodal_zoo.generation.trie import Trie

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"answers": None, "vqa": None, "vqa_scores": None, "trie": None}
CALL_FIELDS: set[str] = set()


def _answers(rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """What is left of each text."""
    known = ("text", "short_answer", "caption", "vizwiz", "answerable")
    found: dict[str, Pair] = {}
    for number, row in enumerate(take_known(one, known, "answer") for one in rows):
        text = row["text"]
        found[f"answer {number}"] = Pair(
            (short_answer(text), short_caption(text), vizwiz_answer(text, row["answerable"])),
            (row["short_answer"], row["caption"], row["vizwiz"]),
        )
    return found


def _scores(name: str, wanted: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """Agreement with people of each answer, and the figures of all."""
    take_known(wanted, ("accuracy", "per_question", "normalized"), f"vqa_scores.{name}")
    compared = COMPARISONS[name]
    known = ("type", "kind", "prediction", "answers")
    asked = [take_known(one, known, "question") for one in rows]
    found = [compared.accuracy(one["prediction"], one["answers"]) for one in asked]
    figures = challenge_figures((one["type"], one["kind"], value) for one, value in zip(asked, found, strict=True))
    return {
        f"{name} normalized": Pair([compared.said(one["prediction"]) for one in asked], wanted["normalized"]),
        f"{name} per question": Pair([round(100 * value, 2) for value in found], wanted["per_question"]),
        f"{name} accuracy": Pair(figures, wanted["accuracy"]),
    }


def _trie(node: Mapping[str, Any]) -> Outcome:
    """What may come next."""
    take_known(node, ("sequences", "lookups"), "trie")
    tree = Trie(node["sequences"])
    lookups = [take_known(one, ("prefix", "next"), "lookup") for one in node["lookups"]]
    return {"trie": Pair([tree.after(one["prefix"]) for one in lookups], [one["next"] for one in lookups])}


def texts(request: Request) -> Outcome:
    """All that the case has."""
    take_known(request.case.config, (), "config")
    fields = request.case.fields
    outcome: dict[str, Any] = {}
    if "answers" in fields:
        outcome |= _answers(fields["answers"])
    for name, wanted in fields.get("vqa_scores", {}).items():
        outcome |= _scores(name, wanted, fields["vqa"])
    if "trie" in fields:
        outcome |= _trie(fields["trie"])
    return outcome


def register(system: System) -> None:
    """Add the handler."""
    system.call(r"short_answer, caption clean-up, VizWiz decision; VQAEval\.evaluate, OKVQAEval\.evaluate; Trie\.get")(
        texts
    )
