"""What it costs to judge a fused caption by the default filters, and to count it for the report.

    python benchmarks/fusion_filters.py            # half a minute of processor time

Rows are the captions of emoji: raw, synthetic and fused from the table's own words. Filters share what they read of a
text; the rival reads each text anew for each filter and comes to the same verdicts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import ModuleType

from _report import alternate, ratio, record, use_threads


def readers() -> list[ModuleType]:
    """The modules that read texts."""
    from multimodal_zoo.captions.filters import facts, form, language, likeness, wording

    return [facts, form, language, likeness, wording]


def read_with(reading: Callable[[str], object]) -> None:
    """Have all modules read texts by a function."""
    for module in readers():
        module.reading = reading  # type: ignore[attr-defined]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few rows; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    from multimodal_zoo.captions.checks import Checks, Verdict
    from multimodal_zoo.captions.engine import Answer
    from multimodal_zoo.captions.rows import CaptionRow, FusedRow
    from multimodal_zoo.captions.statistics import Statistics
    from multimodal_zoo.captions.words import Reading, reading
    from multimodal_zoo.config import compose
    from multimodal_zoo.data.emoji_triples import triples
    from multimodal_zoo.registry import build

    config = compose(None, ["+fusion_prompt=default", "+fusion_filters=default"])
    checks, instruction = Checks(build(config.fusion_filters)), build(config.fusion_prompt).fill("", "")
    found = triples(["train", "val", "test"])[: 200 if options.quick else None]
    rows = [FusedRow(CaptionRow(one.key, one.raw, (one.synthetic,)), one.fused) for one in found]

    def judge() -> list[Verdict]:
        return [checks.judge(row.row, Answer(row.fused)) for row in rows]

    def count() -> Statistics:
        counted = Statistics(instruction)
        for row in rows:
            counted.add(row)
        return counted

    def anew(call: Callable[[], object]) -> object:
        read_with(Reading)
        try:
            return call()
        finally:
            read_with(reading)

    assert judge() == anew(judge), "both ways must come to the same verdicts"
    reading.cache_clear()
    rivals = {"default filters": judge, "each reads anew": lambda: anew(judge), "counting": count}
    times = alternate(rivals, 2 if options.quick else 7)
    texts = [text for row in rows for text in (row.row.raw, *row.row.synthetic, row.fused)]
    words = sum(len(reading(text).words) for text in texts) / len(rows)
    lines = [
        {
            "what": name,
            "rows": len(rows),
            "words a row": words,
            "microseconds a row": 1e6 * min(taken) / len(rows),
            "of the filters' time": ratio(taken, times["default filters"]),
        }
        for name, taken in times.items()
    ]
    record("fusion_filters", lines, "python benchmarks/fusion_filters.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
