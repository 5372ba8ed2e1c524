"""Tar shards: finding them, and reading their samples as bytes without ever writing or trusting a path.

Built on the webdataset library's openers and grouping, and on `tarfile`; a damaged shard costs its own samples only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from multimodal_zoo.data.pictures import PICTURE_SUFFIXES
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.files import reading

#: Suffixes of pictures in samples, in the order in which they are looked for.
IMAGE_SUFFIXES = PICTURE_SUFFIXES[:4]
REMOTE = re.compile(r"^(https?|s3|gs|pipe|hf|ais|sftp|ftps|scp):")
#: Bytes in a block of a tar, and how gzip, bzip2 and xz files begin.
BLOCK = 512
COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")
#: Bytes that a member may have, and the long names and facts in front of one: a small file may unpack to any number.
LARGEST, LARGEST_HEADER = 1 << 28, 1 << 20
#: Bytes that a text beside shards may have.
LARGEST_TEXT = 1 << 24
#: Headers whose content `tarfile` reads whole before it gives their member.
LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
)  # fmt: skip
#: Members that say something of the shard and belong to no sample, as webdataset names them.
META = re.compile(r"__[^/]*__($|/)")
#: One sample of a shard: bytes by suffix, with `__key__` and `__url__`.
RawSample = dict[str, Any]


class Tail:
    """A stream that remembers the end of what was read from it.

    A tar ends with blocks of zeros. Python's reader takes any other end for the end as well, and a shard whose download
    stopped between two members would pass for a whole one.

    Args:
        stream: what to read.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.head = b""
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content: bytes = self.stream.read(size)
        if content:
            self.head = self.head or content[:BLOCK]
            self.tail = content[-BLOCK:] if len(content) >= BLOCK else (self.tail + content)[-BLOCK:]
        return content

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()

    def complete(self) -> bool:
        """Whether a plain tar ended with zeros; compressed ones check their own end."""
        return self.head[:2] in COMPRESSED or not any(self.tail)


class UnsafePathError(tarfile.TarError):
    """A member of a tar names a place outside of its folder."""


def expand(sources: str | Sequence[str], key: str) -> list[str]:
    """Shard addresses from patterns, in order and without repetition.

    Args:
        sources: local paths with braces (`{00000..00099}`) and globs, or http, https, s3, gs, hf and pipe addresses
            with braces. Several in one text are separated by `::`.
        key: the configuration key, for errors.

    Raises:
        FileNotFoundError: a local pattern that matches no file.
    """
    import braceexpand

    listed = [sources] if isinstance(sources, str) else list(sources)
    found: dict[str, None] = {}
    for pattern in (part for source in listed for part in source.split("::")):
        for address in braceexpand.braceexpand(pattern):
            if REMOTE.match(address):
                found[address] = None
                continue
            path = os.path.expanduser(address.removeprefix("file:"))
            matches = [path] if os.path.exists(path) else sorted(glob.glob(path))
            if not matches:
                raise FileNotFoundError(f"{key}: no shard at {path!r} (from {pattern!r})")
            found.update(dict.fromkeys(matches))
    return list(found)


def opener(address: str) -> str:
    """The address as webdataset opens it; s3 goes through the AWS command line."""
    return f"pipe:aws s3 cp {shlex.quote(address)} -" if address.startswith("s3:") else address


def check_member(name: str) -> bool:
    """Whether a member is a file to read.

    Raises:
        UnsafePathError: an absolute path, a drive letter or a `..` in it.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"^[A-Za-z]:", name):
        raise UnsafePathError(f"member {name!r}")
    return True


class _Member(tarfile.TarInfo):
    """A member that is refused before it is read where `tarfile` itself would read or pass over too much."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """The member of a block."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in LONG_HEADERS and found.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes; at most {LARGEST_HEADER:,} are read")
        if found.type not in tarfile.SUPPORTED_TYPES and found.size > LARGEST:
            raise tarfile.ReadError(f"a member of unknown kind and {found.size:,} bytes")
        return found


def _files(stream: Tail, address: str, skips: Skips) -> Iterator[dict[str, Any]]:
    """The plain files of a shard as webdataset groups them; an empty one at the end releases the last sample.

    Raises:
        tarfile.TarError: the tar is damaged or cut off, or names a path outside of its folder.
    """
    file: Any = stream  # reading is all that is asked of it
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # they would pile up
            if not member.isreg():
                continue
            content = tar.extractfile(member)
            assert content is not None
            if member.size > LARGEST:
                what = f"{address}: {member.name} has {member.size:,} bytes, at most {LARGEST:,} are read"
                skips.add("over-large file in tar", what)
                while content.read(LARGEST_HEADER):  # tarfile itself would not notice the end of the shard
                    pass
            elif not META.match(member.name) and check_member(member.name):
                yield {"fname": member.name, "data": content.read(), "__url__": address}
    yield {}
    if not stream.complete():
        raise tarfile.ReadError("no end-of-archive mark")


def read_shard(address: str, skips: Skips) -> Iterator[RawSample]:
    """Samples of one shard, grouped by key; links, devices and folders in it are ignored.

    Reading of a shard stops where it is cut off or names a path outside of its folder; that is counted, as are members
    of more than `LARGEST` bytes, which are left out unread.
    """
    from webdataset.gopen import gopen
    from webdataset.tariterators import group_by_keys

    def _keep_first(error: Exception) -> bool:
        if not isinstance(error, ValueError):
            raise error
        skips.add("repeated file name in tar", address)
        return True

    try:
        stream = Tail(gopen(opener(address)))
    except (OSError, ValueError) as error:
        skips.add("shard cannot be opened", f"{address}: {error}")
        return
    try:
        yield from group_by_keys(_files(stream, address, skips), handler=_keep_first)
    except UnsafePathError as error:
        skips.add("tar with a path outside its folder", f"{address}: {error}")
    except (tarfile.TarError, OSError, EOFError) as error:
        skips.add("truncated or damaged tar", f"{address}: {error}")
    finally:
        _close(stream)


def _close(stream: Any) -> None:
    # A command that is stopped half-way reports a failure of its own, which says nothing new.
    with contextlib.suppress(OSError, ValueError):
        stream.close()


def find_image(sample: RawSample, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> bytes | None:
    """The encoded picture of a sample, None where there is none."""
    return next((sample[suffix] for suffix in suffixes if suffix in sample), None)


def decode_text(value: bytes) -> str:
    """UTF-8 text; bytes that are none become the replacement character."""
    return value.decode("utf-8", errors="replace").strip()


def read_text(address: str) -> str:
    """A small text file beside shards, local or remote.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no text in UTF-8, or of more than `LARGEST_TEXT` bytes.
    """
    from webdataset.gopen import gopen

    try:
        with gopen(opener(address)) as stream:
            content: bytes = stream.read(LARGEST_TEXT + 1)
    except OSError as error:
        raise FileNotFoundError(f"cannot read {address}: {error}") from error
    if not content and REMOTE.match(address):
        raise FileNotFoundError(f"cannot read {address}")
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"{address} has more than {LARGEST_TEXT:,} bytes; expected a small text file beside shards")
    with reading(address, "text in UTF-8"):
        return content.decode("utf-8")
