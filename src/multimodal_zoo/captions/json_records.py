"""Records of JSON files as bytes: lines, or the elements of a list, each with its place, none larger than memory."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TypeVar

from multimodal_zoo.captions.sources import ADVICE, BrokenFileError
from multimodal_zoo.files import parsed

#: Bytes that are read at a time, bytes that one record may have, and what is kept of one that has more.
PIECE, LONGEST, SHOWN = 1 << 20, 1 << 26, 1 << 10
#: What reading a compressed file raises where it is damaged.
DAMAGED = (OSError, EOFError, zlib.error)
MARK = b"\xef\xbb\xbf"
#: What decides where an element of a list ends, within quotes and outside of them.
QUOTED, PLAIN = re.compile(rb'["\\]'), re.compile(rb'["{}\[\],]')
T = TypeVar("T")
#: An object without others in it, whole: most are, and one match is cheaper than one for each of its quotes.
FLAT = re.compile(rb'\{(?:[^{}"]|"[^"\\]*(?:\\.[^"\\]*)*")*\}', re.DOTALL)


class Record(NamedTuple):
    """One record as it stands in its file."""

    offset: int
    text: bytes


class JsonWalk:
    """Goes through the records of one file.

    Args:
        file: its path; decompressed on the way if the name says that it is compressed.
        offset: of the first record to read, in the decompressed file.
    """

    def __init__(self, file: str, offset: int = 0) -> None:
        self.file, self.offset, self.eager = file, offset, True
        self.opened: BinaryIO = gzip.open(file, "rb") if file.endswith(".gz") else open(file, "rb")  # type: ignore[assignment]  # noqa: SIM115

    def records(self) -> Iterator[Record]:
        """The records, in order; blank lines are none.

        Raises:
            BrokenFileError: a list that does not end, or is not one; a compressed file that is damaged.
        """
        start = _piece(self.opened.read, PIECE, self.file).removeprefix(MARK).lstrip()
        _piece(self.opened.seek, self.offset, self.file)
        yield from (_listed if start[:1] == b"[" else _lines)(self.opened, self.file, self.offset)

    def values(self, record: Record) -> tuple[dict[str, Any] | None, str | None]:
        """See `parse`."""
        return parse(record.text)

    def close(self) -> None:
        """Close the file."""
        self.opened.close()


def parse(text: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The object of a record, or what is wrong with it; values that hold bytes that are not UTF-8 stay bytes."""
    broken = False
    try:
        try:
            found = parsed(text)
        except UnicodeDecodeError:
            broken, found = True, parsed(text.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        return None, f"record is no JSON: {error}"
    if not isinstance(found, dict):
        return None, f"record is a {type(found).__name__}, not an object"
    return {_escaped(key): _bytes(value) for key, value in found.items()} if broken else found, None


def _bytes(value: Any) -> Any:
    """Texts that held broken bytes, as bytes again; the row's rules say what becomes of them."""
    if isinstance(value, list):
        return [_bytes(one) for one in value]
    if not isinstance(value, str) or not any("\udc80" <= character <= "\udcff" for character in value):
        return value
    return value.encode("utf-8", "surrogateescape")


def _escaped(key: str) -> str:
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _piece(call: Callable[[int], T], number: int, file: str) -> T:
    """What one call on an open file gives."""
    try:
        return call(number)
    except DAMAGED as error:
        raise BrokenFileError(f"{file} is damaged: {error}; {ADVICE}") from error


def _lines(opened: BinaryIO, file: str, offset: int) -> Iterator[Record]:
    while line := _piece(opened.readline, LONGEST, file):
        size = len(line)
        if size == LONGEST and not line.endswith(b"\n"):  # no caption: leave the rest of the line out
            line = line[:SHOWN]
            while more := _piece(opened.readline, PIECE, file):
                size += len(more)
                if more.endswith(b"\n"):
                    break
        text = line.removeprefix(MARK) if offset == 0 else line
        if text.strip():
            yield Record(offset, text)
        offset += size


def _listed(opened: BinaryIO, file: str, offset: int) -> Iterator[Record]:
    """The elements of a list, found by their brackets, quotes and commas alone; each is parsed on its own later."""
    elements: Elements | None = Elements(offset) if offset else None
    while piece := _piece(opened.read, PIECE, file):
        if elements is None:
            lead = piece.index(b"[") + 1
            elements, piece = Elements(lead), piece[lead:]
        yield from elements.feed(piece)
        if elements.ended:
            return
        if len(elements.held) > LONGEST:
            break
    raise BrokenFileError(f"{file} is a JSON list that does not end: it was cut off; {ADVICE}")


class Elements:
    """Finds the elements of a JSON list in pieces of its bytes.

    Args:
        offset: of the first piece in the file.
    """

    def __init__(self, offset: int) -> None:
        self.offset, self.place = offset, offset
        self.held = bytearray()
        self.depth = 0
        self.quoted = self.escaped = self.ended = False

    def feed(self, piece: bytes) -> Iterator[Record]:
        """The elements that end in this piece; `ended` is set where the list does."""
        begun = position = 0
        if self.escaped and piece:
            position, self.escaped = 1, False
        while not self.ended and (match := (QUOTED if self.quoted else PLAIN).search(piece, position)):
            byte, position = match.group(), match.end()
            if byte == b"\\":
                self.escaped = position == len(piece)
                position += 1
            elif byte == b'"':
                self.quoted = not self.quoted
            elif byte in b"{[":
                whole = None if self.depth or byte == b"[" else FLAT.match(piece, position - 1)
                if whole:
                    position = whole.end()
                else:
                    self.depth += 1
            elif byte in b"}]" and self.depth:
                self.depth -= 1
            elif not self.depth:  # a comma, or the end of the list
                self.held += piece[begun : match.start()]
                if self.held.strip():
                    yield Record(self.offset, bytes(self.held))
                self.held.clear()
                begun, self.offset, self.ended = position, self.place + position, byte != b","
        self.held += piece[begun:]
        self.place += len(piece)
