"""What passes through fusion: a row of captions on its way in, and on its way out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What became of a row: its fused caption stands, was refused by a filter, or never came.
FUSED, REJECTED, FAILED = "fused", "rejected", "failed"
STATUSES = (FUSED, REJECTED, FAILED)


@dataclass(frozen=True, eq=False)
class CaptionRow:
    """One picture's captions, as read.

    Attributes:
        key: unique in its source; see `key_of`.
        raw: the caption from the web; empty if there is none.
        synthetic: captions that models wrote, the first one first.
        image: the encoded picture as it was stored, if the source has pictures.
        extra: further columns, carried along as they are.
        problem: why the row cannot be fused (no caption, broken text, ...); such a row is written as failed.
    """

    key: str
    raw: str
    synthetic: tuple[str, ...] = ()
    image: bytes | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class FusedRow:
    """One row's result.

    Attributes:
        row: what came in.
        fused: the caption; for a rejected row what was rejected, for a failed one empty.
        status: one of `STATUSES`.
        reason: name of the filter that rejected it, or what went wrong; empty for a fused row.
        flags: names of all filters that it did not pass, those that only mark among them.
        attempts: answers that the engine was asked for.
        words_cut: tokens that its captions lost to fit the prompt's limit.
    """

    row: CaptionRow
    fused: str
    status: str = FUSED
    reason: str = ""
    flags: tuple[str, ...] = ()
    attempts: int = 1
    words_cut: int = 0


def key_of(raw: str, synthetic: str, url: str | None = None) -> str:
    """A row's key where the source has none: SHA-256 of its address, or of both captions (64 hexadecimal digits)."""
    text = url if url else f"{raw}\x1f{synthetic}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
