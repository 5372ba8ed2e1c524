"""Writing files so that a reader sees the old content or the new, never a half; the standard library only."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object that a command keeps in its output folder.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); choose another out, or delete the folder") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged; choose another out, or delete the folder")
    return found


def beside(path: Path) -> Path:
    """A hidden name in the same folder with the same suffix, that nothing else has."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")


def flush(path: Path) -> None:
    """Force a file to the disk: a rename may otherwise reach it before the content does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
