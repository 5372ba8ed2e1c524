"""The data module of sequences of tokens: padded or packed, from one reader or a mixture, exactly resumable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import distributed

from multimodal_zoo.data.collate import Collate
from multimodal_zoo.data.datamodule import ImageTextData
from multimodal_zoo.data.loaders import PlannedLoader
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.mixture_loader import SOURCE, MixtureLoader, PlannedSource, Source, StreamSource
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.randomness import derive
from multimodal_zoo.data.stream_loader import StreamLoader
from multimodal_zoo.data.token_loader import AssembledLoader, Assembly, MixedSource


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
        self._loader: AssembledLoader | None = None

    def train_dataloader(self) -> PlannedLoader | StreamLoader | MixtureLoader | AssembledLoader:  # type: ignore[override]
        """Training batches of this rank.

        Raises:
            ValueError: the data cannot fill one batch, or have too few shards.
        """
        if self.assembled is None:
            return super().train_dataloader()
        mixture = self.train if isinstance(self.train, SourceMixture) else None
        readers = {"train": self.train} if mixture is None else mixture.sources
        workers = max(1, self.workers // len(readers)) if self.workers else 0
        sources = {
            name: self._source(reader, name, number, workers) for number, (name, reader) in enumerate(readers.items())
        }
        length = self.assembled.length
        if length is None:
            assert mixture is not None
            length = mixture.samples_per_epoch // (self.batch_size * self.ranks)
        self._loader = AssembledLoader(
            source=sources["train"] if mixture is None else MixedSource(mixture, sources),
            assembly=self.assembled.assembly,
            length=length,
            position=self.position,
            counting=lambda: self.trainer is None,
            report=lambda: self._report(readers),
        )
        return self._loader

    def _source(self, reader: Any, name: str, number: int, workers: int) -> Source:
        assert self.assembled is not None
        collate, seed = self.assembled.samples[name], derive(self.seed, SOURCE, number)
        if hasattr(reader, "shards"):
            return StreamSource(reader, collate, 1, seed, (self.rank, self.ranks), workers)
        key = "data.train" if name == "train" else f"data.train.sources.{name}"
        return PlannedSource(reader, collate, self.order, 1, seed, (self.rank, self.ranks), workers, key)

    @staticmethod
    def _report(readers: Mapping[str, Any]) -> None:
        for name, reader in readers.items():
            reader.skips.report("data.train" if name == "train" else f"data.train.sources.{name}")

    def teardown(self, stage: str) -> None:
        """Stop the processes that read."""
        super().teardown(stage)
        if self._loader is not None:
            self._loader.close()

    def state_dict(self) -> dict[str, Any]:
        """The exact position in the data; of every rank, since documents differ in length."""
        state = super().state_dict()
        if self.assembled is None or self.ranks == 1:
            return state
        places: list[Any] = [None] * self.ranks
        distributed.all_gather_object(places, state["streams"])
        return {**state, "streams": None, "ranks": places}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a checkpoint was.

        Raises:
            ValueError: the checkpoint was written with another global batch size or number of ranks.
        """
        super().load_state_dict(state_dict)
        places = state_dict.get("ranks")
        if self.assembled is None:
            return
        written = 1 if places is None else len(places)
        if written != self.ranks:
            raise ValueError(
                f"the checkpoint holds the position of {written} process(es), this run has {self.ranks}: resume with "
                "as many (trainer.devices, trainer.num_nodes)"
            )
        if places is not None:
            self.position.streams = places[self.rank]
