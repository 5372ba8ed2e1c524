"""The rules by which Stanford's Penn Treebank tokenizer (CoreNLP 3.4.1) cuts English text, as caption scores use it.

At each place the rule that matches most text wins, what must follow a token counted; among equals the first one. The
rules are our own, found by comparing tokens with that program's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from multimodal_zoo.evaluation.ptb_characters import CAPITALS, DIGITS, LETTERS, PLAIN, SYMBOLS
from multimodal_zoo.evaluation.ptb_spellings import (
    as_it_is,
    bracketed,
    closing,
    currency,
    dashes,
    ellipsis,
    fraction,
    initials,
    nothing,
    opening,
    quotes,
    raw,
    smiley,
    unbroken,
    unescaped,
)

#: What is typed as an apostrophe, and what else stands where one should.
MARK = "(?:['\u0092\u2019]|(?i:&apos;))"
WIDE = "(?:['\u0092\u2019`\u0091\u2018\u201b]|(?i:&apos;))"
AMPERSAND = "(?:&(?i:amp);|[+&])"
LETTER = f"(?:[{LETTERS}]|&[aeiouAEIOU](?i:acute|grave|uml);)"
DIGIT = f"[{DIGITS}]"
BOTH = f"(?:{LETTER}|{DIGIT})"
#: Letters without marks, and digits.
PLAIN_BOTH = f"[{PLAIN}{DIGITS}]"
BLANK = "[ \\t\u00a0\u2000-\u200a\u3000]"
ANY_BLANK = f"(?:{BLANK}|\\r|\\r?\\n|[\u2028\u2029\u000b\u000c\u0085])"
NUMBER = f"(?:{DIGIT}*(?:[.:,\u00ad\u066b\u066c]{DIGIT}+)+|{DIGIT}+)"
#: Tags: comments and declarations, opening ones with quoted attributes, closing ones.
NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
VALUE = "(?:'[^'\\r\\n]*'|\"[^\"\\r\\n]*\"|')"
TAG = f"<(?:[!?][A-Za-z-][^>\\r\\n]*|{NAME}(?: +(?:{NAME} *= *{VALUE}|{NAME}))* */?|/{NAME}) *>"
WORD = f"{LETTER}{BOTH}*(?:[.!?]{LETTER}{BOTH}*)*"
CLITIC = f"{MARK}(?i:[msd]|re|ve|ll)"
#: d'Or, o'Clock, and words with hyphens.
PIECE = f"(?:(?i:[dol]){WIDE}{PLAIN_BOTH})?{PLAIN_BOTH}+"
THING = f"{PIECE}(?:[-_\u058a\u2010\u2011]{PIECE})*"
STATES_JOINED = "(?i:(?:canada|sino|korean|eu|japan|non)-u\\.s|u\\.s\\.-(?:u\\.k|u\\.s\\.s\\.r))"
INITIALS = f"(?:{STATES_JOINED}|[A-Za-z](?:\\.[A-Za-z])*)"
SEVERAL_INITIALS = f"(?:{STATES_JOINED}|[A-Za-z](?:\\.[A-Za-z])+)"
HYPHENED = f"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:{SEVERAL_INITIALS}\\.|[A-Za-z0-9\u00ad]+))+"
JOINED_CAPITALS = f"[A-Z]+(?:{AMPERSAND}[A-Z]+)+"
#: What ends a sentence after an abbreviation that may stand at its end.
END = f"{ANY_BLANK}(?:{ANY_BLANK}|[{CAPITALS}]|{TAG})"
#: Words that begin a sentence behind initials; their first letter must be a capital.
STARTERS = (
    "(?:A(?i:|bout|ccording|dditionally|fter|n|s|t)|B(?i:ut)|E(?i:arlier)|H(?i:e|er|ere|owever)|I(?i:f|n|t)|L(?i:ast)"
    "|M(?i:any|r\\.|s\\.|ore)|N(?i:ow)|O(?i:nce|ne|ther|ur)|S(?i:he|ince|o|ome|uch)"
    "|T(?i:hat|he|heir|hen|here|hese|hey|his)|W(?i:e|hat|hen|hile)|Y(?i:et|ou))"
)
#: Abbreviations before a point that may also end a sentence: months, days, states, companies, what follows names.
#: Those that are words too count with a capital alone.
ENDING = (
    "(?:A(?i:rk|z)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)"
    "|(?i:jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|tues|wed|thu|thurs|fri"
    "|ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wisc?|wyo"
    "|inc|cos?|corp|pp?t(?-i:[ey])s?|ltd|plc|rt|bancorp|bhd|assn|univ|intl|sys"
    "|jr|sr|bros|(?:ed|ph)\\.d|blvd|rd|esq|est|ext|sq|tel|etc|al|seq|bldg))"
)
#: Abbreviations that never do: titles, first names, places, units.
NEVER_ENDING = (
    "(?:M(?i:iss)|(?i:mr|mrs|ms|mme|mlle|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|mt|capt|ste?|ave"
    "|pres|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|dept|invt|elec|natl|m(?-i:[ft])g|adj|adv|assoc|asst|ens|insp|msgr|sfc|alex|wm|jos|cie|a\\.k\\.a|cf|treas|ph|ft|vs|v))"
)
#: Abbreviations before a number alone.
BEFORE_NUMBERS = "(?i:nos?|prop|ca|figs?|pp|art|op)"
FILES = (
    "(?i:bat|bmp|c|class|cgi|cpp|dll|doc|docx|exe|gif|gz|h|htm|html|jar|java|jpeg|jpg|mov|mp3|pdf|php|pl|png|ppt|ps|py"
    "|sql|tar|txt|wav|x|xml|zip|wm[va])"
)
URL = '[^ \\t\\n\\f\\r"<>|()]'
URL_END = '[^ \\t\\n\\f\\r"<>|.!?(){},-]'
WWW = '(?i:www)\\.(?:[^ \\t\\n\\f\\r"<>|.!?(){},]+\\.)+[a-zA-Z]{2,4}'
DOMAIN = "(?:[^ \\t\\n\\f\\r\"`'<>|.!?(){},-_$]+\\.)+(?i:com|net|org|edu)"
HOST = '[^ \\t\\n\\f\\r"<>|(){}.\u00a0]'


@dataclass(frozen=True)
class Rule:
    """One kind of token.

    Attributes:
        pattern: its group 1 is the token; what follows in the pattern must follow in the text.
        spell: what becomes of the token.
        back: characters of it that are read again; where they are more than the point of an abbreviation, the token
            loses them.
    """

    pattern: re.Pattern[str]
    spell: Callable[[str], str] = as_it_is
    back: int = 0


def _rule(token: str, ahead: str = "", spell: Callable[[str], str] = as_it_is, back: int = 0) -> Rule:
    return Rule(re.compile(f"({token}){ahead}"), spell, back)


@cache
def rules() -> tuple[Rule, ...]:
    """All rules, in their order of preference."""
    return (*_words(), *_web(), *_numbers(), *_abbreviations(), *_compounds(), *_marks())


def _words() -> list[Rule]:
    return [
        _rule("(?i:cannot|'twas)", back=3),
        _rule("(?i:gonna|gotta|lemme|gimme|wanna|'tis)", back=2),
        _rule(TAG, spell=unbroken),
        _rule("(?i:&(?:md|mdash|ndash);)|[\u0096\u0097\u2013\u2014\u2015]", spell=dashes),
        _rule("(?i:&amp;)", spell=unescaped),
        _rule(f"{BLANK}+|(?i:&nbsp;)", spell=nothing),
        _rule("(?i:&(?:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);)"),
        _rule(WORD, CLITIC),
        _rule("[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*", f"(?i:n{WIDE}t)"),
        _rule(WORD),
        _rule(
            f"(?i:{MARK}n{MARK}?|[ldj]{MARK}|dunkin{MARK}|somethin{MARK}|ol{MARK}|{MARK}em|c{MARK}mon|{MARK}[2-9]0s"
            f"|{MARK}till?|{MARK}cause|cont{MARK}d\\.?|nor{MARK}easter|e{MARK}er|s{MARK}mores|ev{MARK}ry|li{MARK}l"
            f"|nat{MARK}l|o{WIDE}o)",
            spell=raw,
        ),
        _rule(f"[A-HJ-XZn]{WIDE}[{PLAIN}]{{2,}}", spell=raw),
        _rule(f"[{PLAIN}][{PLAIN}]+(?<=[aeiouyAEIOUY]){WIDE}[aeiouA-Z][{PLAIN}]*", spell=raw),
        _rule(f"[yY]{MARK}", f"[{PLAIN}]", spell=raw),
    ]


def _web() -> list[Rule]:
    return [
        _rule(f"(?i:https?)://{URL}+{URL_END}", spell=raw),
        *(_rule(site + path, spell=raw) for path in (f"/{URL}+{URL_END}", "") for site in (WWW, DOMAIN)),
        _rule(
            f'(?:(?i:&lt;)|<)?[a-zA-Z0-9][^ \\t\\n\\f\\r"<>|(){{}}\u00a0]*@(?:{HOST}+\\.)*{HOST}+(?:&gt;|>)?', spell=raw
        ),
        _rule(f"@[a-zA-Z_][a-zA-Z_0-9]*|#{LETTER}+", spell=raw),
    ]


def _numbers() -> list[Rule]:
    return [
        _rule(CLITIC, "[^A-Za-z]", spell=quotes),
        _rule("'", "[A-Za-z][^ \\t\\n\\r\u00a0]", spell=opening),
        _rule(CLITIC, spell=quotes),
        _rule(f"(?i:n{WIDE}t)", "[^A-Za-z]", spell=quotes),
        _rule(f"{DIGIT}{{1,2}}[-/]{DIGIT}{{1,2}}[-/]{DIGIT}{{2,4}}"),
        _rule(f"[-+]?{NUMBER}"),
        _rule("[\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)"),
        _rule(f"(?:{DIGIT}{{1,4}}[- \u00a0])?{DIGIT}{{1,4}}(?:\\\\?/|\u2044){DIGIT}{{1,4}}", spell=unbroken),
        _rule("[\u00bc\u00bd\u00be\u2153-\u215e]", spell=fraction),
    ]


def _abbreviations() -> list[Rule]:
    return [
        _rule(
            "(?i:-(?:rrb|lrb|rcb|lcb|rsb|lsb)-|c\\.d\\.s|pro-|anti-|s(?:&|&amp;)p-500|s(?:&|&amp;)ls"
            f"|cap{MARK}n|c{MARK}est)",
            spell=unescaped,
        ),
        _rule(f"{MARK}[0-9][0-9]", ANY_BLANK, spell=raw),
        _rule("[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"),
        _rule("[A-Z]*\\$|#"),
        _rule("(?i:[cf]#|c\\+\\+)"),
        _rule("[\u00a2\u00a3\u00a4\u00a5\u0080\u20a0\u20ac\u060b\u0e3f\u20a4\uffe0\uffe1\uffe5\uffe6]", spell=currency),
        _rule(f"{ENDING}\\.", END, back=1),
        _rule(f"{ENDING}\\.", "[\\s\\S][\\s\\S]"),
        _rule(f"{ENDING}\\.", back=1),
        _rule(f"{NEVER_ENDING}\\."),
        _rule(f"{BEFORE_NUMBERS}\\.", f"{ANY_BLANK}?{DIGIT}"),
        _rule(f"{INITIALS}\\.", f"{ANY_BLANK}+(?:{STARTERS}|{TAG}){ANY_BLANK}", spell=initials, back=1),
        _rule(f"{INITIALS}\\."),
        _rule(STATES_JOINED, ANY_BLANK),
    ]


def _compounds() -> list[Rule]:
    stop = "[,;:\u3001]"
    return [
        _rule(JOINED_CAPITALS, spell=unescaped),
        _rule(HYPHENED),
        _rule(THING),
        _rule(f"{BOTH}+(?:\\.{BOTH}+)*\\.{FILES}", f"(?:{ANY_BLANK}|[.?!,])", spell=raw),
        _rule(f"{WORD}\\.", stop),
        _rule(f"{THING}\\.", stop),
        _rule(f"{JOINED_CAPITALS}\\.", stop, spell=unescaped),
        _rule(f"{HYPHENED}\\.", stop),
        _rule("(?i:pt[ey]|co)\\.", f"{BLANK}(?i:ltd|lim)"),
    ]


def _marks() -> list[Rule]:
    return [
        _rule("[<>]?[:;=][-o*']?[()DPdpO\\\\{@|\\[\\]]", "[^A-Za-z0-9]", spell=smiley),
        _rule(
            "[\\^xX=~<>]\\.\\[\\^[xX]=[^\\n]*?<>\\]|[-^x=~<>']_[-^x=~<>']|\\([-^x=~<>'][_.]?[-^x=~<>']\\)"
            "|\\([\\^x=~<>']-[\\^x=~<>'`]\\)",
            spell=smiley,
        ),
        _rule("(?i:&lt;)|<|(?i:&gt;)|>", spell=unescaped),
        _rule("[()\\[\\]{}]", spell=bracketed),
        _rule("-+", spell=dashes),
        _rule("\\.{3,5}|(?:\\.[ \u00a0]){2,4}\\.|[\u0085\u2026]", spell=ellipsis),
        _rule("@+|#+|_+"),
        _rule("\\*+|(?:\\\\\\*){1,3}"),
        _rule("[,;:\u3001]"),
        _rule("[?!]+"),
        _rule("[.=/\\\\]"),
        _rule(
            "(?:\\([0-9]{2,3}\\)[ \u00a0]?|(?:\\+\\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
            "[0-9]{3,4}[- \u00a0]?[0-9]{3,5}|(?:(?:\\+\\+?)?[0-9]{2,4}\\.)?[0-9]{2,4}\\.[0-9]{3,4}\\.[0-9]{3,5}",
            spell=lambda token: bracketed(unbroken(token)),
        ),
        _rule('(?i:"|&quot;)', "[A-Za-z0-9$]", spell=opening),
        _rule('(?i:"|&quot;)', spell=closing),
        _rule(
            "''|[`\u2018\u2019\u201a\u201b\u201c\u201d\u0091\u0092\u0093\u0094\u201e\u201f\u2039\u203a\u00ab\u00bb]{1,2}"
            f"|{MARK}",
            spell=quotes,
        ),
        _rule("<<|>>"),
        _rule(f"[{SYMBOLS}]"),
    ]
