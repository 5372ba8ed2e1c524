"""Training data without the pictures of evaluation sets: readers around readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.picture_hash import NEAR, PictureHashes, picture_hash
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.shards import RawSample
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.registry import DATASETS

REASON = "duplicate of an evaluation picture"


class Check:
    """Refuses documents whose picture is, or nearly is, one of some evaluation pictures.

    Args:
        against: the evaluation pictures.
        distance: differing bits of 384 up to which two pictures are taken for copies.

    Raises:
        ValueError: a distance below 0, or no evaluation picture.
    """

    def __init__(self, against: PictureHashes, distance: int) -> None:
        if distance < 0 or not len(against):
            raise ValueError(
                f"deduplicated: distance is {distance} and against holds {len(against)} pictures; expected at least 0 "
                "and at least one"
            )
        self.against, self.distance = against, distance

    def __call__(self, document: Document) -> Document:
        """The document, its picture decoded.

        Raises:
            UnusableError: it is a copy, or cannot be decoded.
        """
        load(open_picture(document.image, document.key), document.key)
        found = self.against.near(picture_hash(document.image), self.distance)
        if found is not None:
            raise UnusableError(REASON, f"{document.key} ({self.against.keys[found]})")
        return document


class Deduplicated:
    """Numbered samples; copies are found when they are asked for, so each picture is decoded whole.

    Args:
        reader: numbered samples.
        check: refuses copies.
    """

    def __init__(self, reader: Any, check: Check) -> None:
        self.reader, self.check = reader, check
        self.skips: Skips = reader.skips
        self.concepts = getattr(reader, "concepts", None)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Document:
        """One sample.

        Raises:
            UnusableError: the reader cannot use it, or it is a copy.
        """
        return self.check(self.reader[index])

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


class DeduplicatedInMemory:
    """Numbered samples held in memory; copies are taken out at once, so that the others have new numbers.

    Args:
        reader: numbered samples that give their pixels.
        check: refuses copies.

    Raises:
        NoUsableSamplesError: every sample is a copy.
    """

    def __init__(self, reader: Any, check: Check) -> None:
        self.reader = reader
        self.skips: Skips = reader.skips
        kept = []
        for number in range(len(reader)):
            try:
                check(reader[number])
            except UnusableError as error:
                self.skips.add(error.reason, error.key)
                continue
            kept.append(number)
        if not kept:
            raise self.skips.nothing_usable(type(reader).__name__, "data.train.against")
        self.kept = np.asarray(kept)
        concepts = getattr(reader, "concepts", None)
        self.concepts = None if concepts is None else np.asarray(concepts)[self.kept]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Document:
        """One sample that is no copy."""
        document: Document = self.reader[int(self.kept[index])]
        return document

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """Pictures of many samples at once, as the reader gives them."""
        pixels: Tensor = self.reader.pixels(self.kept[np.asarray(indices)].tolist())
        return pixels


class DeduplicatedShards:
    """Samples of tar shards; copies are found when they are decoded.

    Args:
        reader: of tar shards.
        check: refuses copies.
    """

    def __init__(self, reader: Any, check: Check) -> None:
        self.reader, self.check = reader, check
        self.shards: list[str] = reader.shards
        self.streams: int = reader.streams
        self.shuffle: int = reader.shuffle
        self.samples_per_epoch: int | None = reader.samples_per_epoch
        self.skips: Skips = reader.skips

    def raw(self, shard: str, skips: Skips) -> Iterator[RawSample]:
        """Encoded samples of one shard."""
        samples: Iterator[RawSample] = self.reader.raw(shard, skips)
        return samples

    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample, its picture decoded.

        Raises:
            UnusableError: the reader cannot use it, or it is a copy.
        """
        return self.check(self.reader.decode(sample))

    def __iter__(self) -> Iterator[Document]:
        """Every sample once that is usable and no copy."""
        for document in self.reader:
            try:
                yield self.check(document)
            except UnusableError as error:
                self.skips.add(error.reason, error.key)


@DATASETS.register_module(name="deduplicated")
def deduplicated(
    reader: Any, against: PictureHashes, distance: int = NEAR
) -> Deduplicated | DeduplicatedInMemory | DeduplicatedShards:
    """A reader without the pictures that are in evaluation sets; what is left out is counted in its `skips`.

    Args:
        reader: of training samples: numbered, in memory or in tar shards. A mixture's sources are wrapped one by one.
        against: hashes of the evaluation pictures (`picture_hashes`).
        distance: differing bits of 384 up to which two pictures are taken for copies; more finds more copies, and
            leaves out more pictures that only look alike.

    Raises:
        ValueError: a distance below 0, no evaluation picture, or a reader that is none of these.
        NoUsableSamplesError: a reader in memory whose every picture is a copy.
    """
    check = Check(against, distance)
    if hasattr(reader, "shards"):
        return DeduplicatedShards(reader, check)
    if hasattr(reader, "pixels"):
        return DeduplicatedInMemory(reader, check)
    if hasattr(reader, "__getitem__"):
        return Deduplicated(reader, check)
    raise ValueError(f"deduplicated.reader is a {type(reader).__name__}, of neither numbered samples nor tar shards")
