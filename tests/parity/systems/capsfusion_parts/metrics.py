"""CapsFusion's case of caption scores: CIDEr, BLEU, ROUGE-L of captions in words, and the words of captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.evaluation.caption_metrics import Figures, bleu, cider, rouge_l
from multimodal_zoo.evaluation.ptb_words import captions_words

CALL_FIELDS: set[str] = set()
#: Keys of the configuration: of CIDEr, of BLEU, of ROUGE-L.
CIDER, BLEU, ROUGE = (
    {"cider_n": "n", "cider_sigma": "sigma", "df": "df"},
    {"bleu_n": "n", "bleu_option": "option"},
    {"rouge_beta": "beta"},
)
OUTPUTS = (
    "order",
    "cider",
    "cider_each",
    "bleu",
    "bleu_each",
    "rouge_l",
    "rouge_l_each",
    "cider_single_image",
    "cider_single_image_key",
)


def _settings(case: Case, keys: Mapping[str, str]) -> dict[str, Any]:
    """Our arguments by the case's keys; every key of the case must be one of a score."""
    config = take_known(case.config, (*CIDER, *BLEU, *ROUGE), "config")
    return {ours: config[key] for key, ours in keys.items() if key in config}


def _captions(case: Case, keys: Sequence[str] | None = None) -> tuple[dict[str, list[str]], dict[str, str]]:
    """True captions and candidates in the order in which the case tells figures."""
    truths, said = case.fields["references"], case.fields["candidates"]
    names = list(case.fields["outputs"].get("order", truths)) if keys is None else keys
    return {name: list(truths[name]) for name in names}, {name: said[name] for name in names}


def _pairs(case: Case, whole: tuple[str, Any], each: tuple[str, Any]) -> Outcome:
    known = case.fields["outputs"]
    return {name: Pair(_exact(found), _exact(known[name])) for name, found in (whole, each) if name in known}


def _exact(figures: Any) -> Tensor:
    """Figures with all of their digits, compared within the tolerance of the call, lists of them as well."""
    return torch.tensor(figures, dtype=torch.float64)


def outputs(case: Case) -> Outcome:
    """What the case says beside its calls: every output is a known one, and CIDEr of a picture alone."""
    known = take_known(case.fields["outputs"], OUTPUTS, "outputs")
    found: dict[str, Pair] = {}
    if "order" in known:
        found["order"] = Pair(sorted(known["order"]), sorted(case.fields["candidates"]))
    if "cider_single_image" in known:
        alone = cider(*_captions(case, [known["cider_single_image_key"]]), **_settings(case, CIDER))
        found["cider_single_image"] = Pair(alone.whole, known["cider_single_image"])
    return found


def words(case: Case) -> Outcome:
    """Captions in words, equal to the characters."""
    rows = [take_known(row, ("text", "tokens"), "ptb_tokenizer") for row in case.fields["ptb_tokenizer"]]
    found = captions_words({"all": [row["text"] for row in rows]})["all"]  # one call, as the program was given them
    return {str(number): Pair(text, row["tokens"]) for number, (text, row) in enumerate(zip(found, rows, strict=True))}


def _cider(request: Request) -> Outcome:
    found = cider(*_captions(request.case), **_settings(request.case, CIDER))
    return _pairs(request.case, ("cider", found.whole), ("cider_each", found.each))


def _bleu(request: Request) -> Outcome:
    found: list[Figures] = bleu(*_captions(request.case), **_settings(request.case, BLEU))
    return _pairs(request.case, ("bleu", [one.whole for one in found]), ("bleu_each", [one.each for one in found]))


def _rouge(request: Request) -> Outcome:
    found = rouge_l(*_captions(request.case), **_settings(request.case, ROUGE))
    return _pairs(request.case, ("rouge_l", found.whole), ("rouge_l_each", found.each))


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {
    "references": None,
    "candidates": None,
    "outputs": outputs,
    "ptb_tokenizer": words,
}


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"Cider\.compute_score")(_cider)
    system.call(r"Bleu\.compute_score")(_bleu)
    system.call(r"Rouge\.compute_score")(_rouge)
