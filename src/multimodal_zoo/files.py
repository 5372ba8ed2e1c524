"""Files written so that a reader sees the old content or the new, and damaged ones named; the standard library only."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

#: The names that `beside` gives.
HALF = re.compile(r"\.(.+)\.[0-9a-f]{12}(\.[^.]+)?")
#: Seconds behind which a folder that nobody holds was left by a killed writer.
SETTLED = 60.0


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Two writers of one path do not mix: each has a temporary file of its own, and the last one stays.

    Args:
        path: the file to create or replace; its folder is created.

    Yields:
        the temporary path: an empty file with the suffix of `path`, by which some writers choose a format.

    Raises:
        OSError: a full disk or an unwritable folder; the temporary file is gone and `path` is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target)
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # a writer that makes the file anew may have chosen its own
        flush(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file in one step; `atomic_file` says what can go wrong."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file, UTF-8 as it is, in one step."""
    return write_bytes(path, text.encode())


@contextmanager
def drafted(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` to fill and to rename; what is left of it when the block ends is deleted.

    So are those of earlier writers that were killed; those at work hold theirs.

    Args:
        path: of the folder to come; the one that it lies in is created.

    Raises:
        OSError: a full disk or an unwritable folder.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in leftovers(target.parent, escape(target.name)):
        with suppress(OSError):
            if left.is_dir() and time.time() - left.stat().st_mtime > SETTLED:
                os.close(_held(left))
                shutil.rmtree(left, ignore_errors=True)
    temporary = beside(target)
    temporary.mkdir()
    held = None
    try:
        with suppress(OSError):  # a file system without locks: nobody will delete it
            held = _held(temporary)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if held is not None:
            os.close(held)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path` when the block ends without an error.

    Args:
        path: of a folder that does not exist, or is empty.

    Raises:
        OSError: a full disk, an unwritable folder or one that holds something; `path` is as it was.
    """
    with drafted(path) as temporary:
        yield temporary
        flush_all(temporary)
        os.replace(temporary, path)


def leftovers(folder: str | Path, pattern: str = "*") -> list[Path]:
    """Files that are being written, or that killed writers have left; none where the folder does not exist.

    Args:
        folder: theirs.
        pattern: of the names that they would have got.
    """
    found = [(HALF.fullmatch(path.name), path) for path in sorted(Path(folder).glob(".*"))]
    return [path for match, path in found if match and fnmatchcase(match[1] + (match[2] or ""), pattern)]


def read_record(
    path: Path, what: str = "record of a command", way_out: str = "choose another out, or delete the folder"
) -> dict[str, Any]:
    """The JSON object that a command keeps in its output folder.

    Args:
        path: the file.
        what: it should be, for the message.
        way_out: what can be done about it.

    Raises:
        ValueError: the file is damaged.
    """
    with reading(path, what, way_out):
        found = parsed(path.read_bytes())
        if not isinstance(found, dict):
            raise TypeError(f"expected an object, found {type(found).__name__}")
    return found


def read_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a text file in UTF-8, without blanks around them.

    Args:
        path: the file.
        what: it should be, for the message.

    Raises:
        ValueError: it is no text.
    """
    with reading(path, what, "give a text file in UTF-8"):
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]


def parsed(content: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or lists in it lie deeper in each other than Python can follow.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def bounded(tree: Any, most: int) -> None:
    """Refuse a tree with more nodes than it may have, or that contains itself: aliases make short YAML endless.

    Raises:
        ValueError: more than `most` nodes.
    """
    waiting, count = [tree], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > most:
            raise ValueError(f"more than {most:,} nodes")
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


@contextmanager
def reading(
    path: str | Path,
    what: str,
    way_out: str = "download it again",
    *,
    kind: type[Exception] = ValueError,
    passing: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is read: damaged bytes make libraries raise nearly anything.

    What already names it passes, and so do the errors of a missing file or library: they only get a note.

    Args:
        path: the file.
        what: it should be, for the message.
        way_out: what can be done about it.
        kind: of the error.
        passing: further errors that pass.

    Raises:
        ValueError: or `kind`: the file is damaged, or something else.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":  # a panic of Rust is none
            raise
        if isinstance(error, (FileNotFoundError, ImportError, *passing)):
            if str(path) not in str(error) and hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"while reading {path}")
            raise
        if type(error) in (ValueError, kind) and str(path) in str(error):
            raise
        raise kind(f"{path} is damaged or no {what} ({_reason(error)}); {way_out}") from error


def _reason(error: BaseException) -> str:
    """The first line of an error behind its kind, not over-long."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    first = "more memory is asked for than there is" if isinstance(error, MemoryError) else next(iter(lines), "")
    return f"{type(error).__name__}: {first[:400]}".removesuffix(": ")


def beside(path: Path) -> Path:
    """A hidden name in the same folder with the same suffix, that nothing else has; `leftovers` finds it."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")


def flush(path: Path) -> None:
    """Force a file to the disk: a rename may otherwise reach it before the content does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_all(folder: Path) -> None:
    """Force all files in a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            flush(path)


def _held(folder: Path) -> int:
    """An open folder that no other process can hold until this one closes it, or ends in whatever way.

    Raises:
        OSError: another process holds it, or the file system has no locks.
    """
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        raise
    return number
