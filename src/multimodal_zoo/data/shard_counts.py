"""How many samples a source has, where it or a file beside its shards says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_zoo.data.shards import read_text
from multimodal_zoo.files import parsed

#: Files beside tar shards: samples by shard name as JSON, and one number for the whole folder.
SIZES, LENGTH = "sizes.json", "__len__"


def samples_of(reader: Any, key: str) -> int:
    """The number of samples of a reader.

    Args:
        reader: with numbered samples (`len`), or of tar shards with `sizes.json` or `__len__` beside them.
        key: the configuration key of the reader, for errors.

    Raises:
        ValueError: nothing says it.
    """
    if hasattr(reader, "shards"):
        return count_samples(reader.shards, key)
    if not hasattr(reader, "__len__"):
        raise ValueError(f"{key}: {type(reader).__name__} does not know its number of samples")
    return len(reader)


def count_samples(shards: Sequence[str], key: str) -> int:
    """Samples in tar shards, from the files beside them.

    `sizes.json` gives a number for each shard of its folder and is asked first; `__len__` gives one for the whole
    folder, so that it only tells for all shards of it.

    Args:
        shards: paths or addresses.
        key: the configuration key, for errors.

    Raises:
        ValueError: neither file is there, one cannot be read, or a shard is missing in `sizes.json`.
    """
    folders: dict[str, list[str]] = {}
    for shard in shards:
        folder, _, name = shard.rpartition("/")
        folders.setdefault(f"{folder}/" if folder else "", []).append(name)
    return sum(_in_folder(folder, names, key) for folder, names in folders.items())


def _in_folder(folder: str, names: Sequence[str], key: str) -> int:
    for file in (SIZES, LENGTH):
        try:
            text = read_text(folder + file)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        try:
            return sum(int(parsed(text)[name]) for name in names) if file == SIZES else int(text)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{key}: {folder}{file} is not readable ({error})") from error
        except KeyError as error:
            raise ValueError(f"{key}: {folder}{file} has no entry for the shard {error}") from error
    raise ValueError(f"{key}: neither {SIZES} nor {LENGTH} in {folder or './'} says how many samples the shards hold")
