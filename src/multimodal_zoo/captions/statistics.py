"""Counting fused rows: what became of them, and how much of their sources they keep.

All figures rest on whole numbers that add up, so that the statistics of units, of workers and of runs merge exactly, in
any order; the memory does not grow with the rows. (Reasons beyond `REASONS` kinds fall together as they come.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from multimodal_zoo.captions.rows import FUSED, REJECTED, FusedRow
from multimodal_zoo.captions.words import Reading, Runs, trigrams, words

#: Words of a text from which on lengths are not told apart.
LONGEST = 512
#: Different reasons that are told apart; engines can invent more.
REASONS = 64
#: What is not told apart any more.
OTHER = "other"
#: Texts whose lengths are counted.
TEXTS = ("raw", "synthetic", "fused")
_LENGTHS = tuple(f"{text}_words" for text in TEXTS)
_GROUPS = ("statuses", "reasons", "flags", "counts", *_LENGTHS)
#: Names of the counters of what is kept of a source: words, words kept, rows that have any, rows that keep none.
_RAW, _SYNTHETIC, _NUMBERS, _NAMES = (
    (f"{name}_all", f"{name}_kept", f"{name}_rows", f"{name}_lost") for name in ("raw", "synthetic", "numbers", "names")
)
_EMPTY = Reading("")


class Statistics:
    """Counters over fused rows; sources and answers are compared in the rows that were accepted.

    Args:
        instruction: the prompt's own words (`prompt.fill("", "")`), for the leak rate; empty counts no leaks.
    """

    def __init__(self, instruction: str = "") -> None:
        self.runs = Runs(instruction, size=3)
        self.groups: dict[str, Counter[Any]] = {name: Counter() for name in _GROUPS}
        self._lengths = [self.groups[name] for name in _LENGTHS]

    def add(self, row: FusedRow) -> None:
        """Count one row."""
        groups, counts = self.groups, self.groups["counts"]
        groups["statuses"][row.status] += 1
        counts["rows"] += 1
        counts["attempts"] += row.attempts
        counts["shortened"] += row.words_cut > 0
        if row.flags:
            groups["flags"].update(row.flags)
        if row.status == FUSED:
            self._compare(row)
        else:
            self._reason(row.reason if row.status == REJECTED else row.reason.partition(":")[0][:80])

    def _reason(self, reason: str) -> None:
        reasons = self.groups["reasons"]
        reasons[reason if reason in reasons or len(reasons) < REASONS else OTHER] += 1

    def _compare(self, row: FusedRow) -> None:
        raw = Reading(row.row.raw)
        fused = raw if row.fused == raw.text else Reading(row.fused)
        synthetic = [Reading(text) for text in row.row.synthetic]
        described = synthetic[0].content if synthetic else _EMPTY.content
        if len(synthetic) > 1:
            described = described.union(*(text.content for text in synthetic[1:]))
        lengths = (len(raw.words), len(synthetic[0].words) if synthetic else 0, len(fused.words))
        for histogram, length in zip(self._lengths, lengths, strict=True):
            histogram[length if length < LONGEST else LONGEST] += 1
        counts, kept = self.groups["counts"], fused.content
        if raw.content:
            _count_kept(counts, _RAW, len(raw.content), len(raw.content & kept))
        if described:
            _count_kept(counts, _SYNTHETIC, len(described), len(described & kept))
        if raw.numbers:
            _count_kept(counts, _NUMBERS, len(raw.numbers), len(raw.numbers & fused.numbers))
        if raw.names:
            _count_kept(counts, _NAMES, len(raw.names), len(raw.names & fused.vocabulary))
        counts["fused_content"] += len(kept)
        counts["fused_new"] += len(kept.difference(raw.content, described))
        counts["joined"] += is_joined(raw, synthetic, fused)
        counts["unclosed"] += not fused.closed
        if self.runs:
            counts["searched"] += 1
            counts["leaks"] += bool(self.runs.leaked(raw, synthetic, fused))

    def merge(self, other: Statistics) -> None:
        """Add what another one has counted."""
        for name, group in other.groups.items():
            if name == "reasons":
                continue
            self.groups[name].update(group)
        for reason, count in other.groups["reasons"].items():
            reasons = self.groups["reasons"]
            reasons[reason if reason in reasons or len(reasons) < REASONS else OTHER] += count

    def as_json(self) -> dict[str, dict[str, int]]:
        """All counters, in sorted order, as plain JSON that `from_json` reads back."""
        return {
            name: {str(key): group[key] for key in sorted(group) if group[key]} for name, group in self.groups.items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Mapping[str, int]], instruction: str = "") -> Statistics:
        """Statistics as they were saved; rows can be added to them again.

        Raises:
            ValueError: the content is not that of `as_json`.
        """
        found = cls(instruction)
        try:
            for name, group in found.groups.items():
                keys = int if name.endswith("_words") else str
                group.update({keys(key): int(count) for key, count in content[name].items()})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"statistics lack {error}; expected are the groups {', '.join(_GROUPS)}") from None
        return found

    def __eq__(self, other: object) -> bool:
        """Whether the same was counted."""
        return isinstance(other, Statistics) and self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def rows(self) -> int:
        """All rows counted."""
        return self.groups["counts"]["rows"]

    @property
    def accepted(self) -> int:
        """The rows whose fused caption stands."""
        return self.groups["statuses"][FUSED]

    def share(self, part: str, whole: str | int) -> float | None:
        """One counter over another, as a fraction of 1; None where there is nothing to divide by."""
        counts = self.groups["counts"]
        below = counts[whole] if isinstance(whole, str) else whole
        return counts[part] / below if below else None

    def figures(self) -> dict[str, float | None]:
        """The fusion report's figures as fractions of 1, by the names of `report_tables.REFERENCE`.

        Recalls are pooled over all accepted rows: distinct words found over distinct words looked for.
        """
        return {
            "raw_kept": self.share("raw_kept", "raw_all"),
            "synthetic_kept": self.share("synthetic_kept", "synthetic_all"),
            "numbers_kept": self.share("numbers_kept", "numbers_all"),
            "names_kept": self.share("names_kept", "names_all"),
            "novelty": self.share("fused_new", "fused_content"),
            "raw_lost": self.share("raw_lost", "raw_rows"),
            "synthetic_lost": self.share("synthetic_lost", "synthetic_rows"),
            "joined": self.share("joined", self.accepted),
            "unclosed": self.share("unclosed", self.accepted),
            "leaks": self.share("leaks", "searched"),
        }

    def mean_words(self, text: str) -> float | None:
        """Mean number of words of the accepted rows' `raw`, `synthetic` or `fused` texts."""
        group = self.groups[f"{text}_words"]
        total = group.total()
        return sum(length * count for length, count in group.items()) / total if total else None

    def percentile(self, text: str, share: float) -> int | None:
        """Words that this share of the accepted rows' texts do not exceed (nearest rank; `LONGEST` and more as one)."""
        group = self.groups[f"{text}_words"]
        rank, passed = share * group.total(), 0
        for length in sorted(group):
            passed += group[length]
            if passed >= rank:
                return length
        return None


def _count_kept(counts: Counter[Any], keys: tuple[str, str, str, str], whole: int, kept: int) -> None:
    every, found, rows, lost = keys
    counts[every] += whole
    counts[found] += kept
    counts[rows] += 1
    counts[lost] += not kept


def is_joined(raw: Reading, synthetic: Iterable[Reading], fused: Reading) -> bool:
    """Whether a fused caption holds the raw and one synthetic caption word by word, one after the other."""
    if not raw.words or not raw.vocabulary <= fused.vocabulary:  # most rows: no need to look at the order
        return False
    line = fused.line
    if raw.line not in line:
        return False
    before, _, behind = line.partition(raw.line)
    return any(text.line and (text.line in f"{before} " or text.line in f" {behind}") for text in synthetic)


def distinct_trigrams(texts: Iterable[str]) -> tuple[int, int]:
    """Distinct and all runs of three words of some texts; the memory grows with them, so give a sample."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        found = trigrams(words(text))
        seen.update(found)
        total += len(found)
    return len(seen), total
