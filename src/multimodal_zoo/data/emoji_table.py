"""The table of emoji: names, keywords, groups, and the rule that puts pictures of one thing into one concept.

Names, keywords and groups come from Unicode CLDR by way of emojibase-data 17.0.0; see NOTICE.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from multimodal_zoo.packages import needed

SPLITS = ("train", "val", "test")
SALT = "mmzoo-emoji-v1:"
JOINER, HEART, KISS, COUPLE = "200d", "2764", "1f48b", "1f491"
ADULT, CHILD, FAMILY = "1f9d1", "1f9d2", "1f46a"
TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
CLOCKS = frozenset(f"{code:x}" for code in range(0x1F550, 0x1F568))
SIGNS = ("200d-2640", "200d-2642", "200d-27a1")
PERSONS = {"1f468": ADULT, "1f469": ADULT, "1f466": CHILD, "1f467": CHILD}

#: Single signs that show the same thing (or the same pixels, as the flags of some territories do).
ALIASES = {
    **PERSONS,
    **dict.fromkeys(("1f474", "1f475"), "1f9d3"),
    **dict.fromkeys(("1f934", "1f478"), "1fac5"),
    **dict.fromkeys(("1f930", "1fac3"), "1fac4"),
    **dict.fromkeys(("1f385", "1f936"), "1f9d1-200d-1f384"),
    **dict.fromkeys(("1f46b", "1f46c", "1f46d"), "1f9d1-200d-1f91d-200d-1f9d1"),
    "1f57a": "1f483",
    "1f9d1-200d-1f430-200d-1f9d1": "1f46f",
    "1f9d1-200d-1faef-200d-1f9d1": "1f93c",
    "1faf1-200d-1faf2": "1f91d",
    "1f471": ADULT,
    **{f"{ADULT}-200d-1f9b{hair}": ADULT for hair in range(4)},
    "1f64e": "1f64d",
    "1f1ed-1f1f2": "1f1e6-1f1fa",
    **dict.fromkeys(("1f1e8-1f1f5", "1f1f2-1f1eb"), "1f1eb-1f1f7"),
    "1f1e9-1f1ec": "1f1ee-1f1f4",
    "1f1ea-1f1e6": "1f1ea-1f1f8",
    **dict.fromkeys(("1f1f8-1f1ef", "1f1e7-1f1fb"), "1f1f3-1f1f4"),
    "1f1fa-1f1f2": "1f1fa-1f1f8",
    "1f1f2-1f1e8": "1f1ee-1f1e9",
}


@dataclass(frozen=True)
class Emoji:
    """One row of the table.

    Attributes:
        sequence: code points, lower-case hex without leading zeros and without fe0f, joined by `-`.
        name: English name.
        keywords: English keywords.
        aliases: other English names.
        group: one of 9.
        subgroup: one of 98.
        concept: the sequence that stands for everything showing the same thing.
        split: `train`, `val` or `test`; a concept lies in one of them.
        toned: whether it is a skin-tone variant.
    """

    sequence: str
    name: str
    keywords: tuple[str, ...]
    aliases: tuple[str, ...]
    group: str
    subgroup: str
    concept: str
    split: str
    toned: bool


def normal_key(code_points: str | Iterable[str]) -> str:
    """The join key of all sources: lower case, no leading zeros, no fe0f (which sources set differently)."""
    points = code_points.split("-") if isinstance(code_points, str) else code_points
    return "-".join(p for p in (point.lower().lstrip("0") for point in points) if p != "fe0f")


def concept_of(sequence: str) -> str:
    """The concept of a sequence: without skin tone, gender, direction; persons, families and clocks are one each."""
    points = sequence.split("-")
    if len(points) > 1:
        points = [point for point in points if point not in TONES]
    key = "-".join(points)
    for sign in SIGNS:
        key = key.replace(f"-{sign}", "")
    points = key.split("-")
    if key in CLOCKS:
        key = "1f550"
    if JOINER in points:
        points = [PERSONS.get(point, point) for point in points]
        key = "-".join(points)
        if HEART in points:
            key = "1f48f" if KISS in points else COUPLE if points[0] == ADULT else key
        elif set(points) <= {ADULT, CHILD, JOINER}:
            key = FAMILY
    return ALIASES.get(key, key)


def split_of(concept: str) -> str:
    """80 / 10 / 10 by a hash of the concept, so that no concept lies on two sides."""
    bucket = int(hashlib.sha256((SALT + concept).encode()).hexdigest()[:8], 16) % 100
    return "train" if bucket < 80 else "val" if bucket < 90 else "test"


@cache
def load_table() -> tuple[Emoji, ...]:
    """The 3,944 emoji that both picture sets draw, in Unicode order within groups."""
    with files("multimodal_zoo.data").joinpath("emoji_table.json.gz").open("rb") as packed:
        rows = json.loads(gzip.decompress(packed.read()))
    emoji = []
    for row in rows:
        concept = concept_of(row["seq"])
        emoji.append(
            Emoji(
                sequence=row["seq"],
                name=row["name"],
                keywords=tuple(row["tags"]),
                aliases=tuple(row["aliases"]),
                group=row["group"],
                subgroup=row["subgroup"],
                concept=concept,
                split=split_of(concept),
                toned=bool(row["tone"]),
            )
        )
    return tuple(emoji)


@cache
def vocabulary_of(field: str) -> tuple[str, ...]:
    """Sorted distinct values of `concept`, `group` or `subgroup` over the whole table: ids agree between splits."""
    return tuple(sorted({getattr(row, field) for row in load_table()}))


@cache
def names_in(language: str) -> dict[str, str]:
    """Names by sequence in one of the `emoji` package's languages (en es ja ko pt it fr de fa id zh ru tr ar).

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: a language that it does not have.
    """
    if language == "en":
        return {row.sequence: row.name for row in load_table()}
    emoji = needed("emoji", f"data.language={language}", "quickstart")
    if language not in emoji.LANGUAGES:
        raise ValueError(f"data.language is {language!r}; it must be one of {', '.join(emoji.LANGUAGES)}")
    emoji.config.load_language(language)
    wanted = {row.sequence for row in load_table()}
    names: dict[str, str] = {}
    for sign, facts in emoji.EMOJI_DATA.items():
        key = normal_key(f"{ord(character):x}" for character in sign)
        if key in wanted and language in facts and (key not in names or facts["status"] == 2):
            names[key] = facts[language].strip(":").replace("_", " ")
    return names
