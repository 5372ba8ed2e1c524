"""Captions in words as published caption scores have them: Stanford's Penn Treebank tokenizer, without Java."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from multimodal_zoo.evaluation.ptb_rules import rules

#: Tokens that the caption toolkit of COCO drops. Names of brackets are on its list too, but in capitals, which tokens
#: no longer have then: they stay, as in published figures.
DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
#: A word in front of a blank, which no longer token can begin with, unless it is one of those that are cut.
_SIMPLE = re.compile("(?!(?i:cannot|gonna|gotta|lemme|gimme|wanna)\\b)[A-Za-z]+(?=[ \\n])")


#: Characters of the next caption that rules may look at.
AHEAD = 64


def tokens(text: str, behind: str = "\n") -> list[str]:
    """A line of text in tokens, punctuation among them.

    Args:
        text: one line; other line ends in it count as blanks.
        behind: what follows the line: abbreviations at its end are read by what comes next.
    """
    line = " ".join(text.splitlines())
    whole, found, place = line + behind, [], 0
    while place < len(line):
        simple = _SIMPLE.match(whole, place)
        if simple is not None:
            found.append(simple[0])
            place = simple.end() + 1
            continue
        token, place = _token(whole, place)
        if token:
            found.append(token)
    return found


def _token(line: str, place: int) -> tuple[str, int]:
    """The token at a place, empty for none, and where the next one begins."""
    best, chosen, end = None, None, place
    for rule in rules():
        match = rule.pattern.match(line, place)
        if match is not None and match.end() > end:
            best, chosen, end = match, rule, match.end()
    if best is None or chosen is None:
        return "", place + 1
    token = best[1][: -chosen.back] if chosen.back > 1 else best[1]
    return chosen.spell(token), best.end(1) - chosen.back


def caption_words(text: str, behind: str = "\n") -> str:
    """A caption as scores compare it: tokens in lower case, without punctuation, a blank between them.

    Equal to `PTBTokenizer` of pycocoevalcap 1.2 (CoreNLP 3.4.1, `-preserveLines -lowerCase`).

    Args:
        text: any; line ends count as blanks.
        behind: see `tokens`.
    """
    whole = " ".join(token.lower() for token in tokens(text, behind)).rstrip()  # an unbroken blank at the end goes too
    return " ".join(word for word in whole.split(" ") if word not in DROPPED)


def captions_words(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """`caption_words` of texts by picture, read one behind the other as the program reads them.

    What a caption begins with decides in rare cases how an abbreviation at the end of the one before it is read.
    """
    lines = [one for some in texts.values() for one in some]
    words = []
    for number, line in enumerate(lines):
        following = [" ".join(one.splitlines()) for one in lines[number + 1 : number + 3]]
        words.append(caption_words(line, "".join(f"\n{one}" for one in following)[:AHEAD]))
    given = iter(words)
    return {key: [next(given) for _ in some] for key, some in texts.items()}
