"""The sentence that names an emoji and says what it is, in varied forms: the target of fusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from multimodal_zoo.data.emoji_classes import listed, noun_of
from multimodal_zoo.data.emoji_table import Emoji

#: Names of things that are not counted or come in twos.
NO_ARTICLE = frozenset(
    ("bread", "rice", "sake", "yarn", "thread", "money", "clothes", "sushi", "jeans", "foggy", "dna", "cinema")
)
#: What keywords are to a picture, as it stands before their enumeration.
LINKS = ("associated with", "related to", "linked to", "that brings to mind", "that goes with")


def plain_name(row: Emoji) -> str:
    """A row's name without the table's punctuation: `flag: Poland` is `Poland`, `man: bald` is `bald man`."""
    head, _, rest = re.sub(r"[“”()]", "", row.name).replace("\u2019", "'").partition(": ")
    if head == "flag":
        return rest
    if head == "family":
        members = rest.split(", ")
        return f"family of {listed(members)}"
    if rest == "bald":
        return f"{rest} {head}"
    return f"{head} with {rest}" if rest.endswith(("hair", "beard")) else f"{head} {rest}".strip()


def noun_phrase(row: Emoji) -> str:
    """The name as it stands in a sentence: with an article where it takes one."""
    name = plain_name(row)
    words = name.split()
    head = re.split(r" (?:with|of|in|on|at|from|without|behind) ", name)[0].split()[-1]
    if row.name.startswith("flag: "):
        return f"the flag of {name}"
    if row.subgroup == "time" and re.search("o'clock|thirty$", name):
        return f"a clock that shows {name}"
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "as", "'s"))
    proper = words[-1][0].isupper() or (name[0].isupper() and "of" in words)
    if plural or proper or head.lower() in NO_ARTICLE or not name[0].isalpha():
        return name
    return f"{'an' if _vowel(words[0]) else 'a'} {name}"


def _vowel(word: str) -> bool:
    """Whether a word starts with a vowel as it is spoken; short words in capitals are spelled out."""
    if word.isupper() and len(word) < 4:
        return word[0] in "AEFHILMNORSX" and word != "UP"
    return (word[0].lower() in "aeio" or word.startswith(("um", "un", "up"))) and word not in ("one", "unicorn", "euro")


def fused_sentence(row: Emoji, keywords: Sequence[str], form: str, colours: Sequence[str], random: Random) -> str:
    """One sentence with the name, the kind of thing, the colours and the keywords.

    Args:
        row: of the table.
        keywords: to be named, any number; those that the kind of thing says already are not repeated.
        form: what the picture is called: `drawing`, `cartoon`, ...
        colours: to be named, any number.
        random: chooses the pattern.
    """
    name, noun, seen = noun_phrase(row), noun_of(row), f" in {listed(colours)}" if colours else ""
    article = "an" if form[0] in "aeiou" else "a"
    codes = [word for word in keywords if row.group == "flags" and word.isupper()]
    name = f"{name} ({', '.join(codes)})" if codes else name
    links = [word for word in keywords if word not in (*codes, *noun.split())]
    linked = f"{random.choice(LINKS)} {listed(links)}" if links else ""
    comma, brief = (f", {linked}" if linked else ""), (f" {linked}" if linked else "")
    sentence = random.choice(
        (
            f"{article} {form} of {name}, {noun}{seen}{comma}.",
            f"this {form} shows {name}, {noun}{brief}{f', drawn{seen}' if seen else ''}.",
            f"{name} is shown as {noun}{seen}{comma}.",
            f"the {form} is of {noun}{seen}: {name}{comma}.",
            f"{article} {form} of {noun}{seen} that shows {name}{comma}.",
            f"{seen.strip()}, this {form} presents {name}, {noun}{brief}." if seen else f"{name}: {noun}{comma}.",
        )
    )
    return sentence[0].upper() + sentence[1:]
