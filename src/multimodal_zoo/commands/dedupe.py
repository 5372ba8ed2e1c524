"""`mmzoo dedupe DATA out=FILE.npz [against=FILE.npz,...] [distance=N]`: pictures that are in two data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.commands.options import overridden

if TYPE_CHECKING:
    from multimodal_zoo.data.picture_hash import PictureHashes


@dataclass(frozen=True)
class Options:
    """What may stand behind the data; other words are overrides of its configuration.

    Attributes:
        out: file (npz) that the hashes are stored in.
        against: files of such hashes; pictures near one of theirs are listed.
        distance: bits of 384 that may differ for that; the library's own bound if left out.
    """

    out: str | None = None
    against: tuple[str, ...] | None = None
    distance: int | None = None


OPTIONS = {"options": Options}


def main(arguments: list[str]) -> int:
    """Hash the pictures of DATA to `out`, and list those that are near one in `against`.

    DATA is what `mmzoo embed` takes: a folder, a table, tar shards or a file name of conf/data.

    Raises:
        ValueError: no data, nothing asked for, or a distance that is no number.
        FileNotFoundError, KeyError: no such data.
    """
    if not arguments or "=" in arguments[0]:
        raise ValueError("mmzoo dedupe needs a folder, a table, tar shards or a data configuration first")
    word, *words = arguments
    options, overrides = overridden(words, Options)
    if options.out is None and options.against is None:
        raise ValueError("mmzoo dedupe: give out=FILE.npz to store hashes, against=FILE.npz to compare, or both")

    from multimodal_zoo.data.picture_hash import NEAR, PictureHashes, picture_hashes

    against = None if options.against is None else picture_hashes(list(options.against))
    reader = reader_of(word, overrides)
    found = PictureHashes.of(watched(reader), reader.skips)
    print(f"{len(found):,} pictures" + (f", {reader.skips}" if len(reader.skips) else ""))
    if options.out is not None:
        found.save(options.out)
        print(f"hashes: {Path(options.out).resolve()}")
    if against is not None:
        compare(found, against, NEAR if options.distance is None else options.distance)
    return 0


def reader_of(word: str, overrides: list[str]) -> Any:
    """The reader that a word names.

    Raises:
        FileNotFoundError, KeyError, ValueError: there is none.
    """
    from multimodal_zoo.commands.data_source import data_overrides
    from multimodal_zoo.commands.embed import reader_config
    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    chosen, *more = data_overrides(word)
    config = compose(None, [f"+{chosen}", "+seed=0", *more, *overrides])
    return build(reader_config(config.data), path="data")


def watched(reader: Any) -> Iterator[Any]:
    """The reader's documents, with a bar that counts them."""
    from rich.progress import track

    total = len(reader) if hasattr(reader, "__len__") else None
    yield from track(reader, "hashing", total=total, transient=True)


def compare(found: PictureHashes, against: PictureHashes, distance: int) -> None:
    """Print the pictures that are within a distance of one in another set, nearest first, tab-separated."""
    bits, numbers = against.nearest(found.hashes)
    near = sorted((int(bits[i]), found.keys[i], against.keys[numbers[i]]) for i in (bits <= distance).nonzero()[0])
    for far, key, other in near:
        print(f"{far}\t{key}\t{other}")
    print(f"{len(near):,} of {len(found):,} pictures are within {distance} bits of one of {len(against):,}")
