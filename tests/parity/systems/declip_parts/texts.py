"""Masked words and text augmentation: properties and measured shares, as the reference's draws cannot be repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random
from typing import Any

from harness.cases import Case
from harness.run import Outcome, Pair
from harness.words import take_known

from multimodal_zoo.data.synonyms import TableSynonyms
from multimodal_zoo.data.text_augment import STOP_WORDS, Eda, RandomDeletion, RandomSwap, SynonymReplacement
from multimodal_zoo.data.text_views import IGNORED, mask_words

#: Draws of one operation.
DRAWS = 6000
WORD_OPERATIONS = ("synonym_replacement", "random_swap", "random_deletion")


def close(found: float, expected: float, tolerance: float) -> Pair:
    """A pair that fits if the values are at most `tolerance` apart, and shows both if not."""
    return Pair(expected if abs(found - expected) <= tolerance else found, expected)


def measured(case: Case) -> Outcome:
    """The field `measured`: shares within the case's tolerance."""
    tolerance = take_known(case.fields["tolerance"], {"shares"}, "tolerance")["shares"]
    if "mlm_probability" in case.config:
        return masked_words(case, tolerance)
    return augmentation(case, tolerance)


def masked_words(case: Case, tolerance: float) -> Outcome:
    """Shares of selected, hidden, replaced and kept words; start, end and mask are never selected."""
    config = take_known(case.config, {"vocab_size", "rows", "length", "mlm_probability"}, "config")
    size, random = config["vocab_size"], Random(0)
    mask, start, end = size - 3, size - 2, size - 1
    counts = dict.fromkeys(("candidates", "selected", "masked", "random", "kept", "hits"), 0)
    fixed_stay = labels_fit = True
    for _ in range(config["rows"]):
        row = [start, *(random.randrange(mask) for _ in range(config["length"] - 2)), end]
        ids, labels = mask_words(row, random, config["mlm_probability"], mask, size, (mask, start, end))
        assert labels is not None
        fixed_stay &= (ids[0], ids[-1], labels[0], labels[-1]) == (start, end, IGNORED, IGNORED)
        labels_fit &= all(label in (old, IGNORED) for old, label in zip(row, labels, strict=True))
        chosen = [(old, new) for old, new, label in zip(row, ids, labels, strict=True) if label != IGNORED]
        counts["candidates"] += len(row) - 2
        counts["selected"] += len(chosen)
        counts["masked"] += sum(new == mask for _, new in chosen)
        counts["kept"] += sum(new == old for old, new in chosen)
        counts["random"] += sum(new not in (mask, old) for old, new in chosen)
        counts["hits"] += sum(new in (start, end) for _, new in chosen)
    selected = counts["selected"]
    shares = {
        "selected_share": selected / counts["candidates"],
        **{f"{kind}_share_of_selected": counts[kind] / selected for kind in ("masked", "random", "kept")},
    }
    known = {*shares, "candidates", "random_hits_on_start_or_end"}
    expected = take_known(case.fields["measured"], known, "measured")
    drawn = expected["random_share_of_selected"] * expected["selected_share"] * expected["candidates"]
    return {
        "candidates": Pair(counts["candidates"], expected["candidates"]),
        **{name: close(share, expected[name], tolerance) for name, share in shares.items()},
        "hits": close(counts["hits"] / counts["random"], expected["random_hits_on_start_or_end"] / drawn, tolerance),
        "start and end stay": Pair(fixed_stay, True),
        "labels are what stood there": Pair(labels_fit, True),
    }


def operations(case: Case, synonyms: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Our operations with the numbers of the case."""
    known = {"operations", "choice", "synonym n", "swap n", "deletion p"}
    config = take_known(case.config, known, "config")
    assert set(config["operations"]) <= set(WORD_OPERATIONS), f"operations: {config['operations']}"
    assert "uniformly" in config["choice"], f"choice: {config['choice']!r}"
    stop_words = case.fields["stop_words_used_here"]
    assert set(stop_words) == STOP_WORDS, "our stop words are others than the case's"
    made = {
        "synonym_replacement": SynonymReplacement(TableSynonyms(synonyms), config["synonym n"], stop_words),
        "random_swap": RandomSwap(config["swap n"]),
        "random_deletion": RandomDeletion(config["deletion p"]),
    }
    return {name: made[name] for name in config["operations"]}


def table(case: Case) -> dict[str, list[str]]:
    """The case's synonyms; a made one for words of which it only says that there is one, and those of its examples."""
    given: dict[str, list[str]] = {word: list(found) for word, found in case.fields["synonyms_wordnet_3_0"].items()}
    for word, has in case.fields["measured"]["words_with_a_synonym"].items():
        assert not (word in given and has != bool(given[word])), f"{word}: two opinions on whether it has synonyms"
        given.setdefault(word, ["other"] if has else [])
    words, count = case.fields["sentences"][1].split(), case.config["synonym n"]
    for example in case.fields["examples_for_second_sentence"].get("synonym_replacement", ()):
        for word, synonym in replaced(words, example, count).items():
            known = given.setdefault(word, [])
            known += [] if synonym in known else [synonym]
    return given


def replaced(words: list[str], example: str, count: int) -> dict[str, str]:
    """The fewest words, `count` at most, whose synonyms make an example of a sentence, and those synonyms."""
    candidates = [word for word in dict.fromkeys(words) if word not in STOP_WORDS]
    for number in range(count + 1):
        for chosen in combinations(candidates, number):
            parts = [f"(?P<w{chosen.index(word)}>.*)" if word in chosen else re.escape(word) for word in words]
            for place, word in enumerate(words):
                if word in words[:place] and word in chosen:
                    parts[place] = f"(?P=w{chosen.index(word)})"
            if found := re.fullmatch(" ".join(parts), example):
                return {word: found[f"w{number}"] for number, word in enumerate(chosen)}
    raise AssertionError(f"more than {count} words changed: {example!r}")


def augmentation(case: Case, tolerance: float) -> Outcome:
    """Shares of what each operation keeps, changes and hits, and the examples, which ours must be able to give."""
    synonyms = table(case)
    made = operations(case, synonyms)
    known = {"deletion_kept_share", "swap_changed_share", "synonym_unchanged_share", "synonym_hits_by_word"}
    expected = take_known(case.fields["measured"], {*known, "words_with_a_synonym"}, "measured")
    words, random = case.fields["sentences"][0].split(), Random(0)
    drawn = {name: [make(list(words), random) for _ in range(DRAWS)] for name, make in made.items()}
    changed = {name: sum(row != words for row in rows) / DRAWS for name, rows in drawn.items()}
    outcome: dict[str, Pair] = dict(examples(case, made))
    if "random_deletion" in made:
        kept = sum(map(len, drawn["random_deletion"])) / (DRAWS * len(words))
        outcome["deletion_kept_share"] = close(kept, expected["deletion_kept_share"], tolerance)
    if "random_swap" in made:
        outcome["swap_changed_share"] = close(changed["random_swap"], expected["swap_changed_share"], tolerance)
        outcome["swap keeps the words"] = Pair(all(sorted(row) == sorted(words) for row in drawn["random_swap"]), True)
    if "synonym_replacement" in made:
        unchanged = 1 - changed["synonym_replacement"]
        outcome["synonym_unchanged_share"] = close(unchanged, expected["synonym_unchanged_share"], tolerance)
        outcome |= hits(drawn["synonym_replacement"], synonyms, expected, case.config["synonym n"], tolerance)
    rows = [Eda(list(made.values()))(" ".join(words), random).split() for _ in range(DRAWS)]
    share = sum(row != words for row in rows) / DRAWS
    return {**outcome, "choice": close(share, sum(changed.values()) / len(made), tolerance)}


def hits(
    rows: Sequence[list[str]],
    synonyms: Mapping[str, list[str]],
    expected: Mapping[str, Any],
    count: int,
    tolerance: float,
) -> dict[str, Pair]:
    """How often each word went away, as shares of the draws; words without synonyms always stay."""
    has, counts = expected["words_with_a_synonym"], expected["synonym_hits_by_word"]
    known = {word: found for word, found in synonyms.items() if word in counts and found != ["other"]}
    # The case does not say how often it drew: words that no synonym of theirs contains tell.
    clean = [counts[word] for word, found in known.items() if all(word not in one.split() for one in found)]
    clean = clean or [max(counts.values(), default=1)]
    able = sum(has.values())
    total = able * sum(clean) / len(clean) / max(1, min(count, able))
    split = [set(" ".join(row).split()) for row in rows]  # a synonym of several words may hold the word itself
    shares = {word: sum(word not in row for row in split) / len(rows) for word in has}
    return {
        **{f"hits of {word}": close(shares[word], counts[word] / total, tolerance) for word in known},
        **{f"{word} stays": Pair(shares[word], 0.0) for word, any_synonym in has.items() if not any_synonym},
    }


class Deleting(Random):
    """Chance that lets a deletion keep some of the words, in their order."""

    def __init__(self, words: Sequence[str], kept: Sequence[str]) -> None:
        super().__init__(0)
        left = list(reversed(kept))
        self.draws = iter([0.999 if left and left[-1] == word and left.pop() else 0.0 for word in words])

    def random(self) -> float:
        """For the next word: high where it stays."""
        return next(self.draws)


def examples(case: Case, made: Mapping[str, Any]) -> dict[str, Pair]:
    """Every example among our draws of its operation; one word and stop words as the properties say."""
    outcome: dict[str, Pair] = {}
    random, words = Random(1), case.fields["sentences"][1].split()
    for name, shown in case.fields["examples_for_second_sentence"].items():
        ours = {" ".join(made[name](list(words), random)) for _ in range(10 * DRAWS)}
        if name == "random_deletion":  # where many words go, chance takes too long
            ours |= {" ".join(made[name](list(words), Deleting(words, example.split()))) for example in shown}
        outcome[f"examples of {name}"] = Pair(sorted(set(shown) - ours), [])
    for sentence in case.fields["sentences"]:
        words = sentence.split()
        for name, make in made.items():
            stays = len(words) == 1 if name != "synonym_replacement" else set(words) <= STOP_WORDS
            rows = [make(list(words), random) for _ in range(200)]
            assert all(rows), f"{name} left nothing of {sentence!r}"
            if stays:
                outcome[f"{name} of {sentence!r}"] = Pair(all(row == words for row in rows), True)
    return outcome
