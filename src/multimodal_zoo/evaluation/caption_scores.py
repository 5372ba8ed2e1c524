"""Scores of descriptions of pictures by the caption toolkit of COCO (pycocoevalcap): CIDEr, BLEU, ROUGE-L."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.caption_java import java_score, why_not
from multimodal_zoo.evaluation.caption_metrics import bleu, check, cider, rouge_l
from multimodal_zoo.evaluation.ptb_words import DROPPED, captions_words
from multimodal_zoo.evaluation.result import Cell, Table
from multimodal_zoo.evaluation.vqa_questions import Answered
from multimodal_zoo.evaluation.vqa_scores import Scored
from multimodal_zoo.files import write_text
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import EVALUATORS

#: Brackets by Penn Treebank's names; the toolkit means to drop them, but only looks for capitals.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}

Texts = Mapping[str, Sequence[str]]


def java_words(texts: Texts) -> dict[str, list[str]]:
    """Texts in words by Stanford's tokenizer itself, a Java program, whose words `captions_words` gives without it.

    Args:
        texts: by picture.

    Raises:
        FileNotFoundError: there is no Java.
        ModuleNotFoundError: there is no pycocoevalcap, which brings the program along.
    """
    tokenizer = needed("pycocoevalcap.tokenizer.ptbtokenizer", "caption_score.words=java", "eval").PTBTokenizer
    if shutil.which("java") is None:
        raise FileNotFoundError(
            "caption_score.words is 'java', which needs Java on the PATH; caption_score.words=ptb cuts texts into the "
            "same words without it"
        )
    lines = {key: [{"caption": " ".join(one.splitlines())} for one in some] for key, some in texts.items()}
    found: dict[str, list[str]] = tokenizer().tokenize(lines)
    return found


def treebank_words(texts: Texts) -> dict[str, list[str]]:
    """Texts in words by nltk's Treebank rules, nearly as Stanford's program has them.

    Args:
        texts: by picture.

    Raises:
        ModuleNotFoundError: there is no nltk.
    """
    cut = needed("nltk.tokenize", "caption_score.words=treebank", "eval").TreebankWordTokenizer().tokenize

    def words(text: str) -> str:
        """One text as words with a blank in between."""
        found = (BRACKETS.get(word, word) for word in cut(text.lower()))
        return " ".join(word for word in found if word not in DROPPED)

    return {key: [words(one) for one in some] for key, some in texts.items()}


#: Name of a way of cutting texts into words -> what does it.
WORDS: dict[str, Callable[[Texts], dict[str, list[str]]]] = {
    "ptb": captions_words,
    "java": java_words,
    "treebank": treebank_words,
}


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
        ModuleNotFoundError, FileNotFoundError: see `java_words`.
    """
    asked = {key: list(known.get(key) or ()) for key in said}
    check(asked, said)
    truths, answers = in_words(asked, said, words)
    found = cider(truths, answers)
    figures = {"CIDEr": found.whole}
    figures |= {f"BLEU-{size}": one.whole for size, one in enumerate(bleu(truths, answers), start=1)}
    figures["ROUGE-L"] = rouge_l(truths, answers).whole
    return figures, dict(zip(truths, found.each, strict=True))


def in_words(known: Texts, said: Mapping[str, str], words: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """True texts and descriptions, by picture, cut into words in one way; see `caption_figures`."""
    cut = WORDS[words]
    truths, answers = cut(known), cut({key: [text] for key, text in said.items()})
    return truths, {key: texts[0] for key, texts in answers.items()}


def java_figures(said: Mapping[str, str], known: Texts, words: str, names: Sequence[str]) -> dict[str, float | str]:
    """METEOR and SPICE, or what they lack on this machine.

    Args:
        said: description by picture.
        known: true texts by picture.
        words: a name of `WORDS`.
        names: of scores.

    Raises:
        ValueError: an unknown score, or see `caption_figures`.
    """
    lacking = {name: why_not(name) for name in names}
    if all(lacking.values()):
        return {name: f"not computed: {problem}" for name, problem in lacking.items()}
    truths, answers = in_words({key: known[key] for key in said}, said, words)
    return {
        name: java_score(name, truths, answers).whole if problem is None else f"not computed: {problem}"
        for name, problem in lacking.items()
    }


@EVALUATORS.register_module(name="caption_score")
class CaptionScore:
    """Descriptions against true texts, `caption` of each question; and the file that servers take.

    Args:
        name: of the benchmark; names the folder of its answers and the file `<name>.json` in it.
        words: how texts are cut into words: `ptb` (as published), `java` (the same by the Java program itself) or
            `treebank` (nltk).
        key: what servers call a picture: a further column of the questions, or `question_id`.
        also: further scores, `METEOR` and `SPICE`, which need Java; without it the table says so.
        group: a further column by which the pictures are scored apart too, such as `domain`; None for none.

    Raises:
        ValueError: no such way or score.
    """

    def __init__(
        self,
        name: str,
        words: str = "ptb",
        key: str = "question_id",
        also: Sequence[str] = (),
        group: str | None = None,
    ) -> None:
        if words not in WORDS:
            raise ValueError(f"caption_score.words is {words!r}; expected one of {', '.join(WORDS)}")
        for one in also:
            why_not(one)
        self.name, self.words, self.key, self.also, self.group = name, words, key, tuple(also), group

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
        return self._scored(said, known, {str(one.key): one.facts for one, _ in answered})

    def _scored(self, said: dict[str, str], known: Texts, facts: Mapping[str, Mapping[str, Any]]) -> Scored:
        figures, _ = caption_figures(said, known, self.words)
        programs = java_figures(said, known, self.words, self.also) if self.also else {}
        rows: list[tuple[Cell, ...]] = [("all", len(said), *figures.values(), *programs.values())]
        metrics = {**figures, **{name: one for name, one in programs.items() if isinstance(one, float)}}
        for group, keys in self._groups(facts).items():
            # document frequencies are those of the group's own true texts, as servers count them
            own, _ = caption_figures({key: said[key] for key in keys}, known, self.words)
            rows.append((group, len(keys), *own.values(), *("" for _ in programs)))
            metrics |= {f"{group}_{name}": value for name, value in own.items()}
        table = Table("descriptions", (self.group or "set", "pictures", *figures, *programs), rows)
        return Scored(metrics, [table], ("CIDEr", "BLEU-4"))

    def _groups(self, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
        """The pictures of each value of the group's column.

        Raises:
            ValueError: a picture without one.
        """
        found: dict[str, list[str]] = {}
        for key, row in facts.items() if self.group else ():
            if row.get(str(self.group)) is None:
                raise ValueError(f"{self.name}: picture {key!r} has no {self.group!r}, by which it is to be grouped")
            found.setdefault(str(row[str(self.group)]), []).append(key)
        return found


def _texts(given: Any) -> list[str]:
    if given is None:
        return []
    return [given] if isinstance(given, str) else [str(one) for one in given]
