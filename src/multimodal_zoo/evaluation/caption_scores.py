"""Scores of descriptions of pictures by the caption toolkit of COCO (pycocoevalcap): CIDEr, BLEU, ROUGE-L."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.result import Table
from multimodal_zoo.evaluation.vqa_questions import Answered
from multimodal_zoo.evaluation.vqa_scores import Scored
from multimodal_zoo.files import write_text
from multimodal_zoo.registry import EVALUATORS

#: What the toolkit drops of a text's tokens.
DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
#: Brackets by Penn Treebank's names; the toolkit means to drop them, but only looks for capitals.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
#: Names of the toolkit's BLEU scores, by the length of what is compared.
BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")

Texts = Mapping[str, Sequence[str]]


def _toolkit(error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"scores of descriptions need {error.name}: pip install 'multimodal_zoo[eval]'", name=error.name
    )


def ptb_words(texts: Texts) -> dict[str, list[str]]:
    """Texts in words as published figures have them: Stanford's tokenizer, which is a Java program.

    Args:
        texts: by picture.

    Raises:
        FileNotFoundError: there is no Java.
        ModuleNotFoundError: there is no pycocoevalcap, which brings the program along.
    """
    try:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ModuleNotFoundError as error:
        raise _toolkit(error) from None
    if shutil.which("java") is None:
        raise FileNotFoundError(
            "caption_score.words is 'ptb', as published, which needs Java on the PATH; install one, or take "
            "caption_score.words=treebank, whose figures differ a little"
        )
    lines = {key: [{"caption": " ".join(one.split())} for one in some] for key, some in texts.items()}
    found: dict[str, list[str]] = PTBTokenizer().tokenize(lines)
    return found


def treebank_words(texts: Texts) -> dict[str, list[str]]:
    """Texts in words by nltk's Treebank rules, nearly as Stanford's program has them.

    Args:
        texts: by picture.

    Raises:
        ModuleNotFoundError: there is no nltk.
    """
    try:
        from nltk.tokenize import TreebankWordTokenizer
    except ModuleNotFoundError as error:
        raise _toolkit(error) from None
    cut = TreebankWordTokenizer().tokenize

    def words(text: str) -> str:
        """One text as words with a blank in between."""
        found = (BRACKETS.get(word, word) for word in cut(text.lower()))
        return " ".join(word for word in found if word not in DROPPED)

    return {key: [words(one) for one in some] for key, some in texts.items()}


#: Name of a way of cutting texts into words -> what does it.
WORDS: dict[str, Callable[[Texts], dict[str, list[str]]]] = {"ptb": ptb_words, "treebank": treebank_words}


def caption_figures(said: Mapping[str, str], known: Texts, words: str) -> tuple[dict[str, float], dict[str, float]]:
    """CIDEr (arXiv 1411.5726), BLEU and ROUGE-L of descriptions, and CIDEr of each.

    CIDEr weighs words by how few pictures of the same set have them in their true texts; it runs from 0 to 10, and
    tables show a hundredfold.

    Args:
        said: description by picture.
        known: true texts by picture.
        words: a name of `WORDS`.

    Raises:
        ValueError: no picture, or one without true texts.
        ModuleNotFoundError, FileNotFoundError: see `ptb_words`.
    """
    lost = [key for key in said if not known.get(key)]
    if lost or not said:
        what = f"picture {lost[0]!r} has no true texts" if lost else "there is no picture"
        raise ValueError(f"caption scores: {what}")
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ModuleNotFoundError as error:
        raise _toolkit(error) from None
    truths = WORDS[words]({key: known[key] for key in said})
    answers = WORDS[words]({key: [text] for key, text in said.items()})
    cider, each = Cider().compute_score(truths, answers)
    bleu, _ = Bleu(4).compute_score(truths, answers, verbose=0)
    rouge, _ = Rouge().compute_score(truths, answers)
    figures = {"CIDEr": float(cider), **dict(zip(BLEU, map(float, bleu), strict=True)), "ROUGE-L": float(rouge)}
    return figures, dict(zip(truths, map(float, each), strict=True))


@EVALUATORS.register_module(name="caption_score")
class CaptionScore:
    """Descriptions against true texts, `caption` of each question; and the file that servers take.

    Args:
        name: of the benchmark; names the folder of its answers and the file `<name>.json` in it.
        words: how texts are cut into words: `ptb` (as published, needs Java) or `treebank`.
        key: what servers call a picture: a further column of the questions, or `question_id`.

    Raises:
        ValueError: no such way.
    """

    def __init__(self, name: str, words: str = "ptb", key: str = "question_id") -> None:
        if words not in WORDS:
            raise ValueError(f"caption_score.words is {words!r}; expected one of {', '.join(WORDS)}")
        self.name, self.words, self.key = name, words, key

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`; without true texts (test sets) only the file is written.

        Raises:
            ValueError: two questions with one key, or true texts of some pictures only.
        """
        said = {str(one.key): text for one, text in answered}
        if len(said) != len(answered):
            raise ValueError(f"{self.name}: {len(answered)} descriptions of {len(said)} pictures; each needs a key")
        rows = [{"image_id": one.facts.get(self.key, one.key), "caption": text} for one, text in answered]
        write_text(folder / f"{self.name}.json", json.dumps(rows, ensure_ascii=False) + "\n")
        known = {str(one.key): _texts(one.facts.get("caption")) for one, _ in answered}
        if not any(known.values()):
            return Scored({"answers": float(len(rows))}, [], ("answers",))
        figures, _ = caption_figures(said, known, self.words)
        table = Table("descriptions", ("pictures", *figures), [(len(said), *figures.values())])
        return Scored(figures, [table], ("CIDEr", "BLEU-4"))


def _texts(given: Any) -> list[str]:
    if given is None:
        return []
    return [given] if isinstance(given, str) else [str(one) for one in given]
