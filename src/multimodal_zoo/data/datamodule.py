"""The data module of image-text training: any reader, any model's processor, exactly resumable."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from multimodal_zoo.data.collate import Collate
from multimodal_zoo.data.endless_loader import EndlessLoader
from multimodal_zoo.data.loaders import OrderedLoader, PlannedBatches, PlannedLoader
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.mixture_loader import mixture_loader
from multimodal_zoo.data.order import Order, check_size, plan_epoch, plan_once
from multimodal_zoo.data.position import Position
from multimodal_zoo.data.stream_loader import StreamLoader
from multimodal_zoo.nn.processes import each_one, rank, world_size
from multimodal_zoo.objectives.batch import ImageTextBatch


class ImageTextData(LightningDataModule):
    """Batches of image-text pairs (`image_text_data`) or of images with masked patches (`masked_image_data`).

    Args:
        train: reader of training pairs.
        validation: reader of pairs seen in order, numbered or streamed; or None.
        collate: makes training batches.
        plain: makes validation batches.
        order: order of the training samples.
        batch_size: pairs in a batch, for each rank.
        workers: processes that read; 0 reads in this one.
        seed: of order, captions, crops and augmentation.

    Raises:
        ValueError: a batch size below 1, or fewer than no workers.
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
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is {batch_size}; it must be at least 1")
        if workers < 0:
            raise ValueError(f"data.workers is {workers}; it must be at least 0, which reads in this process")
        self.train = train
        self.validation = validation
        self.collate = collate
        self.plain = plain
        self.order = order
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        self.position = Position()
        self._streams: StreamLoader | EndlessLoader | None = None

    @property
    def rank(self) -> int:
        """This process among those that train together."""
        return self._distributed()[0]

    @property
    def ranks(self) -> int:
        """How many processes train together."""
        return self._distributed()[1]

    def _distributed(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        return rank(), world_size()

    def train_dataloader(self) -> PlannedLoader | StreamLoader | EndlessLoader:
        """Training batches of this rank.

        Raises:
            ValueError: the data set cannot fill one batch, or has too few shards.
        """
        if isinstance(self.train, SourceMixture):
            self._streams = mixture_loader(
                mixture=self.train,
                collate=self.collate,
                order=self.order,
                batch_size=self.batch_size,
                seed=self.seed,
                rank=(self.rank, self.ranks),
                position=self.position,
                counting=lambda: self.trainer is None,
                workers=self.workers,
            )
            return self._streams
        if hasattr(self.train, "shards"):
            self._streams = StreamLoader(
                reader=self.train,
                collate=self.collate,
                batch_size=self.batch_size,
                seed=self.seed,
                rank=(self.rank, self.ranks),
                position=self.position,
                counting=lambda: self.trainer is None,
                workers=self.workers,
            )
            return self._streams
        samples = len(self.order(self.train, torch.Generator()))
        check_size(samples, self.batch_size, self.ranks)
        return PlannedLoader(
            batches=PlannedBatches(self.train, self.collate, self.seed, "data.train"),
            plan=lambda epoch: plan_epoch(
                self.train, self.order, self.batch_size, self.seed, epoch, self.rank, self.ranks
            ),
            length=samples // (self.batch_size * self.ranks),
            position=self.position,
            counting=lambda: self.trainer is None,
            workers=self.workers,
        )

    def val_dataloader(self) -> PlannedLoader | OrderedLoader | list[Any]:
        """Validation batches of this rank; none without a validation reader."""
        if self.validation is None:
            return []
        if not hasattr(self.validation, "__len__"):
            return OrderedLoader(
                reader=self.validation,
                collate=self.plain,
                batch_size=self.batch_size,
                seed=self.seed,
                rank=(self.rank, self.ranks),
                key="data.validation",
            )
        plans = plan_once(len(self.validation), self.batch_size, self.rank, self.ranks)
        return PlannedLoader(
            batches=PlannedBatches(self.validation, self.plain, self.seed, "data.validation"),
            plan=lambda epoch: plans,
            length=len(plans),
            position=Position(),
            counting=lambda: False,
            workers=0,
        )

    def teardown(self, stage: str) -> None:
        """Stop the processes that read shards."""
        if self._streams is not None:
            self._streams.close()

    def on_after_batch_transfer(self, batch: ImageTextBatch, dataloader_idx: int) -> ImageTextBatch:
        """Count a training batch as taken: Lightning calls this right before the training step."""
        if self.trainer is not None and self.trainer.training:
            self.position.take()
        return batch

    @property
    def own_places(self) -> bool:
        """Whether each rank stands at places of its own: shards differ in length, and in what of them is usable."""
        return isinstance(self.train, SourceMixture) or hasattr(self.train, "shards")

    def state_dict(self) -> dict[str, Any]:
        """The exact position in the data, where `own_places` says so that of every rank: one of them writes it."""
        state = {**self.position.state(), "global_batch": self.batch_size * self.ranks, "processes": self.ranks}
        if self.ranks == 1 or not self.own_places:
            return state
        return {**state, "streams": None, "ranks": each_one(state["streams"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a checkpoint was.

        Raises:
            ValueError: the checkpoint was written with another global batch size, or where each process stands at
                places of its own by another number of these, so that its position has no meaning.
        """
        places = state_dict.get("ranks")
        written = state_dict.get("processes", self.ranks) if places is None else len(places)
        if (places is not None or state_dict["streams"] is not None) and written != self.ranks:
            raise ValueError(
                f"the checkpoint holds places in data that were dealt to {written} process(es), this run has "
                f"{self.ranks}: resume with as many (trainer.devices, trainer.num_nodes), or begin the data anew with "
                "initial_weights=RUN"
            )
        given = self.batch_size * self.ranks
        if state_dict["global_batch"] != given and state_dict["batch"]:
            raise ValueError(
                f"the checkpoint stopped inside an epoch with {state_dict['global_batch']} pairs in a global batch; "
                f"data.batch_size x ranks is {given} now, so its position cannot be found again"
            )
        self.position.restore(state_dict if places is None else {**state_dict, "streams": places[self.rank]})
