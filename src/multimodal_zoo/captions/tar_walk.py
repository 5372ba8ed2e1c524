"""Walking through a tar by its headers: samples are groups of members; contents are read in memory, never extracted."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from multimodal_zoo.captions.json_records import parse
from multimodal_zoo.captions.sources import BrokenFileError
from multimodal_zoo.data.shards import UnsafePathError, check_member

BLOCK = 512
#: Bytes that a picture and a text of a sample may have; larger members are left out, and their row says so.
LARGEST_IMAGE, LARGEST_TEXT = 1 << 28, 1 << 24
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
#: Columns of a sample that are no keys of its json: its text and its picture.
TEXT, IMAGE = "txt", "image"
ADVICE = "replace it, take it out of source.path, or set source.broken_files=report"
#: How compressed tars begin.
OPENERS: dict[bytes, Callable[[str], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
#: A member's key and suffix, as webdataset splits names; hidden files have none.
NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)", re.DOTALL)


class Sample(NamedTuple):
    """The members of one sample by suffix; which of them are read is decided later."""

    key: str
    offset: int
    members: dict[str, tarfile.TarInfo]
    problem: str | None


class TarWalk:
    """Goes through the members of one tar.

    Args:
        file: its path; compressed ones are decompressed on the way.
        offset: of the first header to read, in the decompressed tar.

    Raises:
        BrokenFileError: it is no tar.
    """

    def __init__(self, file: str, offset: int = 0) -> None:
        self.file = file
        with open(file, "rb") as opened:
            start = opened.read(2)
        self.opened: BinaryIO = OPENERS[start](file) if start in OPENERS else open(file, "rb")  # noqa: SIM115
        try:
            self.opened.seek(offset)
            self.tar = tarfile.open(fileobj=self.opened, mode="r:")  # noqa: SIM115  # closed by `close`
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            self.opened.close()
            raise BrokenFileError(f"{file} is no tar: {error}; {ADVICE}") from error

    def __enter__(self) -> TarWalk:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the tar."""
        self.tar.close()
        self.opened.close()

    def samples(self) -> Iterator[Sample]:
        """Groups of consecutive members that share a key, in order.

        Raises:
            BrokenFileError: the tar is damaged or cut off; the sample that was begun is not given.
        """
        sample: Sample | None = None
        for member in self._members():
            match = NAME.fullmatch(member.name)
            if match is None or member.type not in PLAIN:
                continue
            key, suffix = match.group(1), match.group(2).lower()
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = Sample(key, self._offset, {}, unsafe(member.name))
            if suffix in sample.members:
                sample = sample._replace(problem=sample.problem or f"sample has two members .{suffix}")
            else:
                sample.members[suffix] = member
        if sample is not None:
            yield sample

    def values(self, sample: Sample, with_image: bool = True) -> tuple[dict[str, Any], str | None]:
        """The columns of a sample, and what is wrong with its members.

        Args:
            sample: one of `samples`.
            with_image: whether its picture is read; its column is None if not.
        """
        problem = sample.problem
        values: dict[str, Any] = {}
        texts: dict[str, Any] = {}
        for suffix, member in sample.members.items():
            image = suffix in IMAGES
            if not image and suffix != "json" and suffix.rsplit(".", 1)[-1] != TEXT:
                continue
            largest = LARGEST_IMAGE if image else LARGEST_TEXT
            if member.size > largest:
                problem = problem or f"member .{suffix} has {member.size} bytes; at most {largest} are read"
            elif image:
                texts.setdefault(IMAGE, self._read(member) if with_image else None)
            elif suffix == "json":
                found, wrong = parse(self._read(member))
                values.update(found or {})
                problem = problem or wrong
            else:
                texts[suffix.removesuffix(f".{TEXT}")] = self._read(member).strip()
        return values | texts, problem

    def _read(self, member: tarfile.TarInfo) -> bytes:
        try:
            self.opened.seek(member.offset_data)
            content = self.opened.read(member.size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise BrokenFileError(f"{self.file} is damaged: {error}; {ADVICE}") from error
        if len(content) < member.size:
            raise BrokenFileError(f"{self.file} is cut off within {member.name!r}; {ADVICE}")
        return content

    def _members(self) -> Iterator[tarfile.TarInfo]:
        """All members; `_offset` is where the headers of the last one begin."""
        self._offset = 0
        while True:
            try:
                member = self.tar.next()
            except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise BrokenFileError(f"{self.file} is damaged or cut off: {error}; {ADVICE}") from error
            if member is None:
                break
            self.tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
            self._offset = member.offset
            yield member
        self._check_end()

    def _check_end(self) -> None:
        """The standard library takes any damaged header for the end; the end is a block of zeros."""
        self.opened.seek(self.tar.offset)
        block = self.opened.read(BLOCK)
        if len(block) < BLOCK or any(block):
            raise BrokenFileError(f"{self.file} is damaged or cut off at byte {self.tar.offset}; {ADVICE}")


def unsafe(name: str) -> str | None:
    """What is wrong with a member's name: absolute, with a drive, or leading out of its folder."""
    try:
        check_member(name)
    except UnsafePathError:
        return f"member {name!r} names a place outside of its folder"
    return None


def stated_rows(file: str) -> int | None:
    """Samples of a tar as img2dataset's `_stats.json` beside it says; None if there is none."""
    path = Path(file)
    try:
        found = json.loads(path.with_name(f"{path.name.split('.', 1)[0]}_stats.json").read_bytes())
    except (OSError, ValueError):
        return None
    rows = found.get("successes") if isinstance(found, dict) else None
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else None
