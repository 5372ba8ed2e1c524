"""Data that comes with the library: the pairs of emoji and their names."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.data.emoji_pictures import STYLES
from multimodal_zoo.data.emoji_table import ALIASES, Emoji, load_table, vocabulary_of
from multimodal_zoo.data.pictures import to_rgb

SIDE = 72
#: Facts of the reference that hold the words of a rule, not a number.
PROSE = {"hash_rule"}
#: What is said of a rendered picture, behind the name of its style.
FIGURES = ("rgb_sha256", "mean_rgb", "std_rgb")


def digest(values: set[str]) -> str:
    """One hash of a set of names."""
    return hashlib.sha256("\n".join(sorted(values)).encode()).hexdigest()


def split_facts(rows: list[Emoji]) -> dict[str, Any]:
    """Counts and hashes of one split."""
    base = [row for row in rows if not row.toned]
    return {
        "concepts": len({row.concept for row in rows}),
        "images": len(rows),
        "base_images": len(base),
        "groups": dict(Counter(row.group for row in base)),
        "sha256_concepts": digest({row.concept for row in rows}),
        "sha256_keys": digest({row.sequence for row in rows}),
    }


def table_facts(case: Case) -> Outcome:
    """The field `outputs`, and the aliases of the configuration."""
    expected, table = case.fields["outputs"], load_table()
    base = [row for row in table if not row.toned]
    concepts = Counter(row.concept for row in table)
    found: dict[str, Any] = {
        "images": len(table),
        "base_images": len(base),
        "concepts": len(vocabulary_of("concept")),
        "single_image_concepts": sum(count == 1 for count in concepts.values()),
        "groups": len(vocabulary_of("group")),
        "subgroups": len(vocabulary_of("subgroup")),
        "all_keys_sha256": digest({row.sequence for row in table}),
        "base_keys_sha256": digest({row.sequence for row in base}),
        "splits": {name: split_facts([row for row in table if row.split == name]) for name in expected["splits"]},
    }
    take_known(expected, {*found, *PROSE}, "outputs")
    facts = {name: Pair(found[name], value) for name, value in expected.items() if name not in PROSE}
    return {**facts, "aliases": Pair(ALIASES, case.config["concept_aliases"])}


def sample_facts(case: Case) -> Outcome:
    """The field `samples`: name, group, concept, split and keywords of single emoji."""
    rows, outcome = {row.sequence: row for row in load_table()}, {}
    for sample in case.fields["samples"]:
        row = rows[sample["seq"]]
        facts = {
            "name": row.name, "group": row.group, "subgroup": row.subgroup, "concept": row.concept,
            "split": row.split, "tags": list(row.keywords),
        }  # fmt: skip
        take_known(sample, {"seq", *facts, *(f"{style}_{name}" for style in STYLES for name in FIGURES)}, sample["seq"])
        outcome |= {f"{sample['seq']} {name}": Pair(value, sample[name]) for name, value in facts.items()}
    return outcome


def pictures(request: Request) -> Outcome:
    """Rendered pictures: hash, mean and deviation of each sample's RGB values on white."""
    kind, samples = request.match["style"], request.case.fields["samples"]
    style = STYLES[kind]
    files = style.files()
    pixels = [np.asarray(to_rgb(style.render(files[sample["seq"]], SIDE))) for sample in samples]
    figures: dict[str, Any] = {
        "rgb_sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels],
        "mean_rgb": torch.tensor(np.stack([image.mean((0, 1)) for image in pixels])),
        "std_rgb": torch.tensor(np.stack([image.std((0, 1)) for image in pixels])),
    }
    outcome: dict[str, Pair] = {}
    for output in request.call.outputs:  # a hash makes means and deviations needless
        found, expected = figures[output.removeprefix(f"{kind}_")], [sample[output] for sample in samples]
        outcome[output] = Pair(found, torch.tensor(expected) if isinstance(found, torch.Tensor) else expected)
    return outcome


SYSTEM = System("embedded_data", fields={"outputs": table_facts, "samples": sample_facts})
SYSTEM.call(r"(?P<style>twemoji|openmoji) image")(pictures)
