"""Walking through a tar by its headers: samples are groups of members; contents are read in memory, never extracted."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from multimodal_zoo.captions.json_records import DAMAGED as DAMAGED_GZIP
from multimodal_zoo.captions.json_records import parse
from multimodal_zoo.captions.sources import ADVICE, BrokenFileError
from multimodal_zoo.data.shards import UnsafePathError, check_member
from multimodal_zoo.files import parsed

BLOCK = 512
#: Bytes that a picture and a text of a sample may have; larger members are left out, and their row says so.
LARGEST_IMAGE, LARGEST_TEXT = 1 << 28, 1 << 24
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
#: Columns of a sample that are no keys of its json: its text and its picture.
TEXT, IMAGE = "txt", "image"
#: How compressed tars begin.
OPENERS: dict[bytes, Callable[[str], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
#: What reading a damaged stream raises.
DAMAGED = (*DAMAGED_GZIP, lzma.LZMAError)
#: A member's key and suffix, as webdataset splits names; hidden files have none.
NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)", re.DOTALL)


class Member(NamedTuple):
    """A file in a tar, where its content begins and where the next header does; no name: it is no plain file."""

    name: str | None
    size: int
    place: int
    next: int


class Sample(NamedTuple):
    """The members of one sample by suffix, with their contents if they were read on the way."""

    key: str
    offset: int
    members: dict[str, tuple[Member, bytes | None]]
    problem: str | None


class TarWalk:
    """Goes through the members of one tar.

    Args:
        file: its path; compressed ones are decompressed on the way.
        offset: of the first header to read, in the decompressed tar.
        eager: whether contents are read as their members are passed: a compressed tar only goes forward.
        with_images: whether pictures are wanted; their column is None if not.

    Raises:
        BrokenFileError: it is no tar.
    """

    def __init__(self, file: str, offset: int = 0, eager: bool = True, with_images: bool = True) -> None:
        self.file, self.offset, self.eager, self.with_images = file, offset, eager, with_images
        with open(file, "rb") as opened:
            start = opened.read(2)
        self.opened: BinaryIO = OPENERS[start](file) if start in OPENERS else open(file, "rb")  # noqa: SIM115

    def close(self) -> None:
        """Close the tar."""
        self.opened.close()

    def records(self) -> Iterator[Sample]:
        """Groups of consecutive members that share a key, in order.

        Raises:
            BrokenFileError: the tar is damaged or cut off; the sample that was begun is not given.
        """
        sample: Sample | None = None
        for offset, member in self._members():
            match = NAME.fullmatch(member.name or "")
            if match is None:
                continue
            key, suffix = match.group(1), match.group(2).lower()
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = Sample(key, offset, {}, unsafe(member.name or ""))
            if suffix in sample.members:
                sample = sample._replace(problem=sample.problem or f"sample has two members .{suffix}")
            else:
                read = self.eager and member.size <= largest(suffix)
                sample.members[suffix] = (member, self.content(member) if read else None)
        if sample is not None:
            yield sample

    def values(self, record: Sample) -> tuple[dict[str, Any], str | None]:
        """The columns of a sample, and what is wrong with its members.

        Args:
            record: one of `records`.
        """
        problem = record.problem
        values: dict[str, Any] = {}
        texts: dict[str, Any] = {}
        for suffix, (member, content) in record.members.items():
            most = largest(suffix)
            if most < 0:
                continue
            if member.size > most:
                problem = problem or f"member .{suffix} has {member.size} bytes; at most {most} are read"
                continue
            content = self.content(member) if content is None else content
            if suffix in IMAGES:
                texts.setdefault(IMAGE, content if self.with_images else None)
            elif suffix == "json":
                found, wrong = parse(content)
                values.update(found or {})
                problem = problem or wrong
            else:
                texts[suffix.removesuffix(f".{TEXT}")] = content.strip()
        return values | texts, problem

    def content(self, member: Member) -> bytes:
        """What a member holds.

        Raises:
            BrokenFileError: the tar ends inside it, or is damaged.
        """
        content = self._bytes(member.place, member.size)
        if len(content) < member.size:
            raise BrokenFileError(f"{self.file} is cut off within {member.name!r}; {ADVICE}")
        return content

    def _bytes(self, place: int, size: int) -> bytes:
        try:
            self.opened.seek(place)
            return self.opened.read(size)
        except DAMAGED as error:
            raise BrokenFileError(f"{self.file} is damaged: {error}; {ADVICE}") from error

    def _members(self) -> Iterator[tuple[int, Member]]:
        """All members and where their headers begin."""
        position = self.offset
        while True:
            header = self._bytes(position, BLOCK)
            member = plain_member(header, position) or self._special(position)
            if member is None:
                break
            if member.size < 0 or member.next <= position:  # such a size would read all that is left, or walk for ever
                raise BrokenFileError(
                    f"{self.file} is damaged: a member of {member.size} bytes at byte {position}; {ADVICE}"
                )
            yield position, member
            position = member.next
        if len(header) < BLOCK or any(header):  # the standard library takes any damaged header for the end
            what = "is damaged or cut off at byte" if position else "is no tar, from byte"
            raise BrokenFileError(f"{self.file} {what} {position}; {ADVICE}")

    def _special(self, position: int) -> Member | None:
        """A member whose header is more than a plain file's, as the standard library reads it; None at the end."""
        try:
            self.opened.seek(position)
            tar = tarfile.TarFile(fileobj=self.opened)
            member = tar.next()
        except (tarfile.TarError, ValueError, *DAMAGED) as error:
            raise BrokenFileError(f"{self.file} is damaged or cut off: {error}; {ADVICE}") from error
        if member is None:
            return None
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
        return Member(member.name if plain else None, member.size, member.offset_data, tar.offset)


def plain_member(header: bytes, offset: int) -> Member | None:
    """The member of a plain file's header (POSIX.1-1988 ustar); None for all others, and for damaged ones.

    Tars of pictures hold little else, and the standard library takes five times as long.
    """
    if len(header) < BLOCK or header[156] not in b"0\0":
        return None
    try:
        size, stated = int(header[124:136].rstrip(b" \0"), 8), int(header[148:156].rstrip(b" \0"), 8)
    except ValueError:
        return None
    name = header[:100].split(b"\0", 1)[0]
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != stated or name.endswith(b"/"):
        return None
    if header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    place = offset + BLOCK
    return Member(name.decode("utf-8", "surrogateescape"), size, place, place + -(-size // BLOCK) * BLOCK)


def largest(suffix: str) -> int:
    """Bytes that a member of a suffix may have; -1 for one that is not read at all."""
    if suffix in IMAGES:
        return LARGEST_IMAGE
    return LARGEST_TEXT if suffix == "json" or suffix.rsplit(".", 1)[-1] == TEXT else -1


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
        found = parsed(path.with_name(f"{path.name.split('.', 1)[0]}_stats.json").read_bytes())
    except (OSError, ValueError):
        return None
    rows = found.get("successes") if isinstance(found, dict) else None
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else None
