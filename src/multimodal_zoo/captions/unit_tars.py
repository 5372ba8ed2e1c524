"""Accepted rows as webdataset tars: picture, fused caption and facts of each row, the same bytes for the same rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.captions.rows import FUSED, FusedRow
from multimodal_zoo.captions.unit_tables import as_json, column_names

BLOCK, RECORD = 512, 10_240
#: How pictures begin, and what their files are called.
PICTURES = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"))
#: Bytes of a ustar header behind the size: no time, and behind the checksum: a plain file, no owner, no folder.
TIME = b"00000000000\0"
OWNER = b"0000644\0" + b"0000000\0" * 2
REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(155 + 12)
#: Sum of all bytes of a header but name and size, the checksum itself counted as blanks.
CONSTANT = sum(OWNER) + sum(TIME) + sum(REST) + 8 * ord(" ")


def member(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    """A file of a tar: header (POSIX.1-1988 ustar), content and padding; the standard library takes 15 times as long.

    Args:
        name: at most 100 ASCII characters.
        content: less than 8 GiB.

    Raises:
        ValueError: a longer name.
    """
    path, size = name.encode("ascii"), b"%011o\0" % len(content)
    if len(path) > 100:
        raise ValueError(f"member {name!r} has {len(path)} characters; 100 fit into a tar's header")
    checksum = CONSTANT + sum(path) + sum(size)
    header = b"%b%b%b%b%06o\0 %b" % (path.ljust(100, b"\0"), OWNER, size, TIME, checksum, REST)
    return header, content, bytes(-len(content) % BLOCK)


def picture_suffix(image: bytes) -> str:
    """What the file of an encoded picture is called, by its first bytes; `bin` for what is not known."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return next((suffix for start, suffix in PICTURES if image.startswith(start)), "bin")


class UnitTar:
    """Writes the tar of a unit; nothing but the rows of one `add` is held in memory.

    Args:
        path: of the file, replaced if it exists.
        name: of the unit, with which its members' names begin.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self.rows, self.size = name, 0, 0
        self.hash = hashlib.sha256()
        self.file = path.open("wb")
        self._names: dict[str, str] = {}

    def add(self, rows: Sequence[FusedRow]) -> None:
        """Add those rows that have a fused caption; the others count, so that a member's number is its row's."""
        blocks: list[bytes] = []
        for row in rows:
            if row.status == FUSED:
                base = f"{self.name}-{self.rows:06d}"
                image = row.row.image
                if image is not None:
                    blocks += member(f"{base}.{picture_suffix(image)}", image)
                blocks += member(f"{base}.txt", row.fused.encode("utf-8", "replace"))
                blocks += member(f"{base}.json", self._facts(row))
            self.rows += 1
        self._write(b"".join(blocks))

    def close(self) -> str:
        """End the tar, and its SHA-256."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self.size % RECORD))
        self.file.close()
        return self.hash.hexdigest()

    def _write(self, content: bytes) -> None:
        self.file.write(content)
        self.hash.update(content)
        self.size += len(content)

    def _facts(self, row: FusedRow) -> bytes:
        source = row.row
        facts: dict[str, Any] = {
            "key": source.key,
            "raw": source.raw,
            "synthetic": source.synthetic,
            "fused": row.fused,
            "status": row.status,
            "reason": row.reason,
            "flags": row.flags,
            "attempts": row.attempts,
            "words_cut": row.words_cut,
        }
        if source.extra:
            facts.update(self._extra(source.extra))
        try:
            return _encode(facts).encode()
        except (TypeError, ValueError):  # values that are not JSON, NaN, half a character
            return as_json(facts).encode()

    def _extra(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """What is carried along, under the names of the table's columns; bytes are left to the table."""
        if not self._names.keys() >= extra.keys():
            self._names = column_names([*self._names, *(name for name in extra if name not in self._names)])
        return {self._names[name]: value for name, value in extra.items() if not isinstance(value, bytes)}


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
