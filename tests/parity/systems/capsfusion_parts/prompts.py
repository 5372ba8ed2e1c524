"""CapsFusion's case of prompts: two captions in a template, and what is left of them under a limit.

The authors' own template travels with no package. Without it (`MMZOO_CAPSFUSION_TEMPLATE` names a file with it) only
the lengths of its prompts are compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.captions.prompts import FusionPrompt, count_words, cut_words, fusion_prompt_file

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"assemble": None, "truncate": None}
CALL_FIELDS: set[str] = set()
VARIABLE = "MMZOO_CAPSFUSION_TEMPLATE"
PRESET = Path(__file__).parents[4] / "conf" / "fusion_prompt" / "capsfus_llama.yaml"
#: Key of the case -> key of the preset for the published student.
PUBLISHED = {"official_template_sha256": "sha256", "official_limit_tokens": "limit"}
#: What the prompt has no say in: the engine's settings.
ENGINE = ("official_max_new_tokens", "official_num_beams", "official_batch", "official_padding")
CONFIG = ("template", "template_words_without_captions", "official_template_chars", *PUBLISHED, *ENGINE)
ASSEMBLE = ("raw", "synthetic", "assembled", "assembled_html_unescaped", "official_sha256", "official_chars", "words")
TRUNCATE = ("raw", "synthetic", "limit", "prompt", "words_cut", "words_left", "fits", "reference_raw_left")


def _facts(case: Case) -> Outcome:
    """What the configuration says about the template and about the published one."""
    config = take_known(case.config, CONFIG, "config")
    preset = yaml.safe_load(PRESET.read_text())
    outcome = {key: Pair(preset[ours], config[key]) for key, ours in PUBLISHED.items() if key in config}
    if (key := "template_words_without_captions") in config:
        outcome[key] = Pair(count_words([FusionPrompt(config["template"]).fill("", "")])[0], config[key])
    return outcome


def _compared(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[Any]]) -> dict[str, Pair]:
    """What was found in each row beside what those rows say that say something about it."""
    named = {name: [number for number, row in enumerate(rows) if name in row] for name in found}
    return {
        name: Pair([found[name][number] for number in numbers], [rows[number][name] for number in numbers])
        for name, numbers in named.items()
        if numbers
    }


def _lengths(row: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Characters of the published template's prompt, by a text of the same length."""
    places = "{raw}{synthetic}"
    same_length = FusionPrompt("x" * (config["official_template_chars"] - len(places)) + places)
    return len(same_length.fill(row["raw"], row["synthetic"]))


def assemble(request: Request) -> Outcome:
    """Prompts of all rows, as they are and with HTML entities turned into characters."""
    config = request.case.config
    rows = [take_known(row, ASSEMBLE, "assemble") for row in request.case.fields["assemble"]]
    plain, unescaped = FusionPrompt(config["template"]), FusionPrompt(config["template"], unescape_html=True)
    texts = [(row["raw"], row["synthetic"]) for row in rows]
    found: dict[str, Sequence[Any]] = {
        "assembled": [plain.fill(*pair) for pair in texts],
        "assembled_html_unescaped": [unescaped.fill(*pair) for pair in texts],
        "words": count_words([plain.fill(*pair) for pair in texts]),
    }
    if "official_template_chars" in config:
        found["official_chars"] = [_lengths(row, config) for row in rows]
    if file := os.environ.get(VARIABLE):
        whole = fusion_prompt_file(file)
        found["official_sha256"] = [hashlib.sha256(whole.fill(*pair).encode()).hexdigest() for pair in texts]
    return {**_facts(request.case), **_compared(rows, found)}


def truncate(request: Request) -> Outcome:
    """What is left of the captions of each row under its limit, counted in words."""
    template = take_known(request.case.config, CONFIG, "config")["template"]
    rows = [take_known(row, TRUNCATE, "truncate") for row in request.case.fields["truncate"]]
    found: dict[str, list[Any]] = {name: [] for name in TRUNCATE[3:]}
    for row in rows:
        prompt = FusionPrompt(template, limit=row["limit"])
        filled = prompt.shorten(row["raw"], row["synthetic"], count_words, cut_words)
        whole = count_words([prompt.fill(row["raw"], row["synthetic"])])[0]
        found["prompt"].append(filled.prompt)
        found["words_cut"].append(filled.cut)
        found["words_left"].append(count_words([filled.prompt])[0])
        found["fits"].append(filled.fits)
        # the published rule cuts the raw caption once, by what is too much, and at the very limit down to nothing
        left = cut_words(prompt.clean(row["raw"]), whole - row["limit"])
        found["reference_raw_left"].append("" if whole == row["limit"] else left)
    return _compared(rows, found)


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"assemble")(assemble)
    system.call(r"truncate")(truncate)
