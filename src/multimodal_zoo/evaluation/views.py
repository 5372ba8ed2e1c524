"""Embedding a dataset under several image transforms at once: every picture is read and decoded once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal_zoo.data.documents import Document, Image, Picture, Video
from multimodal_zoo.data.transforms import RESIZES, ImageTransform, choose
from multimodal_zoo.evaluation.features import Counter, evaluating, finite, floating_dtype, grouped, prefetched
from multimodal_zoo.evaluation.samples import Reading, Samples, documents_of, nothing_usable, size_of

#: A batch of pictures after the transforms: distinct pixels (rows, 3, size, size) uint8, and the row of each picture
#: under each transform (pictures, transforms).
Prepared = tuple[Tensor, Tensor]


def resized(processor: Any, resize: str) -> Any:
    """A processor whose image transform resizes in another way (`shorter_crop`, `squash`, `pad`).

    Raises:
        TypeError: the processor's transform is not an `image_transform`, so its way of resizing cannot be chosen.
    """
    own = getattr(processor, "transform", None)
    if not isinstance(own, ImageTransform):
        raise TypeError(
            f"resize: {resize!r} needs a processor with an image_transform, not {type(own).__name__}; "
            "leave resizes (or resize) out to use the processor as it is"
        )
    choose(resize, dict(RESIZES), "images.resize")
    other = copy.copy(processor)
    other.transform = copy.copy(own)  # whatever else the transform has stays as it is
    other.transform.resize = resize
    return other


def pictures_of(document: Document) -> list[Picture]:
    """All pictures of a document, the frames of its videos among them, in order."""
    found: list[Picture] = []
    for segment in document.segments:
        if isinstance(segment, Image):
            found.append(segment.image)
        elif isinstance(segment, Video):
            found.extend(segment.frames)
    return found


def read_views(
    model: nn.Module,
    processor: Any,
    dataset: Any,
    resizes: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
    encode: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Samples]:
    """Embed the pictures of a dataset under each way of resizing, in one pass over the data.

    A document's embedding is the mean of the normalised embeddings of its pictures, as in `encode_video`; that of a
    single picture is its own.

    Args:
        model: has `encode_image`.
        processor: its processor.
        dataset: documents with one picture or one video each.
        resizes: ways of resizing, at least one.
        batch_size: pictures per forward pass.
        device: where the model lies.
        encode: another function of the pixels than `model.encode_image`; what it gives is not normalised.

    Returns:
        way of resizing -> embeddings and metadata.

    Raises:
        ValueError: an empty dataset (with what was skipped and why), or embeddings that are not finite.
    """
    transforms = {resize: resized(processor, resize).transform for resize in resizes}
    reading = Reading()
    documents = reading.documents(documents_of(dataset))
    first = next(documents, None)
    if first is None:
        raise nothing_usable(dataset)
    views = embed_views(
        model,
        map(pictures_of, chain([first], documents)),
        transforms,
        batch_size=batch_size,
        device=device,
        encode=encode,
        total=size_of(dataset),
    )
    owners = torch.tensor(reading.image_of_text, dtype=torch.long)
    return {resize: Samples(images, reading.texts, owners, reading.metas) for resize, images in views.items()}


def embed_views(
    model: nn.Module,
    groups: Iterable[list[Picture]],
    transforms: Mapping[str, ImageTransform],
    *,
    batch_size: int,
    device: torch.device,
    encode: Callable[[Tensor], Tensor] | None = None,
    workers: int = 2,
    total: int | None = None,
) -> dict[str, Tensor]:
    """Embed groups of pictures (one picture, or the frames of a video) under several transforms.

    Where two transforms give the same pixels (every square picture under `shorter_crop` and `squash`), the model sees
    them once.

    Args:
        model: has `encode_image`.
        groups: lists of pictures; consumed as a stream.
        transforms: name -> transform; of one size, mean and std.
        batch_size: pictures per forward pass.
        device: where the model lies.
        encode: another function of the pixels than `model.encode_image`; what it gives is not normalised.
        workers: threads that prepare pictures ahead.
        total: number of groups, for the progress bar.

    Returns:
        name -> (groups, width) float32 on the CPU: means of normalised embeddings, or of what `encode` gives.

    Raises:
        ValueError: no group, one without a picture, or embeddings that are not finite.
    """
    some = next(iter(transforms.values()))
    dtype = floating_dtype(model)

    def prepare(batch: list[list[Picture]]) -> tuple[Prepared, list[int]]:
        """Pixels of a batch, and how many pictures each group has."""
        return distinct(batch, list(transforms.values())), [len(group) for group in batch]

    parts: dict[str, list[Tensor]] = {name: [] for name in transforms}
    with evaluating(model), Counter("images", total) as counter:
        for (pixels, rows), sizes in prefetched(prepare, grouped(groups, batch_size), workers):
            chunks = [
                (encode or model.encode_image)(some.normalise(chunk).to(device, dtype)).float().cpu()
                for chunk in pixels.split(batch_size)
            ]
            embeddings = torch.cat(chunks) if encode else normalize(torch.cat(chunks), dim=-1)
            for place, name in enumerate(transforms):
                parts[name] += [group.mean(dim=0) for group in embeddings[rows[:, place]].split(sizes)]
            counter.advance(len(sizes))
    if not parts[next(iter(transforms))]:
        raise ValueError("there is no image to embed; check the evaluation's dataset")
    return {name: finite(torch.stack(found), "image") for name, found in parts.items()}


def distinct(batch: list[list[Picture]], transforms: Sequence[ImageTransform]) -> Prepared:
    """The pixels of all pictures under all transforms, equal ones of one picture once."""
    pixels: list[Tensor] = []
    rows: list[list[int]] = []
    for group in batch:
        if not group:
            raise ValueError("a document without a picture or frame; check the evaluation's dataset")
        for picture in group:
            row: list[int] = []
            for transform in transforms:
                made = transform.pixels(picture)
                same = next((number for number in row if torch.equal(pixels[number], made)), None)
                if same is None:
                    pixels.append(made)
                row.append(len(pixels) - 1 if same is None else same)
            rows.append(row)
    return torch.stack(pixels), torch.tensor(rows, dtype=torch.long)
