"""Visual embeddings of all pictures of a data set, computed once: for training behind a frozen image encoder (Emu2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.visual_store import VisualStoreWriter, picture_key
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.nn.modes import evaluation_mode

if TYPE_CHECKING:
    from multimodal_zoo.decoders.emu import Emu


def seeing_parts(model: Emu) -> nn.Module:
    """The parts that make visual embeddings of pictures: what must stay as it is for stored ones to be true."""
    return nn.ModuleList([model.image_encoder, model.connector])


@torch.no_grad()
def store_pictures(
    model: Emu, documents: Iterable[Document], writer: VisualStoreWriter, batch_size: int, skips: Skips
) -> int:
    """Encode each picture and frame of some documents once, and write what comes out.

    Args:
        model: with its processor, on any device, of any dtype.
        documents: read one by one.
        writer: where embeddings go.
        batch_size: pictures in a forward pass.
        skips: counts documents with a picture that cannot be read.

    Returns:
        how many pictures were encoded.
    """
    like = next(one for one in model.image_encoder.parameters() if one.is_floating_point())
    encoded = 0
    waiting: dict[bytes, tuple[Tensor, int]] = {}

    def encode() -> int:
        """Encode and write what waits."""
        if not waiting:
            return 0
        pixels, counts = zip(*waiting.values(), strict=True)
        visual = model.encode(CountedImages(torch.stack(pixels).to(like), counts)).split(list(counts))
        for key, one in zip(waiting, visual, strict=True):
            writer.add(key, one)
        waiting.clear()
        return len(counts)

    with evaluation_mode(model):
        for document in documents:
            try:
                shown = model.processor.counted(document)  # type: ignore[union-attr, operator]
            except UnusableError as error:
                skips.add(error.reason, error.key)
                continue
            for pixels, count in () if shown is None else zip(shown.pixels, shown.counts, strict=True):
                key = picture_key(pixels, count)
                if key not in writer:
                    waiting[key] = (pixels, count)
                if len(waiting) >= batch_size:
                    encoded += encode()
        encoded += encode()
    writer.flush()
    return encoded
