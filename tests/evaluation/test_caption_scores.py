"""CIDEr and words of descriptions, against a second way of computing them."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.evaluation import caption_java
from multimodal_zoo.evaluation import caption_metrics as metrics
from multimodal_zoo.evaluation.caption_java import java_score, why_not
from multimodal_zoo.evaluation.caption_scores import CaptionScore, caption_figures, java_words, treebank_words
from multimodal_zoo.evaluation.ptb_words import captions_words
from multimodal_zoo.evaluation.vqa_questions import Question

pytest.importorskip("pycocoevalcap")
KNOWN = {
    "1": ["a dog runs on grass", "the brown dog is running", "a dog in a field"],
    "2": ["a red bus on a street", "the bus stops", "a bus in the city"],
    "3": ["two cats sleep on a bed", "cats lying on a bed", "a pair of cats"],
}
SAID = {"1": "a dog runs in a field", "2": "a red car on a street", "3": "cats on a bed"}


def grams(text: str, size: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[place : place + size]) for place in range(len(words) - size + 1))


def cider(said: dict[str, str], known: dict[str, list[str]]) -> dict[str, float]:
    """CIDEr-D by its formula (arXiv 1411.5726, section 8): clipped counts, a Gauss of the difference in length."""
    found = dict.fromkeys(said, 0.0)
    for size in (1, 2, 3, 4):
        seen: Counter[tuple[str, ...]] = Counter()
        for texts in known.values():
            seen.update({gram for text in texts for gram in grams(text, size)})

        def weigh(text: str, size: int = size, seen: Counter[tuple[str, ...]] = seen) -> dict[tuple[str, ...], float]:
            return {g: n * math.log(len(known) / max(1, seen[g])) for g, n in grams(text, size).items()}

        for key, text in said.items():
            own = weigh(text)
            for true in known[key]:
                other = weigh(true)
                product = sum(min(own[g], other[g]) * other[g] for g in own if g in other)
                norms = math.sqrt(sum(v * v for v in own.values()) * sum(v * v for v in other.values()))
                length = len(text.split()) - len(true.split())
                gauss = math.exp(-(length**2) / 72)
                found[key] += 10 / 4 / len(known[key]) * gauss * (product / norms if norms else 0.0)
    return found


def test_cider_is_that_of_its_formula() -> None:
    figures, each = caption_figures(SAID, KNOWN, "ptb")
    expected = cider(SAID, KNOWN)
    assert each == pytest.approx(expected, abs=1e-9)
    assert figures["CIDEr"] == pytest.approx(sum(expected.values()) / 3, abs=1e-9)
    perfect, _ = caption_figures({key: texts[0] for key, texts in KNOWN.items()}, KNOWN, "ptb")
    assert perfect["BLEU-1"] == pytest.approx(1.0)
    assert perfect["CIDEr"] > figures["CIDEr"]


def test_words_of_both_ways() -> None:
    texts = {"1": ["A man's dog isn't running, (really) at 3.5 m/h.", "Two  dogs: one's red!"], "2": [""]}
    expected = {"1": ["a man 's dog is n't running -lrb- really -rrb- at 3.5 m/h", "two dogs one 's red"], "2": [""]}
    assert treebank_words(texts) == expected
    assert captions_words(texts) == expected


def test_scores_and_the_server_file(tmp_path: Path) -> None:
    asked = [Question(key, "", facts={"caption": texts, "img": int(key)}) for key, texts in KNOWN.items()]
    score = CaptionScore("coco", key="img")
    found = score([(one, SAID[one.key]) for one in asked], tmp_path)
    assert found.metrics["CIDEr"] == pytest.approx(caption_figures(SAID, KNOWN, "ptb")[0]["CIDEr"])
    assert json.loads((tmp_path / "coco.json").read_text())[0] == {"image_id": 1, "caption": SAID["1"]}
    hidden = [(Question(one.key, ""), "x") for one in asked]
    assert score(hidden, tmp_path).metrics == {"answers": 3.0}
    with pytest.raises(ValueError, match="2 descriptions of 1 pictures"):
        score(hidden[:1] * 2, tmp_path)
    with pytest.raises(ValueError, match="picture '3' has no true texts"):
        caption_figures(SAID, {key: KNOWN[key] for key in "12"}, "ptb")
    with pytest.raises(ValueError, match=r"caption_score\.words is 'spacy'"):
        CaptionScore("coco", words="spacy")


def test_without_java_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="words=ptb"):
        java_words({"1": ["a"]})
    assert why_not("SPICE") == "no Java on the PATH"
    with pytest.raises(FileNotFoundError, match=r"METEOR is a Java program.*no Java on the PATH"):
        java_score("METEOR", {"1": ["a"]}, {"1": "a"})
    asked = [Question(key, "", facts={"caption": texts}) for key, texts in KNOWN.items()]
    found = CaptionScore("coco", also=["METEOR", "SPICE"])([(one, SAID[one.key]) for one in asked], tmp_path)
    assert found.tables[0].columns[-2:] == ("METEOR", "SPICE")
    assert found.tables[0].rows[0][-1] == "not computed: no Java on the PATH"
    assert "SPICE" not in found.metrics
    with pytest.raises(ValueError, match=r"caption_score\.also has 'CLIPScore'"):
        CaptionScore("coco", also=["CLIPScore"])


class Program:
    """Stands for a Java program: says how many words a caption has; METEOR's class holds a process and a lock."""

    def __init__(self, wrap: Callable[[float], Any], broken: bool = False) -> None:
        self.meteor_p, self.lock = self, threading.Lock()
        self.wrap, self.broken = wrap, broken
        self.ended: list[str] = []

    def compute_score(self, truths: dict[str, list[str]], said: dict[str, list[str]]) -> tuple[float, list[Any]]:
        """Answers in the order of the pictures' names, as SPICE does."""
        assert truths.keys() == said.keys()
        if self.broken:
            self.lock.acquire()
            raise BrokenPipeError("the program has ended")
        return 0.5, [self.wrap(float(len(said[key][0].split()))) for key in sorted(said)]

    def kill(self) -> None:
        self.ended.append("killed")

    def wait(self) -> None:
        self.ended.append("waited for")


@pytest.mark.parametrize(
    ("name", "place", "wrap"),
    [("METEOR", "meteor.meteor.Meteor", float), ("SPICE", "spice.spice.Spice", lambda value: {"All": {"f": value}})],
)
def test_java_programs_answer_for_each_picture(
    name: str, place: str, wrap: Callable[[float], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(wrap)
    monkeypatch.setattr(f"pycocoevalcap.{place}", lambda: program)
    monkeypatch.setattr(caption_java, "why_not", lambda name: None)
    turned = dict(reversed(KNOWN.items()))
    found = java_score(name, turned, SAID)
    assert (found.whole, found.each) == (0.5, [float(len(SAID[key].split())) for key in turned])
    assert program.ended == ["killed", "waited for"]


def test_a_java_program_that_breaks_off_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR's class waits for its own lock when it is deleted, which it holds where its program broke off."""
    program = Program(float, broken=True)
    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", lambda: program)
    monkeypatch.setattr(caption_java, "why_not", lambda name: None)
    with pytest.raises(BrokenPipeError):
        java_score("METEOR", KNOWN, SAID)
    assert program.ended
    assert not program.lock.locked()


def test_pictures_are_scored_by_group_too(tmp_path: Path) -> None:
    groups = {"1": "in-domain", "2": "out-domain", "3": "in-domain"}
    asked = [Question(key, "", facts={"caption": texts, "domain": groups[key]}) for key, texts in KNOWN.items()]
    found = CaptionScore("nocaps", group="domain")([(one, SAID[one.key]) for one in asked], tmp_path)
    own = {key: KNOWN[key] for key in "13"}
    assert found.metrics["in-domain_CIDEr"] == pytest.approx(sum(cider({k: SAID[k] for k in "13"}, own).values()) / 2)
    assert found.metrics["out-domain_CIDEr"] == 0.0  # one picture alone
    assert [row[:2] for row in found.tables[0].rows] == [("all", 3), ("in-domain", 2), ("out-domain", 1)]
    with pytest.raises(ValueError, match="picture '1' has no 'area'"):
        CaptionScore("nocaps", group="area")([(one, SAID[one.key]) for one in asked], tmp_path)


def test_options_of_the_scores() -> None:
    assert metrics.cider(KNOWN, SAID, n=2).whole != metrics.cider(KNOWN, SAID).whole
    one = metrics.cider({"1": ["a b"], "2": ["c"]}, {"1": "a b", "2": "d"}, n=2)
    assert one.each == pytest.approx([10.0, 0.0])  # the same words
    near = metrics.cider({"1": ["a b c"], "2": ["d"]}, {"1": "a b", "2": "d"}, n=2, sigma=1.0).each[0]
    alike = 2 / math.sqrt(2 * 3) + 1 / math.sqrt(1 * 2)  # words, pairs of words
    assert near == pytest.approx(10 * alike / 2 * math.exp(-0.5))  # one pair of words fewer
    truths, said = {"1": ["a b c d", "a"]}, {"1": "a b"}
    short = {name: metrics.bleu(truths, said, n=1, option=name)[0].whole for name in metrics.LENGTHS}
    # penalties for 1, 2.5 and 1 true words
    assert short == pytest.approx({"closest": 1.0, "shortest": 1.0, "average": math.exp(1 - 2.5 / 2)}, abs=1e-6)
    # precision 1 by the longer, recall 1 by the shorter
    assert metrics.rouge_l(truths, said, beta=3.0).whole == pytest.approx(1.0)
    assert metrics.rouge_l({"1": ["a b c d"]}, said, beta=3.0).whole == pytest.approx(10 * 0.5 / (0.5 + 9))
    for wrong in ({"n": 5}, {"sigma": 0.0}, {"df": "coco"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            metrics.cider(KNOWN, SAID, **wrong)
    with pytest.raises(ValueError, match="closest, shortest, average"):
        metrics.bleu(KNOWN, SAID, option="longest")
    with pytest.raises(ValueError, match="nothing is said about picture '2'"):
        metrics.bleu(KNOWN, {"1": "a"})
