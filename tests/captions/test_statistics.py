"""Statistics of fused rows, counted by hand, and merged, saved and read again."""

from __future__ import annotations

import json
from random import Random

import pytest

from multimodal_zoo.captions.rows import FAILED, REJECTED, CaptionRow, FusedRow
from multimodal_zoo.captions.statistics import LONGEST, REASONS, Statistics, distinct_trigrams

RAW = "Lisbon tram 28, Alfama - stock photo 4412"
SYNTHETIC = "A yellow tram on a narrow street."


def fused(text: str, raw: str = RAW, *synthetic: str, **more) -> FusedRow:
    return FusedRow(CaptionRow("k", raw, synthetic or (SYNTHETIC,)), text, **more)


def test_one_row_by_hand() -> None:
    found = Statistics(instruction="Keep narrow old street views")
    found.add(fused("A yellow tram, number 28, climbs a narrow old street of Alfama", attempts=2, words_cut=3))
    counts = found.groups["counts"]
    # raw: lisbon tram 28 alfama stock photo 4412; kept: tram 28 alfama
    assert (counts["raw_kept"], counts["raw_all"]) == (3, 7)
    # synthetic: yellow tram narrow street; all kept
    assert (counts["synthetic_kept"], counts["synthetic_all"]) == (4, 4)
    assert (counts["numbers_kept"], counts["numbers_all"]) == (1, 2)
    assert (counts["names_kept"], counts["names_all"]) == (1, 2)
    # fused: yellow tram number 28 climbs narrow old street alfama; new: number climbs old
    assert (counts["fused_new"], counts["fused_content"]) == (3, 9)
    assert found.figures() == {
        "raw_kept": 3 / 7,
        "synthetic_kept": 1.0,
        "numbers_kept": 0.5,
        "names_kept": 0.5,
        "novelty": 1 / 3,
        "raw_lost": 0.0,
        "synthetic_lost": 0.0,
        "joined": 0.0,
        "unclosed": 1.0,
        "leaks": 1.0,  # "narrow old street"
    }
    assert (counts["attempts"], counts["shortened"]) == (2, 1)
    assert [found.mean_words(text) for text in ("raw", "synthetic", "fused")] == [7, 7, 12]


def test_figures_pool_over_rows() -> None:
    found = Statistics()
    found.add(fused("a b.", "a1 b c d", "e f"))  # raw: 1 of 4 words, nothing of the synthetic one
    found.add(fused("x y. a b.", "x y", "a b"))  # joined
    figures = found.figures()
    assert figures["raw_kept"] == 3 / 6
    assert figures["synthetic_lost"] == 0.5
    assert figures["joined"] == 0.5
    assert figures["unclosed"] == 0.0
    assert figures["leaks"] is None
    assert figures["names_kept"] is None


def test_only_accepted_rows_are_compared() -> None:
    found = Statistics()
    found.add(fused("bad", status=REJECTED, reason="leak", flags=("leak", "copy")))
    found.add(fused("", status=FAILED, reason="time-out: 30 s", attempts=3))
    found.add(fused("A tram.", flags=("copy",)))
    assert found.groups["statuses"] == {"rejected": 1, "failed": 1, "fused": 1}
    assert found.groups["reasons"] == {"leak": 1, "time-out": 1}
    assert found.groups["flags"] == {"leak": 1, "copy": 2}
    assert found.rows == 3
    assert found.accepted == 1
    assert found.groups["fused_words"] == {2: 1}


def test_empty_statistics_divide_by_nothing() -> None:
    found = Statistics()
    assert set(found.figures().values()) == {None}
    assert found.mean_words("raw") is None
    assert found.percentile("raw", 0.5) is None
    assert Statistics.from_json(found.as_json()) == found


def test_rows_without_captions_count() -> None:
    found = Statistics()
    found.add(FusedRow(CaptionRow("k", ""), "A tram."))
    assert found.groups["synthetic_words"] == {0: 1}
    assert found.figures()["raw_kept"] is None


def test_percentiles_are_nearest_ranks() -> None:
    found = Statistics()
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10):
        found.add(fused("w " * count))
    assert [found.percentile("fused", share) for share in (0.1, 0.5, 0.51, 0.95, 1.0)] == [1, 5, 6, 10, 10]
    found.add(fused("w " * 10 * LONGEST))
    assert found.percentile("fused", 1.0) == LONGEST


def made_up(random: Random) -> FusedRow:
    vocabulary = ["Lisbon", "tram", "28", "street", "a", "on", "yellow", "1914", "keep", "all", "facts"]
    raw, synthetic, text = (" ".join(random.choices(vocabulary, k=random.randint(0, 9))) for _ in range(3))
    status, reason = random.choice([("fused", ""), ("rejected", "leak"), ("failed", f"error {random.randint(0, 20)}")])
    flags = tuple(random.sample(["leak", "copy", "names"], random.randint(0, 2)))
    return fused(text, raw, synthetic, status=status, reason=reason, flags=flags, words_cut=random.randint(0, 1))


def test_merged_parts_equal_the_whole_after_a_round_trip_through_json() -> None:
    random = Random(0)
    rows = [made_up(random) for _ in range(400)]
    instruction = "keep all facts, tram on a yellow street"
    whole = Statistics(instruction)
    parts = [Statistics(instruction) for _ in range(3)]
    for number, row in enumerate(rows):
        whole.add(row)
        parts[number % 3].add(row)
    merged = Statistics()
    for part in reversed(parts):
        merged.merge(Statistics.from_json(json.loads(json.dumps(part.as_json()))))
    assert merged == whole
    assert merged.figures() == whole.figures()
    assert whole.figures()["leaks"] > 0
    merged.add(rows[0])
    assert merged != whole


def test_reasons_are_bounded() -> None:
    found, other = Statistics(), Statistics()
    for number in range(3 * REASONS):
        found.add(fused("", status=FAILED, reason=f"error {number}"))
        other.add(fused("", status=FAILED, reason=f"mistake {number}"))
    found.merge(other)
    assert len(found.groups["reasons"]) == REASONS + 1
    assert found.groups["reasons"].total() == 6 * REASONS


@pytest.mark.parametrize("content", [{}, {"statuses": 3}, {"statuses": {"fused": "many"}}])
def test_damaged_statistics_are_refused(content: dict) -> None:
    with pytest.raises(ValueError, match="expected are the groups statuses"):
        Statistics.from_json(content)


def test_distinct_trigrams_of_texts() -> None:
    assert distinct_trigrams(["a b c d", "b c d", "a b"]) == (2, 3)
