"""Caption triples on real pictures: what the web says of an emoji, what a captioner says, and both in one sentence.

The three columns of CapsFusion (arXiv 2310.20550, figure 2) for pictures that come inside installed packages. The raw
caption knows the name but is keyword soup; the generic sentence is well formed but knows no name; the fused one is
built from the table. Our own construction: nothing of it was published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from multimodal_zoo.data.emoji_classes import COLOURS, FORMS, colours_of, listed, noun_of
from multimodal_zoo.data.emoji_fusing import fused_sentence, plain_name
from multimodal_zoo.data.emoji_pictures import load_pictures
from multimodal_zoo.data.emoji_table import SPLITS, Emoji, load_table

#: What stands around names on the web and says nothing of the picture; `{n}` becomes a number.
NOISE = (
    "stock photo", "free download", "clipart", "vector", "royalty free", "png", "transparent background", "icon",
    "HD wallpaper", "{n}x{n}", "IMG_{n}.jpg", "image{n}.png", "sticker", "best price", "{n}px", "free shipping",
    "Pinterest", "shutterstock {n}", "click to enlarge", "page {n}", "high resolution", "svg", "download now", "#emoji",
    "&amp;", "buy online",
)  # fmt: skip
SEPARATORS = (" ", " ", ", ", " | ", " - ", " / ", "_", "; ")
#: Words of names that any captioner could say.
COMMON_WORDS = frozenset(
    (
        "a",
        "an",
        "and",
        "at",
        "button",
        "by",
        "face",
        "flag",
        "for",
        "from",
        "hand",
        "in",
        "man",
        "of",
        "off",
        "on",
        "or",
    )
).union(("person", "sign", "symbol", "the", "to", "up", "with", "without", "woman"))
#: Keywords that a raw caption carries at most; the fused sentence keeps each of them.
KEYWORDS = 4
SIZE = 64


@dataclass(frozen=True)
class Triple:
    """One picture with its three captions.

    Attributes:
        key: `style/sequence`, as the pictures of `emoji_pairs` are called.
        row: the row of the table.
        style: of the drawing.
        raw: as on the web.
        synthetic: as a captioner writes.
        fused: the sentence that keeps the facts of the first in the form of the second.
    """

    key: str
    row: Emoji
    style: str
    raw: str
    synthetic: str
    fused: str


def specific_names(row: Emoji) -> tuple[str, ...]:
    """Words of a row's name, lower case, that only one who knows the emoji can say; empty for names such as `person`.

    The share of them that a caption keeps is the measure of world knowledge.
    """
    words = re.findall(r"\w+", plain_name(row).lower())
    generic = set(re.findall(r"\w+", noun_of(row).lower())) | COMMON_WORDS
    return tuple(dict.fromkeys(word for word in words if word not in generic))


def told_keywords(row: Emoji, seed: int | str) -> tuple[str, ...]:
    """The keywords, four at most, that the raw caption of this seed carries besides the name."""
    known = set(re.findall(r"\w+", f"{row.name} {plain_name(row)}".lower()))
    fresh = [word for word in row.keywords if not set(re.findall(r"\w+", word.lower())) <= known]
    random = _random("keywords", row, seed)
    return tuple(random.sample(fresh, min(len(fresh), random.randint(1, KEYWORDS))))


def raw_caption(row: Emoji, seed: int | str = 0) -> str:
    """Name and keywords in any order among words of the web: file names, sizes, offers.

    Args:
        row: of the table.
        seed: another seed gives another caption.
    """
    random = _random("raw", row, seed)
    name = plain_name(row)
    if row.group == "flags" and random.random() < 0.5:
        name = f"{name} flag"
    pieces = [name, *told_keywords(row, seed)]
    for noise in random.sample(NOISE, random.randint(1, 4)):
        pieces.append(noise.replace("{n}", str(random.choice((2, 32, 72, 128, 256, 512, 1024, 2048, 4096, 7731)))))
    random.shuffle(pieces)
    text = random.choice(SEPARATORS).join(pieces)
    style = random.random()
    return text if style < 0.6 else text.lower() if style < 0.75 else text.title() if style < 0.9 else text.upper()


def class_sentence(row: Emoji, seed: int | str = 0, colours: Sequence[str] = ()) -> str:
    """What a captioner that knows no names says: the kind of thing, and the colours that it sees.

    Args:
        row: of the table.
        seed: another seed may give another sentence.
        colours: of the drawing, see `emoji_classes.colours_of`.
    """
    random = _random("class", row, seed)
    form, noun, seen = random.choice(FORMS), noun_of(row), listed(colours)
    article = "An" if form == "illustration" else "A"
    plain = (
        f"{article} {form} of {noun} on a white background.",
        f"There is {article.lower()} {form} of {noun}.",
        f"{article} simple {form} of {noun}.".replace("An simple", "A simple"),
    )
    coloured = (
        f"{article} {form} of {noun} in {seen}.",
        f"{article} {form} of {noun} with {seen} colors.",
        f"There is {article.lower()} {form} of {noun} in {seen} on a white background.",
    )
    return random.choice(coloured if colours else plain)


def fused_target(row: Emoji, seed: int | str = 0, synthetic: str | None = None) -> str:
    """The sentence that a good fusion of this seed's raw caption and a synthetic one would be.

    It has the name and every keyword of `raw_caption`, the kind of thing from the table (so that a wrong synthetic
    caption is corrected), and the form and the colours that the synthetic caption mentions; nothing of the web's noise.

    Args:
        row: of the table.
        seed: as for `raw_caption`.
        synthetic: the caption to fuse with; left out, `class_sentence` of this seed.
    """
    synthetic = class_sentence(row, seed) if synthetic is None else synthetic
    said = set(re.findall(r"\w+", synthetic.lower()))
    form = next((form for form in FORMS if form in said), "picture")
    return fused_sentence(row, told_keywords(row, seed), form, _colours_in(synthetic), _random("fused", row, seed))


def triples(
    split: str | Sequence[str] = "train",
    style: str = "twemoji",
    seed: int = 0,
    synthetic: Mapping[str, str] | None = None,
) -> list[Triple]:
    """The triples of every emoji of some splits in one style; skin tones are left out.

    Args:
        split: `train`, `val`, `test`, or several; they are disjoint in concepts.
        style: `twemoji` or `openmoji`; each has raw captions of its own.
        seed: of all three captions.
        synthetic: captions of a captioner by `key`; left out, `class_sentence` with the drawing's colours.

    Raises:
        ModuleNotFoundError: the packages of the extra `quickstart` are not installed.
        ValueError: an unknown style or split, or captions that lack a key.
    """
    splits = (split,) if isinstance(split, str) else tuple(split)
    for one in splits:
        if one not in SPLITS:
            raise ValueError(f"split is {one!r}; it must be one of {', '.join(SPLITS)}")
    stored = [row for row in load_table() if not row.toned]
    chosen = [i for i, row in enumerate(stored) if row.split in splits]
    rows = {f"{style}/{stored[i].sequence}": stored[i] for i in chosen}
    if synthetic is None:
        colours = colours_of(load_pictures(style, [row.sequence for row in stored], SIZE)[chosen])
        synthetic = {
            key: class_sentence(row, f"{seed}/{style}", seen)
            for (key, row), seen in zip(rows.items(), colours, strict=True)
        }
    missing = [key for key in rows if key not in synthetic]
    if missing:
        raise ValueError(f"synthetic has no caption for {len(missing)} of {len(rows)} keys, first {missing[0]!r}")
    return [
        Triple(
            key,
            row,
            style,
            raw_caption(row, f"{seed}/{style}"),
            synthetic[key],
            fused_target(row, f"{seed}/{style}", synthetic[key]),
        )
        for key, row in rows.items()
    ]


def _colours_in(text: str) -> tuple[str, ...]:
    """Colours that a text names, in its order; `light blue` is one."""
    pattern = "|".join(sorted(COLOURS, key=len, reverse=True))
    seen = re.sub(r"\b\w+ background", "", text.lower())
    return tuple(dict.fromkeys(re.findall(rf"\b(?:{pattern})\b", seen)))[:2]


def _random(what: str, row: Emoji, seed: int | str) -> Random:
    # A text seeds by its SHA-512, the same in every process.
    return Random(f"{what}/{seed}/{row.sequence}")
