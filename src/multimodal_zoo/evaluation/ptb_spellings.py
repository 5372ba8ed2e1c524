"""How tokens are spelt: what Penn Treebank's files cannot hold becomes what they write instead."""

from __future__ import annotations

import re

#: Brackets by Penn Treebank's names.
BRACKETS = {"(": "-LRB-", ")": "-RRB-", "{": "-LCB-", "}": "-RCB-", "[": "-LSB-", "]": "-RSB-"}
#: Signs of money by the two that are left.
MONEY = {"\u00a2": "cents", "\u00a3": "#", "\u20ac": "$", "\u0080": "$", "\u00a4": "$", "\u20a0": "$"}
FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
ENTITIES = {"amp": "&", "lt": "<", "gt": ">"}
#: Quotation marks by those of typewriters.
QUOTES = {
    **dict.fromkeys("\u2018\u0091\u201b\u2039", "`"),
    **dict.fromkeys("\u2019\u0092\u203a", "'"),
    **dict.fromkeys("\u201c\u0093\u00ab", "``"),
    **dict.fromkeys("\u201d\u0094\u00bb", "''"),
}


def raw(token: str) -> str:
    """The token itself."""
    return token


def nothing(token: str) -> str:
    """No token."""
    del token
    return ""


def as_it_is(token: str) -> str:
    """The token without soft hyphens; one hyphen where nothing else is left."""
    return token.replace("\u00ad", "") or "-"


def unbroken(token: str) -> str:
    """Blanks inside become ones that nobody cuts at."""
    return token.replace(" ", "\u00a0")


def unescaped(token: str) -> str:
    """Entities become characters."""
    return re.sub("(?i)&(amp|lt|gt);", lambda entity: ENTITIES[entity[1].lower()], token)


def bracketed(token: str) -> str:
    """Brackets become names."""
    return "".join(BRACKETS.get(one, one) for one in token)


def smiley(token: str) -> str:
    """Round brackets become names."""
    return token.replace("(", "-LRB-").replace(")", "-RRB-")


def currency(token: str) -> str:
    """A sign of money."""
    return MONEY.get(token, token)


def dashes(token: str) -> str:
    """Dashes, and three or four hyphens, become two hyphens; other numbers of hyphens stay."""
    return "--" if len(token) in (3, 4) or token.strip("-") else token


def ellipsis(token: str) -> str:
    """Three points."""
    del token
    return "..."


def fraction(token: str) -> str:
    """A fraction in figures."""
    return FRACTIONS.get(token, token)


def initials(token: str) -> str:
    """Initials keep their point before another sentence, a single letter loses it."""
    return token if len(token) > 2 else token[:1]


def opening(token: str) -> str:
    """A straight mark in front of a word."""
    return {"'": "`", '"': "``", "&quot;": "``"}.get(token, token)


def closing(token: str) -> str:
    """A straight double mark anywhere else."""
    return {'"': "''", "&quot;": "''"}.get(token, token)


def quotes(token: str) -> str:
    """Quotation marks as typewriters have them."""
    return "".join(QUOTES.get(one, one) for one in token).replace("&apos;", "'")
