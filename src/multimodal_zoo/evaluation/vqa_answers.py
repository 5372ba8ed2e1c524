"""What free answers mean to the benchmarks of questions about pictures: normalisation, parsing, agreement.

The normalisation is that of the VQA challenge (arXiv 1505.00468) in the form in which the EvalAI server and TextVQA's
programs have it; its oddities are part of published figures, so they stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Contractions that are repaired; what is repaired is each of them with one apostrophe missing.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
#: Periods that stand before no digit go; the published program stops after so many.
PERIOD, PERIODS = re.compile(r"\.(?!\d)"), 32
#: Thousands in groups, `1,000`.
GROUPED = re.compile(r"\d,\d")
#: Best-known way of asking for letters, and the only sentence beside a bare letter that ScienceQA's programs read.
LETTER_SENTENCE = re.compile(r"The answer is ([A-Z])\.")
#: How many of the other people must agree for full marks.
AGREE = 3


def _repairs() -> dict[str, str]:
    found = {}
    for whole in CONTRACTIONS.split():
        for place, letter in enumerate(whole):
            if letter == "'":
                found[whole[:place] + whole[place + 1 :]] = whole
    return found


#: Written word -> what it becomes, beside the numbers; the one that loses its apostrophe is in the published list.
WORDS = {**{word: str(number) for number, word in enumerate(NUMBERS)}, "none": "0"}
REPAIRS = {**_repairs(), "somebody'd": "somebodyd"}


def normalized(text: str) -> str:
    """An answer as the servers compare it: lower case, digits for number words, no articles, hardly any punctuation.

    A mark of punctuation becomes nothing where any of its kind has a space beside it, else a space.

    Args:
        text: the answer.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return worded(unpunctuated(_one_line(text)))


def unpunctuated(text: str, figures: bool = False) -> str:
    """A text without punctuation: a mark goes where any of its kind has a space beside it, else it becomes a space.

    Args:
        text: any.
        figures: whether all marks go where the text has a comma between two digits.
    """
    grouped = figures and GROUPED.search(text) is not None
    bare = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if beside_space or grouped else " ")
    return PERIOD.sub("", bare, PERIODS)


def worded(text: str) -> str:
    """A text in lower case with digits for number words and whole contractions, without articles."""
    words = (WORDS.get(word, word) for word in text.lower().split())
    return " ".join(REPAIRS.get(word, word) for word in words if word not in ARTICLES)


def challenge_answer(text: str) -> str:
    """An answer as the VQA challenge's own program has it (arXiv 1505.00468), which differs a little from the servers'.

    Args:
        text: the answer.
    """
    return worded(unpunctuated(_one_line(text), figures=True))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def soft_accuracy(said: str, answers: Sequence[str]) -> float:
    """How far people agree with an answer, in [0, 1] (arXiv 1904.08920, section 4).

    Each person is left out once; the answer gets a third for every other one who gave it, one at most. Then the mean.

    Args:
        said: the answer.
        answers: of people, ten in TextVQA and VQAv2.

    Raises:
        ValueError: fewer than two answers of people.
    """
    return left_out_accuracy(normalized(said), [normalized(one) for one in answers])


def left_out_accuracy(said: str, answers: Sequence[str]) -> float:
    """`soft_accuracy` of texts that are compared as they are.

    Raises:
        ValueError: fewer than two answers of people.
    """
    if len(answers) < 2:
        raise ValueError(f"soft accuracy leaves one person out: {len(answers)} answers given, expected 2 or more")
    same = list(answers).count(said)
    marks = (min(1.0, (same - (one == said)) / AGREE) for one in answers)
    return sum(marks) / len(answers) if same else 0.0


def pope_answer(text: str) -> str:
    """`yes` or `no` as POPE's program reads it (arXiv 2305.10355): the first sentence denies, or it is a yes.

    Args:
        text: the answer; an empty one is a yes.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def gqa_answer(text: str) -> str:
    """An answer in the form of GQA's (arXiv 1902.09506): lower case, without periods at its end."""
    return text.rstrip(".").lower()


def option_letter(text: str, letters: str) -> str | None:
    """The option that an answer to a ScienceQA question names (arXiv 2209.09513), None for none.

    Args:
        text: a letter, a letter with its option behind (`B. two`), or one sentence `The answer is B.`.
        letters: those of the question's options, `ABCD` say.
    """
    if text in letters and len(text) == 1:
        return text
    if len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        return text[0]
    named: list[str] = LETTER_SENTENCE.findall(text)
    return named[0] if len(named) == 1 and named[0] in letters else None


def mme_answer(text: str) -> str | None:
    """`yes` or `no` as MME's calculation tool reads it (arXiv 2306.13394), in four letters; None for neither."""
    start = text.strip().lower()[:4]
    return next((word for word in ("yes", "no") if word in start), None)
