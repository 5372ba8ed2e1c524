"""Looking whether the units of a folder are whole, and clearing away what killed writers left."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from multimodal_zoo.captions.job import WORK
from multimodal_zoo.captions.unit_files import FORMATS, RECORDS, finished, read_unit_record, record_of
from multimodal_zoo.files import leftovers


def is_whole(folder: str | Path, name: str) -> bool:
    """Whether a unit has a record, and all its files are those that it names; they are read."""
    record = record_of(folder, name)
    return record is not None and all(file_hash(Path(folder) / file) == known for file, known in record.files.items())


def verify(folder: str | Path) -> list[str]:
    """Everything that is wrong with a folder, in words: records, sizes, hashes, files that no record knows.

    The whole folder is read.
    """
    wrong = []
    known: set[str] = set()
    for name in sorted(finished(folder)):
        try:
            record = read_unit_record(folder, name)
        except ValueError as error:
            wrong.append(str(error))
            continue
        known.update(record.files)
        if record.problem:
            wrong.append(f"unit {name} could not be read: {record.problem}")
        for file, expected in record.files.items():
            path = Path(folder) / file
            if not path.is_file():
                wrong.append(f"{file} is missing")
            elif path.stat().st_size != record.sizes.get(file):
                wrong.append(f"{file} has {path.stat().st_size} bytes, its record says {record.sizes.get(file)}")
            elif file_hash(path) != expected:
                wrong.append(f"{file} has other bytes than its record says")
    for format_, suffix in FORMATS.items():
        for path in sorted((Path(folder) / format_).glob(f"*{suffix}")):
            if not path.name.startswith(".") and f"{format_}/{path.name}" not in known:
                wrong.append(f"{format_}/{path.name} belongs to no finished unit")
    return wrong


def remove_leftovers(folder: str | Path, older_than: float = 0.0) -> list[str]:
    """Delete what killed writers left half-written, and name it.

    Args:
        folder: of the run's output.
        older_than: seconds since the file was last written to; writers that are at work are younger. Those of the
            folder's own notes are a minute old at least: many processes may begin at once.
    """
    removed = []
    for name in (".", *FORMATS, RECORDS, f"{WORK}/seconds"):
        least = max(older_than, 60.0) if name == "." else older_than
        for path in leftovers(Path(folder) / name):
            try:
                idle = time.time() - path.stat().st_mtime
            except FileNotFoundError:  # whole meanwhile, and in its place
                continue
            if idle >= least:
                path.unlink(missing_ok=True)
                removed.append(str(Path(name, path.name)))
    return removed


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while content := file.read(1 << 20):
            found.update(content)
    return found.hexdigest()
