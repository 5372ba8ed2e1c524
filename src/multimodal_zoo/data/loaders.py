"""Loaders of data sets with numbered samples, in whole planned batches, and of others in their own order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multimodal_zoo.data.collate import Collate, Row, stack
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.order import Plan
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.position import Position
from multimodal_zoo.data.randomness import python_random, torch_random
from multimodal_zoo.data.skips import MapReader, NoUsableSamplesError, Skips, UnusableError
from multimodal_zoo.data.streams import unchanged
from multimodal_zoo.objectives.batch import ImageTextBatch

Made = TypeVar("Made")
#: Samples in a row that may be unusable before reading stops with an error.
PATIENCE = 1000
#: Told apart so that a batch's augmentation and its samples' captions never share random numbers.
SAMPLE, BATCH = 1, 2


class PlannedBatches(Dataset[tuple[ImageTextBatch, Skips]]):
    """Reads the batch that a plan describes. An unusable sample is counted and replaced by the next usable one.

    Args:
        reader: the data set.
        collate: rows and batches.
        seed: of captions, crops and augmentation.
        key: the configuration key of the data set, for errors.
    """

    def __init__(self, reader: MapReader, collate: Collate, seed: int, key: str) -> None:
        self.reader = reader
        self.collate = collate
        self.seed = seed
        self.key = key

    def __getitem__(self, plan: Plan) -> tuple[ImageTextBatch, Skips]:
        """The batch, and what could not be used."""
        skips = Skips()
        generator = torch_random(self.seed, BATCH, plan.epoch, plan.first)
        randoms = [python_random(self.seed, SAMPLE, plan.epoch, plan.first + i) for i in range(len(plan.indices))]
        if self.collate.image_transform is None:
            if not hasattr(self.reader, "pixels"):
                name = type(self.reader).__name__
                raise ValueError(f"data.image_transform is null, but {name} does not hold its pictures in memory")
            found = [self._read(self.collate.text_row, *one, skips) for one in zip(plan.indices, randoms, strict=True)]
            pixels, rows = self.reader.pixels([index for index, _ in found]), [row for _, row in found]
        else:
            read = [self._read(self.collate.row, *one, skips)[1] for one in zip(plan.indices, randoms, strict=True)]
            pixels, rows = stack([one for one, _ in read]), [row for _, row in read]
        return self.collate.batch(pixels, rows, generator), skips

    def _read(
        self, make: Callable[[Document, Random], Made], index: int, random: Random, skips: Skips
    ) -> tuple[int, Made]:
        """What is made of a sample, or of the next one that is usable, and the number of that."""
        samples = len(self.reader)
        tried = min(samples, PATIENCE)
        for place in ((index + offset) % samples for offset in range(tried)):
            try:
                return place, make(self.reader[place], random)
            except UnusableError as error:
                skips.add(error.reason, error.key)
        name = type(self.reader).__name__
        if tried == samples:
            raise skips.nothing_usable(name, self.key)
        raise NoUsableSamplesError(
            f"{name}: none of {tried} samples in a row, from number {index} of {samples} on, is usable; {skips}; "
            f"check {self.key}"
        )


def planned(batches: PlannedBatches, plans: Iterable[Plan], workers: int) -> DataLoader[tuple[ImageTextBatch, Skips]]:
    """What was planned, read in order by worker processes; by this one where `workers` is 0."""
    return DataLoader(
        batches,
        sampler=plans,
        batch_size=None,
        collate_fn=unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class PlannedLoader:
    """Iterates over batches from the current position on, to the end of the epoch.

    Under a trainer it gives as many batches as an epoch has, going on into the next one: the trainer stops by itself
    where its own epoch ends, which after an interruption need not be where the epoch of the data ends.

    Args:
        batches: reads one planned batch.
        plan: the plans of an epoch.
        length: batches in an epoch.
        position: where to start.
        counting: whether this loader itself counts its batches as taken (no trainer does).
        workers: processes; 0 reads in this one.
    """

    def __init__(
        self,
        batches: PlannedBatches,
        plan: Callable[[int], list[Plan]],
        length: int,
        position: Position,
        counting: Callable[[], bool],
        workers: int,
    ) -> None:
        self.batches = batches
        self.plan = plan
        self.length = position.length = length
        self.position = position
        self.counting = counting
        self.workers = workers

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever it is resumed."""
        return self.length

    def __iter__(self) -> Iterator[ImageTextBatch]:
        epoch, number = self.position.begin()
        plans = self.plan(epoch)[number:]
        if number and not self.counting():
            plans += self.plan(epoch + 1)[:number]
        for batch, skips in planned(self.batches, plans, self.workers):
            self.batches.reader.skips.update(skips)
            if self.counting():
                self.position.take()
            yield batch
        self.batches.reader.skips.report(self.batches.key)


class OrderedLoader:
    """One pass over a reader that only yields documents, in its order: validation pairs in tar shards, say.

    Rows go to the ranks in turn. Every rank reads all of them, since only reading tells which are usable and the ranks
    must come out with batches of the same number and size; a rest that does not go round is dropped.

    Args:
        reader: yields usable documents and counts the others in its `skips`.
        collate: rows and batches.
        batch_size: pairs in a batch, for each rank.
        seed: of texts and crops, where `collate` draws any.
        rank: this rank and the number of ranks.
        key: the configuration key of the data set, for errors.
    """

    def __init__(
        self,
        reader: Iterable[Document],
        collate: Collate,
        batch_size: int,
        seed: int,
        rank: tuple[int, int],
        key: str,
    ) -> None:
        self.reader = reader
        self.collate = collate
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.key = key

    def __iter__(self) -> Iterator[ImageTextBatch]:
        rank, ranks = self.rank
        skips: Skips = getattr(self.reader, "skips", Skips())
        held: list[tuple[Tensor, Row]] = []
        total = number = 0
        for document in self.reader:
            try:
                if total % ranks == rank:
                    held.append(self.collate.row(document, python_random(self.seed, SAMPLE, 0, total)))
                else:
                    self._check(document)
            except UnusableError as error:
                skips.add(error.reason, error.key)
                continue
            total += 1
            if total % (self.batch_size * ranks) == 0:
                yield self._batch(held, number)
                held, number = [], number + 1
        if not total:
            raise skips.nothing_usable(type(self.reader).__name__, self.key)
        rest = held[: total // ranks - number * self.batch_size]
        if rest:
            yield self._batch(rest, number)
        skips.report(self.key)

    def _check(self, document: Document) -> None:
        if hasattr(self.collate, "check"):  # documents without pictures
            self.collate.check(document)
        else:
            load(open_picture(document.image, document.key), document.key)

    def _batch(self, held: list[tuple[Tensor, Row]], number: int) -> ImageTextBatch:
        generator = torch_random(self.seed, BATCH, 0, number)
        return self.collate.batch(stack([pixels for pixels, _ in held]), [row for _, row in held], generator)
