"""The data module of sequences of tokens: padded or packed, from one reader or a mixture, exactly resumable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from multimodal_zoo.data.collate import Collate
from multimodal_zoo.data.datamodule import ImageTextData
from multimodal_zoo.data.endless_loader import EndlessLoader
from multimodal_zoo.data.loaders import PlannedLoader
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.mixture_loader import MixedSource, sources_of
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.stream_loader import StreamLoader
from multimodal_zoo.data.token_loader import AssembledSource, Assembly


class Assembled(NamedTuple):
    """How batches are assembled sample by sample.

    Attributes:
        samples: for each source of a mixture (or under "train") what makes its samples.
        assembly: how samples become a batch.
        length: batches in an epoch; None takes the mixture's samples.
    """

    samples: Mapping[str, Collate]
    assembly: Assembly
    length: int | None


class TokenData(ImageTextData):
    """Batches of token sequences (`token_data`).

    Args:
        train: reader of training documents, or a mixture of several.
        validation: reader of documents seen in order, numbered or streamed; or None.
        collate: makes training batches with one document in each row.
        plain: makes validation batches.
        order: order of the training documents.
        batch_size: rows in a batch, for each rank.
        workers: processes that read; 0 reads in this one.
        seed: of order, captions and layouts.
        assembled: how training batches are assembled of samples, in place of `collate`; None where they are not.
    """

    def __init__(
        self,
        train: Any,
        validation: Any,
        collate: Collate,
        plain: Collate,
        order: Order,
        batch_size: int,
        workers: int,
        seed: int,
        assembled: Assembled | None = None,
    ) -> None:
        super().__init__(train, validation, collate, plain, order, batch_size, workers, seed)
        self.assembled = assembled

    @property
    def own_places(self) -> bool:
        """See `ImageTextData`; documents differ in length, too."""
        return self.assembled is not None or super().own_places

    def train_dataloader(self) -> PlannedLoader | StreamLoader | EndlessLoader:
        """Training batches of this rank.

        Raises:
            ValueError: the data cannot fill one batch, or have too few shards.
        """
        if self.assembled is None:
            return super().train_dataloader()
        mixture = self.train if isinstance(self.train, SourceMixture) else None
        readers, rank = {"train": self.train} if mixture is None else mixture.sources, (self.rank, self.ranks)
        sources = sources_of(readers, self.assembled.samples, self.order, 1, self.seed, rank, self.workers)
        length = self.assembled.length
        if length is None:
            assert mixture is not None
            length = mixture.samples_per_epoch // (self.batch_size * self.ranks)
        source = sources["train"] if mixture is None else MixedSource(mixture, sources)
        self._streams = EndlessLoader(
            batches=AssembledSource(source, self.assembled.assembly).batches,
            length=length,
            position=self.position,
            counting=lambda: self.trainer is None,
            report=self._report if mixture is None else mixture.report,
        )
        return self._streams

    def _report(self) -> None:
        self.train.skips.report("data.train")
