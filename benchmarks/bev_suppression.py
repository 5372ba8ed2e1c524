"""Suppressing boxes of one class: tensors over pairs that are near, against a loop over pairs with polygon clipping.

    python benchmarks/bev_suppression.py           # one thread: about a minute of processor time

1,000 boxes with random sizes and yaws, scattered over squares of 100 m, 30 m and 10 m around the car, from few that
touch to heaps. The loop takes boxes by falling score and clips the polygon of each against those that stay (Sutherland
and Hodgman), in Python; the published code does that in a compiled operation for GPUs, which was not at hand. Both must
keep the same boxes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _report import alternate, ratio, record, use_threads
from torch import Tensor

from multimodal_zoo.bev.suppression import AlignedSuppression, CircleSuppression, RotatedSuppression

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "bev"))  # the plain loop that tests compare with

from plain_boxes import overlap, scattered

SQUARES, BOXES, THRESHOLD = (50.0, 15.0, 5.0), 1000, 0.2


def loop(boxes: Tensor, scores: Tensor) -> list[int]:
    """Numbers that stay, by falling score."""
    rows = [(*row[:2], *row[3:5], row[6]) for row in boxes.tolist()]
    reach = [math.hypot(row[2], row[3]) / 2 for row in rows]
    stays: list[int] = []
    for number in scores.argsort(descending=True).tolist():
        one = rows[number]
        near = (k for k in stays if math.dist(one[:2], rows[k][:2]) <= reach[number] + reach[k])
        if not any(overlap(one, rows[k]) > THRESHOLD for k in near):
            stays.append(number)
    return stays


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few boxes; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    rows = list[dict[str, Any]]()
    for square in SQUARES:
        boxes, scores = scattered(50 if options.quick else BOXES, square)
        single, order = boxes.float(), scores.float()
        rotated = RotatedSuppression(THRESHOLD)
        ways: dict[str, Callable[[], Any]] = {
            "rotated": lambda s=single, o=order, run=rotated: run(s, o),
            "aligned": lambda s=single, o=order: AlignedSuppression(THRESHOLD)(s, o),
            "circle": lambda s=single, o=order: CircleSuppression(1.0)(s, o),
            "rotated, loop": lambda b=boxes, o=scores: loop(b, o),
        }
        same = rotated(boxes, scores).tolist() == loop(boxes, scores)
        times = alternate(ways, 1 if options.quick else options.repeats)
        for name, taken in times.items():
            row = {"square, m": 2 * square, "way": name, "boxes": len(boxes), "ms": 1000 * min(taken)}
            if name.startswith("rotated"):
                row |= {"loop / way": ratio(times["rotated, loop"], taken), "same boxes": str(same)}
            rows.append(row)
    record("bev_suppression", rows, "python benchmarks/bev_suppression.py", options.threads, not options.quick)


if __name__ == "__main__":
    main()
