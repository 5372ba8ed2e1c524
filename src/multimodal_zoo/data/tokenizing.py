"""Encoding the pictures and clips of any data into a folder of codes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from multimodal_zoo.data.code_folder import CodeFolder, Written
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.places import Found, Order
from multimodal_zoo.data.size_rule import Emu3ImageTransform
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.visual_codes import PixelEncoder, pixels_of, with_codes


class Tokenizing:
    """Encodes documents part by part, behind those that are written.

    Args:
        encoder: the visual tokenizer, or a model that has one.
        transform: the model's image transform.
        device: where the tokenizer is.
        shard_size: documents in a part.
        batch_size: pictures encoded at a time.
        workers: threads that decode and resize pictures.

    Raises:
        ValueError: sizes below 1.
    """

    def __init__(
        self,
        encoder: PixelEncoder,
        transform: Emu3ImageTransform,
        device: torch.device,
        shard_size: int = 1000,
        batch_size: int = 8,
        workers: int = 2,
    ) -> None:
        if min(shard_size, batch_size, workers) < 1:
            raise ValueError(
                f"shard_size: {shard_size}, batch_size: {batch_size} and workers: {workers} must be 1 or more"
            )
        self.encoder, self.transform, self.device = encoder, transform, device
        self.shard_size, self.batch_size, self.workers = shard_size, batch_size, workers

    def __call__(self, order: Order, folder: CodeFolder) -> Written:
        """Encode what is not written yet, with a progress bar.

        Args:
            order: the documents of this rank.
            folder: claimed.

        Returns:
            how far this rank has come: to the end.

        Raises:
            NoUsableSamplesError: no document was usable.
        """
        from rich.progress import Progress

        state = folder.written()
        if state.complete:
            return state
        stream = order.after(None if state.place is None else tuple(state.place))
        with Progress(transient=True) as progress, ThreadPoolExecutor(self.workers) as threads:
            task = progress.add_task("encoding", total=order.size(), completed=state.documents)
            while not state.complete:
                documents = self._part(stream, state, order.skips, threads)
                if state.complete and not documents and not state.documents:  # not noted: the data may be mended
                    raise Skips.of(state.skipped, state.examples).nothing_usable("mmzoo tokenize", "data")
                folder.write(documents, state)
                progress.update(task, completed=state.documents)
        return state

    def _part(
        self, stream: Iterator[Found], state: Written, skips: Skips, threads: ThreadPoolExecutor
    ) -> list[Document]:
        """The next part, encoded; `state` is brought to its end."""
        found: list[Document] = []
        while len(found) < self.shard_size and not state.complete:
            some = list(islice(stream, min(4 * self.batch_size, self.shard_size - len(found))))
            state.complete = not some
            made = list(threads.map(self._pixels, some))
            usable: list[tuple[Document, list[Tensor]]] = []
            for one, pixels in zip(some, made, strict=True):
                if isinstance(pixels, UnusableError):
                    skips.add(pixels.reason, pixels.key)
                else:
                    usable.append((one.document, pixels))
            found += with_codes(
                [document for document, _ in usable],
                self.encoder,
                self.transform,
                pixels=[pixels for _, pixels in usable],
                batch_size=self.batch_size,
                device=self.device,
            )
            state.place = list(some[-1].place) if some else state.place
        total = Skips.of(state.skipped, state.examples)
        total.update(skips.take())
        state.skipped, state.examples = dict(total.counts), total.examples
        return found

    def _pixels(self, found: Found) -> list[Tensor] | UnusableError:
        try:
            return pixels_of(found.document, self.transform, getattr(self.encoder, "temporal_factor", 1))
        except UnusableError as error:
            return error
