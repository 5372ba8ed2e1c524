"""The lengths of captions as a picture: SVG, which a page holds as text and which follows its light or dark colours."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

#: Size of the drawing, room for the labels, in pixels.
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 760, 260, 46, 40, 24
COLOURS = ("#8a93a3", "#e08e00", "#2f6fde")
#: Share of the rows behind which the longest are not drawn.
DRAWN = 0.995


def length_chart(histograms: Mapping[str, Mapping[int, int]]) -> str:
    """A line for each text: percent of its rows over their number of words.

    Args:
        histograms: name of a text -> number of words -> rows.

    Returns:
        an `<svg>` element; empty where nothing was counted.
    """
    counted = {name: counts for name, counts in histograms.items() if sum(counts.values())}
    if not counted:
        return ""
    longest = max(5, *(_reach(counts) for counts in counted.values()))
    highest = max(100 * max(counts.values()) / sum(counts.values()) for counts in counted.values())
    across, up = (WIDTH - LEFT - 10) / longest, (HEIGHT - BELOW - ABOVE) / highest
    floor = HEIGHT - BELOW
    parts = [_axes(longest, highest, across, up)]
    for place, (name, counts) in enumerate(counted.items()):
        colour, total = COLOURS[place % len(COLOURS)], sum(counts.values())
        points = " ".join(
            f"{LEFT + across * length:.1f},{floor - up * 100 * counts.get(length, 0) / total:.1f}"
            for length in range(longest + 1)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        left = WIDTH - 110 * (len(counted) - place)
        parts.append(f'<rect x="{left}" y="6" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 18}" y="16">{escape(name)}</text>')
    label = "percent of the rows over their number of words"
    caption = f"{label}; the longest {100 - 100 * DRAWN:g} % are not drawn"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        'style="max-width:100%;height:auto;font-size:12px" fill="currentColor">'
        f"{''.join(parts)}</svg><figcaption>{caption}</figcaption></figure>"
    )


def _reach(counts: Mapping[int, int]) -> int:
    """The number of words that the drawn share of rows does not exceed."""
    total, passed = sum(counts.values()), 0
    for length in sorted(counts):
        passed += counts[length]
        if passed >= DRAWN * total:
            return length
    return 0


def _axes(longest: int, highest: float, across: float, up: float) -> str:
    floor = HEIGHT - BELOW
    line = f'<line x1="{LEFT}" y1="{floor}" x2="{WIDTH - 10}" y2="{floor}" stroke="currentColor" opacity="0.5"/>'
    parts = [line]
    for length in range(0, longest + 1, _step(longest)):
        place = f'x="{LEFT + across * length:.1f}" y="{floor + 16}" text-anchor="middle"'
        parts.append(f"<text {place}>{length}</text>")
    for share in range(0, int(highest) + 1, _step(int(highest))):
        height = floor - up * share
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{share} %</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">words</text>')
    return "".join(parts)


def _step(longest: int) -> int:
    """A round distance of about eight marks."""
    return next((step for step in (1, 2, 5, 10, 20, 50, 100) if longest <= 8 * step), 200)
