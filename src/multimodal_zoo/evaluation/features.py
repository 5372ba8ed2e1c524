"""Embedding images and texts in batches: the one place where an evaluation runs a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from multimodal_zoo.evaluation.throughput import counting_bar
from multimodal_zoo.nn.modes import evaluation_mode

T = TypeVar("T")
Group = TypeVar("Group", bound=Sized)

#: Texts tokenised at once before they are sorted by length.
TOKENISED_AT_ONCE = 8192


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside, for models that are whole: sharded ones refuse `inference_mode`."""
    with evaluation_mode(model), torch.inference_mode():
        yield


class Counter:
    """A progress bar with items per second that keeps quiet where another live display (a trainer's bar) runs.

    Args:
        title: what is counted.
        total: how many there are, None if nobody knows.
    """

    def __init__(self, title: str, total: int | None) -> None:
        self.progress = counting_bar(transient=True)
        self.task = self.progress.add_task(title, total=total, rate="")
        self.live = False

    def __enter__(self) -> Counter:
        from rich.errors import LiveError

        if self.progress.console.is_terminal:
            try:
                self.progress.start()
                self.live = True
            except LiveError:
                self.live = False
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.progress.stop()

    def advance(self, count: int) -> None:
        """Count further items."""
        speed = self.progress.tasks[0].speed
        self.progress.update(self.task, advance=count, rate=f"{speed:,.0f}/s" if speed else "")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def grouped(groups: Iterable[Group], size: int) -> Iterator[list[Group]]:
    """Batches of whole groups with at least `size` items together, the last one fewer."""
    batch: list[Group] = []
    for group in groups:
        batch.append(group)
        if sum(map(len, batch)) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def prefetched(function: Callable[[list[T]], Any], batches: Iterable[list[T]], workers: int) -> Iterator[Any]:
    """`function(batch)` for each batch, in order, computed ahead by threads (decoding and resizing free the GIL).

    The batches themselves are drawn by the calling thread, so a reader needs no lock.
    """
    if workers == 0:
        yield from map(function, batches)
        return
    iterator = iter(batches)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(function, b) for b in islice(iterator, workers + 1))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(function, b) for b in islice(iterator, 1))
            yield ready


def embed_images(
    model: nn.Module,
    images: Iterable[Any],
    prepare: Callable[[list[Any]], Tensor],
    *,
    batch_size: int,
    device: torch.device,
    encode: Callable[[Tensor], Tensor] | None = None,
    workers: int = 2,
    total: int | None = None,
) -> Tensor:
    """Embed images, in order.

    Args:
        model: has `encode_image`; its parameters decide the precision.
        images: what `prepare` takes; consumed as a stream.
        prepare: a list of images -> (batch, 3, height, width), as `processor.images`.
        batch_size: images per forward pass.
        device: where the model lies.
        encode: another function of the pixels than `model.encode_image` (features before the projection, say).
        workers: threads that prepare images ahead.
        total: number of images, for the progress bar.

    Returns:
        (images, width) float32 on the CPU.

    Raises:
        ValueError: no image at all, or embeddings that are not finite.
    """
    encode = encode or model.encode_image
    dtype = floating_dtype(model)
    parts = []
    with evaluating(model), Counter("images", total) as counter:
        for pixels in prefetched(prepare, batched(images, batch_size), workers):
            parts.append(encode(pixels.to(device, dtype)).float().cpu())
            counter.advance(len(pixels))
    return finite(_join(parts, "image"), "image")


def embed_texts(
    model: nn.Module,
    texts: Sequence[str],
    prepare: Callable[[list[str]], Tensor],
    *,
    batch_size: int,
    device: torch.device,
    pad_id: int,
    encode: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Embed texts: each distinct one once, in batches of like length, so that no short text is padded to a long one.

    Args:
        model: has `encode_text`.
        texts: any strings.
        prepare: a list of texts -> (batch, longest) ids, as `processor.texts`.
        batch_size: texts per forward pass.
        device: where the model lies.
        pad_id: the id that fills up short rows in what `prepare` returns.
        encode: another function of the ids than `model.encode_text`.

    Returns:
        (texts, width) float32 on the CPU, in the order of `texts`.

    Raises:
        ValueError: no text at all, or embeddings that are not finite.
    """
    encode = encode or model.encode_text
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    distinct = list(place)
    with evaluating(model), Counter("texts", len(distinct)) as counter:
        parts, order = [], []
        for start in range(0, len(distinct), TOKENISED_AT_ONCE):
            ids = prepare(distinct[start : start + TOKENISED_AT_ONCE])
            lengths = row_lengths(ids, pad_id)
            by_length = lengths.argsort(stable=True)
            order.append(by_length + start)
            for rows in by_length.split(batch_size):
                longest = int(lengths[rows].max())
                parts.append(encode(ids[rows, :longest].to(device)).float().cpu())
                counter.advance(len(rows))
        sorted_embeddings = _join(parts, "text")
        embeddings = torch.empty_like(sorted_embeddings)
        embeddings[torch.cat(order)] = sorted_embeddings
        numbers = torch.tensor([place[text] for text in texts], dtype=torch.long)
    return finite(embeddings[numbers].clone(), "text")


def row_lengths(ids: Tensor, pad_id: int) -> Tensor:
    """Number of ids before the trailing padding of each row, at least 1.

    Args:
        ids: (batch, longest).
        pad_id: may also occur inside a text (id 0 is "!" in CLIP's vocabulary): only the tail counts.
    """
    real = ids != pad_id
    last = real.shape[1] - real.flip(1).int().argmax(dim=1)
    return last.where(real.any(dim=1), torch.ones_like(last))


def pad_id_of(processor: Any) -> int:
    """The id with which a processor fills up short texts."""
    return int(processor.tokenizer.pad_id)


def floating_dtype(model: nn.Module) -> torch.dtype:
    """Precision of a model's weights; float32 for a model without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def finite(embeddings: Tensor, what: str) -> Tensor:
    """The embeddings themselves.

    Raises:
        ValueError: NaN or infinite values; the message counts them and names the first rows.
    """
    bad = ~embeddings.flatten(1).isfinite().all(dim=1)
    if bad.any():
        rows = bad.nonzero().flatten()[:5].tolist()
        raise ValueError(
            f"{int(bad.sum())} of {len(embeddings)} {what} embeddings are NaN or infinite (first rows: {rows}); "
            "the weights are broken or overflow in their precision: check model.weights, or load them as float32"
        )
    return embeddings


def _join(parts: list[Tensor], what: str) -> Tensor:
    if not parts:
        raise ValueError(f"there is no {what} to embed; check the evaluation's dataset")
    return torch.cat(parts)
