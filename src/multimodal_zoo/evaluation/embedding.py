"""Embedding the images and texts of any data into a folder of shards, going on where an earlier run stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.data.documents import Image
from multimodal_zoo.data.places import Found, Order, Place
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
from multimodal_zoo.evaluation.features import batched, evaluating, finite, floating_dtype, prefetched
from multimodal_zoo.evaluation.samples import text_embeddings, texts_of
from multimodal_zoo.evaluation.throughput import Throughput

#: How embeddings are stored.
DTYPES = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class Settings:
    """How embeddings are made.

    Attributes:
        images: whether pictures are embedded; None: if the first document has one.
        texts: whether the first text of each document is; None: if the first document has one.
        shard_size: documents in each file but the last.
        batch_size: documents per forward pass.
        workers: threads that decode and resize pictures.
        dtype: how embeddings are stored, a name of `DTYPES`.
    """

    images: bool | None = None
    texts: bool | None = None
    shard_size: int = 4096
    batch_size: int = 64
    workers: int = 2
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.shard_size < 1 or self.batch_size < 1 or self.workers < 0:
            raise ValueError(
                f"shard_size: {self.shard_size} and batch_size: {self.batch_size} must be 1 or more, "
                f"workers: {self.workers} 0 or more"
            )
        if self.images is False and self.texts is False:
            raise ValueError("images, texts: both are false, so there is nothing to embed; set one to true")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is unknown; choose one of {', '.join(DTYPES)}")


def settle(settings: Settings, order: Order) -> Settings:
    """Decide by the first usable document what is embedded, where the settings leave it open.

    Raises:
        ValueError: no usable document, or none with what is asked for.
    """
    found = next(order.after(None), None)
    if found is None:
        raise ValueError(f"data: there is no usable document: {order.skips if len(order.skips) else 'it is empty'}")
    order.skips.take()
    has = {"images": _has_image(found), "texts": bool(texts_of(found.document))}
    chosen = {key: has[key] if getattr(settings, key) is None else getattr(settings, key) for key in has}
    if not any(chosen.values()):
        asked = " or ".join(key for key in has if not has[key])
        raise ValueError(f"images, texts: the first document has no {asked}; set images or texts to what the data has")
    return replace(settings, images=chosen["images"], texts=chosen["texts"])


class Row(NamedTuple):
    """What is kept of a document; its picture is not."""

    place: Place
    key: str
    text: str
    shard: str

    @classmethod
    def of(cls, found: Found) -> Row:
        """The facts of a document."""
        text = (texts_of(found.document) or [""])[0]
        return cls(found.place, found.document.key, text, str(found.document.meta.get("shard", "")))


@dataclass
class _Tally:
    """What the shards of a rank add up to."""

    documents: int = 0
    skips: Skips = field(default_factory=Skips)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, about: dict[str, Any]) -> None:
        """Add a shard's facts."""
        self.documents += about["documents"]
        self.skips.update(Skips.of(about["skipped"], about["examples"]))
        self.seconds.update(about["seconds"])


def embed(
    model: Any, order: Order, folder: EmbeddingFolder, settings: Settings, device: torch.device
) -> dict[str, Any]:
    """Embed documents shard by shard, leaving out the shards that exist.

    Args:
        model: with its processor.
        order: the documents of this rank.
        folder: where to; it has a manifest already.
        settings: what and how; `images` and `texts` are decided.
        device: where the model lies.

    Returns:
        The manifest.

    Raises:
        ValueError: shards that do not continue each other, no usable document, or embeddings that are not finite.
    """
    if (state := folder.finished()) is not None:
        return folder.finish(state)
    tally, number = _Tally(), 0
    place: Place | None = None
    stream: Iterator[Found] | None = None
    with Throughput(order.size()) as meter:
        maker = ShardMaker(model, order, settings, device, meter)
        while True:
            about = folder.about(number)
            if about is None:
                stream = order.after(place) if stream is None else stream
                columns, about = maker.make(stream, place)
                if about["documents"]:
                    folder.write(number, columns, about)
                    meter.say(f"{folder.shard(number).name}: {about['documents']:,} documents, {meter}")
            elif about["after"] != (None if place is None else list(place)):
                raise ValueError(f"{folder.shard(number)} does not continue the shard before it; delete it")
            else:
                stream = None
                meter.advance(about["documents"])
            tally.add(about)
            if not about["documents"]:
                break
            place, number = tuple(about["end"]), number + 1
    return folder.finish(_state(tally, number, settings))


def _state(tally: _Tally, shards: int, settings: Settings) -> dict[str, Any]:
    """What a rank notes when it is through."""
    if not tally.documents:
        raise ValueError(f"data: there is no usable document: {tally.skips if len(tally.skips) else 'it is empty'}")
    return {
        "shards": shards,
        "documents": tally.documents,
        "images": tally.documents * bool(settings.images),
        "texts": tally.documents * bool(settings.texts),
        "skipped": dict(tally.skips.counts),
        "examples": tally.skips.examples,
        "seconds": {kind: tally.seconds[kind] for kind in ("images", "texts")},
    }


@dataclass
class ShardMaker:
    """Embeds one shard after the other; pictures stream past, they are never all in memory.

    Attributes:
        model: with its processor.
        order: whose `skips` count what cannot be used.
        settings: what and how.
        device: where the model lies.
        meter: shows and times the work.
    """

    model: Any
    order: Order
    settings: Settings
    device: torch.device
    meter: Throughput

    def make(self, stream: Iterator[Found], after: Place | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Columns of the next documents, and facts about them; without documents when there are no further ones."""
        before = dict(self.meter.seconds)
        self.end: Place | None = after
        self.over = False
        rows: list[Row] = []
        columns: dict[str, Any] = {}
        while not rows and not self.over:  # a stretch of pictures that are all broken makes no shard of its own
            rows, columns = self._images(self._complete(stream))
        if self.settings.texts and rows:
            columns["text_embedding"] = self._texts([row.text for row in rows])
        skips = self.order.skips.take()
        about = {
            "after": after,
            "end": self.end,
            "documents": len(rows),
            "skipped": skips.counts,
            "examples": skips.examples,
            "seconds": {kind: taken - before[kind] for kind, taken in self.meter.seconds.items()},
        }
        return {**_names(rows), **columns}, about

    def _complete(self, stream: Iterator[Found]) -> Iterator[Found]:
        """As many documents as a shard has, without those that lack what is to be embedded."""
        pulled = 0
        for found in islice(stream, self.settings.shard_size):
            self.end, pulled = found.place, pulled + 1
            if self.settings.texts and not texts_of(found.document):
                self.order.skips.add("missing caption", found.document.key)
            elif self.settings.images and not _has_image(found):
                self.order.skips.add("missing image", found.document.key)
            else:
                yield found
        self.over = pulled < self.settings.shard_size

    def _images(self, stream: Iterator[Found]) -> tuple[list[Row], dict[str, Any]]:
        if not self.settings.images:
            rows = [Row.of(found) for found in stream]
            self.meter.advance(len(rows))
            return rows, {}
        rows, parts = [], []
        dtype = floating_dtype(self.model)
        prepare = partial(_prepare, self.model.processor.images)
        batches = batched(stream, self.settings.batch_size)
        with evaluating(self.model), self.meter.timed("images"):
            for good, pixels, errors in prefetched(prepare, batches, self.settings.workers):
                for error in errors:
                    self.order.skips.add(error.reason, error.key)
                if good:
                    parts.append(self.model.encode_image(pixels.to(self.device, dtype)).float().cpu())
                    self.meter.counts["images"] += len(good)
                rows += good
                self.meter.advance(len(good))
        return rows, {"image_embedding": self._stored(torch.cat(parts), "image")} if parts else {}

    def _texts(self, texts: list[str]) -> np.ndarray:
        with self.meter.timed("texts"):
            size, device = self.settings.batch_size, self.device
            embeddings = text_embeddings(self.model, self.model.processor, texts, batch_size=size, device=device)
        self.meter.counts["texts"] += len(texts)
        return self._stored(embeddings, "text")

    def _stored(self, embeddings: Tensor, what: str) -> np.ndarray:
        return finite(embeddings, what).numpy().astype(DTYPES[self.settings.dtype])


def _prepare(
    transform: Callable[[list[Any]], Tensor], batch: list[Found]
) -> tuple[list[Row], Tensor, list[UnusableError]]:
    """The pixels of the pictures that can be decoded to their end."""
    rows, pixels, errors = [], [], []
    for found in batch:
        try:
            pixels.append(transform([found.document.image]))
            rows.append(Row.of(found))
        except UnusableError as error:
            errors.append(UnusableError(error.reason, found.document.key))
    return rows, torch.cat(pixels) if pixels else torch.empty(0), errors


def _has_image(found: Found) -> bool:
    return any(isinstance(segment, Image) for segment in found.document.segments)


def _names(rows: list[Row]) -> dict[str, Any]:
    columns: dict[str, Any] = {"key": [row.key for row in rows], "text": [row.text for row in rows]}
    if any(row.shard for row in rows):
        columns["shard"] = [row.shard for row in rows]
    if rows:
        columns["place"] = np.array([row.place for row in rows], dtype=np.int64)
    return columns
