"""CIDEr and words of descriptions, against a second way of computing them."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest

from multimodal_zoo.evaluation.caption_scores import CaptionScore, caption_figures, ptb_words, treebank_words
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
    figures, each = caption_figures(SAID, KNOWN, "treebank")
    expected = cider(SAID, KNOWN)
    assert each == pytest.approx(expected, abs=1e-9)
    assert figures["CIDEr"] == pytest.approx(sum(expected.values()) / 3, abs=1e-9)
    perfect, _ = caption_figures({key: texts[0] for key, texts in KNOWN.items()}, KNOWN, "treebank")
    assert perfect["BLEU-1"] == pytest.approx(1.0)
    assert perfect["CIDEr"] > figures["CIDEr"]


def test_words_of_both_ways() -> None:
    texts = {"1": ["A man's dog isn't running, (really) at 3.5 m/h.", "Two  dogs: one's red!"], "2": [""]}
    expected = {"1": ["a man 's dog is n't running -lrb- really -rrb- at 3.5 m/h", "two dogs one 's red"], "2": [""]}
    assert treebank_words(texts) == expected
    if shutil.which("java"):
        assert ptb_words(texts) == expected


def test_scores_and_the_server_file(tmp_path: Path) -> None:
    asked = [Question(key, "", facts={"caption": texts, "img": int(key)}) for key, texts in KNOWN.items()]
    score = CaptionScore("coco", words="treebank", key="img")
    found = score([(one, SAID[one.key]) for one in asked], tmp_path)
    assert found.metrics["CIDEr"] == pytest.approx(caption_figures(SAID, KNOWN, "treebank")[0]["CIDEr"])
    assert json.loads((tmp_path / "coco.json").read_text())[0] == {"image_id": 1, "caption": SAID["1"]}
    hidden = [(Question(one.key, ""), "x") for one in asked]
    assert score(hidden, tmp_path).metrics == {"answers": 3.0}
    with pytest.raises(ValueError, match="2 descriptions of 1 pictures"):
        score(hidden[:1] * 2, tmp_path)
    with pytest.raises(ValueError, match="picture '3' has no true texts"):
        caption_figures(SAID, {key: KNOWN[key] for key in "12"}, "treebank")
    with pytest.raises(ValueError, match=r"caption_score\.words is 'spacy'"):
        CaptionScore("coco", words="spacy")


def test_without_java_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="words=treebank"):
        ptb_words({"1": ["a"]})
