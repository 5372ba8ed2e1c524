"""Documents of a dataset as the columns that evaluations work on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.encoders.matching import matching_of
from multimodal_zoo.evaluation.features import embed_images, embed_texts, pad_id_of
from multimodal_zoo.registry import EVALUATORS


@dataclass
class Samples:
    """A dataset after one pass: image embeddings, and everything else as lists.

    Attributes:
        images: (images, width), or (images, tokens, width) of a model that compares tokens.
        texts: the texts of all images, one after the other.
        image_of_text: (texts,) number of the image that a text belongs to.
        metas: the metadata of each document.
    """

    images: Tensor
    texts: list[str]
    image_of_text: Tensor
    metas: list[Mapping[str, Any]]

    def column(self, key: str, dataset: object) -> list[Any]:
        """One metadata value per image.

        Raises:
            ValueError: documents without that key; the message lists the keys that they have.
        """
        missing = [number for number, meta in enumerate(self.metas) if meta.get(key) is None]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.metas)} documents of {describe(dataset)} have no {key!r} "
                f"(first: document {missing[0]}); they have {', '.join(sorted(self.metas[missing[0]]))}"
            )
        return [meta[key] for meta in self.metas]


@dataclass
class Reading:
    """Notes the texts and metadata of documents while they stream past."""

    texts: list[str] = field(default_factory=list)
    image_of_text: list[int] = field(default_factory=list)
    metas: list[Mapping[str, Any]] = field(default_factory=list)

    def documents(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents one after the other."""
        for document in documents:
            for text in texts_of(document):
                self.texts.append(text)
                self.image_of_text.append(len(self.metas))
            self.metas.append(document.meta)
            yield document


def read(
    model: nn.Module,
    processor: Any,
    dataset: Any,
    *,
    batch_size: int,
    device: torch.device,
    encode: Callable[[Tensor], Tensor] | None = None,
) -> Samples:
    """Embed the images of a dataset and collect its texts and metadata, in one pass.

    Args:
        model: the model; how it compares (`matching`) decides what is kept of an image.
        processor: its processor.
        dataset: documents with one image each.
        batch_size: images per forward pass.
        device: where the model lies.
        encode: another function of the pixels.

    Raises:
        ValueError: an empty dataset (with what was skipped and why), or embeddings that are not finite.
    """
    reading = Reading()
    total = size_of(dataset)
    stream = (document.image for document in reading.documents(documents_of(dataset)))
    first = next(stream, None)
    if first is None:
        raise nothing_usable(dataset)
    embeddings = embed_images(
        model,
        chain([first], stream),
        processor.images,
        batch_size=batch_size,
        device=device,
        encode=encode or partial(matching_of(model).encode_image, model),
        total=total,
    )
    return Samples(embeddings, reading.texts, torch.tensor(reading.image_of_text, dtype=torch.long), reading.metas)


def text_embeddings(
    model: nn.Module, processor: Any, texts: Sequence[str], *, batch_size: int, device: torch.device
) -> Tensor:
    """What a model compares of texts, with its own tokenizer.

    Returns:
        embeddings (texts, width), normalised; of a model that compares tokens (texts, context, width), not normalised.
    """
    encode = partial(matching_of(model).encode_text, model)
    pad_id = pad_id_of(processor)
    return embed_texts(
        model, texts, processor.texts, batch_size=batch_size, device=device, pad_id=pad_id, encode=encode
    )


def documents_of(dataset: Any) -> Iterator[Document]:
    """The usable documents in order, from a dataset with an iterator or with a length and numbered items."""
    yield from dataset if hasattr(dataset, "__iter__") else usable(dataset)


def size_of(dataset: Any) -> int | None:
    """Number of documents, None for a stream of unknown length."""
    try:
        return len(dataset)
    except TypeError:
        return None


def evenly(size: int, count: int) -> list[int]:
    """At most `count` numbers below `size`, evenly spread from 0 on."""
    count = min(size, count)
    return [place * size // count for place in range(count)]


def usable_documents(dataset: Any) -> list[Document]:
    """All usable documents of a dataset, at least one.

    Raises:
        ValueError: none; the message says what was skipped and why.
    """
    documents = list(documents_of(dataset))
    if not documents:
        raise nothing_usable(dataset)
    return documents


def nothing_usable(dataset: Any) -> ValueError:
    """What to say of a dataset without a usable document."""
    why = skipped(dataset) or "nothing was skipped, so the source is empty"
    return ValueError(f"{describe(dataset)} has no usable document: {why}; check the evaluation's dataset")


def texts_of(document: Document) -> list[str]:
    """All texts of a document: its caption, or the several captions of a retrieval set (`texts` in the metadata)."""
    if "texts" in document.meta:
        return list(document.meta["texts"])
    return [segment.text for segment in document.segments if isinstance(segment, Text)]


def pick_images(dataset: Any, numbers: Iterable[int]) -> dict[int, Any]:
    """Pictures of a few documents, for people to look at; a stream is read again up to the last of them."""
    wanted = set(numbers)
    # where documents were skipped, the n-th usable one is not dataset[n]
    if hasattr(dataset, "__getitem__") and not getattr(dataset, "skips", None):
        return {number: dataset[number].image for number in sorted(wanted)}
    found = {}
    for number, document in enumerate(documents_of(dataset)):
        if number in wanted:
            found[number] = document.image
            if len(found) == len(wanted):
                break
    return found


def numbered(values: Sequence[Hashable]) -> Tensor:
    """Equal values get equal numbers, counted from 0 in order of first appearance: (values,) integers."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(value, len(numbers)) for value in values], dtype=torch.long)


def describe(dataset: Any) -> str:
    """A dataset in one line, for messages and reports."""
    return str(getattr(dataset, "title", "")) or type(dataset).__name__


def attribution_of(dataset: Any) -> list[str]:
    """Whom to credit for a dataset's content."""
    credits = getattr(dataset, "attribution", ())
    return [credits] if isinstance(credits, str) else list(credits)


def skipped(dataset: Any) -> str:
    """What a reader left out and why, for an error message or a report; empty if nothing."""
    skips = getattr(dataset, "skips", None)
    return str(skips) if skips else ""


@EVALUATORS.register_module(name="gallery")
class Gallery:
    """A fixed part of a dataset: the documents whose hashed names come first, in the source's order.

    Neither the order of the source nor the library's version changes the choice. What turns out to be unusable is left
    out and counted in `skips`; nothing takes its place.

    Args:
        source: a dataset with numbered documents; one that has `facts(number)` is asked for the metadata alone, of
            others every document is made once.
        size: documents to keep; all of them when the source has fewer.
        by: the metadata key that is hashed: `key`, or what several styles of one thing share, so that every style is
            asked for the same things.
        salt: another salt gives another choice.

    Raises:
        ValueError: a size below 1, or documents without that metadata.
    """

    def __init__(self, source: Any, size: int, by: str = "key", salt: str = "mmzoo-gallery-v1:") -> None:
        if size < 1:
            raise ValueError(f"size: a gallery needs at least 1 document, got {size}")
        self.source = source
        self.skips: Skips = getattr(source, "skips", Skips())
        hashes: dict[int, str] = {}
        for number, meta in self._metas():
            if meta.get(by) is None:
                raise ValueError(f"by: document {number} has no {by!r} in its metadata; it has {sorted(meta)}")
            hashes[number] = hashlib.sha256(f"{salt}{meta[by]}".encode()).hexdigest()
        self.numbers = sorted(sorted(hashes, key=lambda number: hashes[number])[:size])
        self.title = f"{len(self.numbers)} of {describe(source)}"
        self.attribution = attribution_of(source)

    def _metas(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        facts = getattr(self.source, "facts", None)
        for number in range(len(self.source)):
            try:
                yield number, self.source[number].meta if facts is None else facts(number)
            except UnusableError as error:
                self.skips.add(error.reason, error.key)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Document:
        return self.source[self.numbers[number]]

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
