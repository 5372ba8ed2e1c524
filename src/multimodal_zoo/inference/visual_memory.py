"""Pictures are read once: visual embeddings by the content of pictures, for conversations, shots and many questions."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Picture, Seen, Segment, Video
from multimodal_zoo.nn.counted_images import CountedImages

if TYPE_CHECKING:
    from multimodal_zoo.decoders.emu import Emu

#: Bytes of embeddings that a memory keeps.
LIMIT = 2**28
#: Pictures that are encoded together.
TOGETHER = 16
#: A picture's content, and into how many embeddings it goes.
Key = tuple[bytes, int]


def content_of(picture: Picture) -> bytes:
    """A hash of a picture's pixels, as they are before any transform."""
    if isinstance(picture, PilImage):
        about = f"{picture.mode}{picture.size}".encode()
        return hashlib.blake2b(about + picture.tobytes(), digest_size=16).digest()
    pixels = np.ascontiguousarray(picture)
    return hashlib.blake2b(f"{pixels.shape}{pixels.dtype}".encode() + pixels.tobytes(), digest_size=16).digest()


class VisualMemory:
    """Visual embeddings of pictures that were read before; the oldest are forgotten first, all when weights change.

    Args:
        limit: bytes of embeddings that are kept.

    Attributes:
        encoded: pictures that were encoded so far.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.encoded = limit, 0
        self._known: OrderedDict[Key, Tensor] = OrderedDict()
        self._weights: tuple[int, ...] = ()

    def seen(self, model: Emu, documents: Sequence[Document]) -> list[Document]:
        """Documents with embeddings in place of their pictures and frames.

        Args:
            model: with its processor, in evaluation mode.
            documents: any; what is embedded already stays.

        Raises:
            UnusableError: a picture that cannot be read.
        """
        processor: Any = model.processor
        frame = processor.image_tokens if processor.frame_tokens is None else processor.frame_tokens
        shown: dict[Key, Picture] = {}
        keys: list[Key] = []
        for picture, clip in _pictures(documents):
            keys.append((content_of(picture), frame if clip else processor.image_tokens))
            shown[keys[-1]] = picture
        self._fresh(model)
        found, left = self._embeddings(model, shown), iter(keys)

        def replaced(segment: Segment) -> Segment:
            """With embeddings."""
            if isinstance(segment, Image):
                return Seen(found[next(left)])
            if isinstance(segment, Video):
                frames: Any = [one if isinstance(one, Seen) else Seen(found[next(left)]) for one in segment.frames]
                return Video(frames, segment.rate)
            return segment

        return [Document([replaced(one) for one in document.segments], document.meta) for document in documents]

    def forget(self) -> None:
        """Keep nothing of what was seen so far."""
        self._known.clear()

    def _fresh(self, model: Emu) -> None:
        """Forget everything where weights are others than before."""
        parts = nn.ModuleList([model.image_encoder, model.connector])
        now = tuple(number for one in parts.parameters() for number in (one.data_ptr(), changes_of(one)))
        if now != self._weights:
            self._known.clear()
        self._weights = now

    @torch.no_grad()
    def _embeddings(self, model: Emu, shown: dict[Key, Picture]) -> dict[Key, Tensor]:
        found = {key: self._known[key] for key in shown if key in self._known}
        for key in found:
            self._known.move_to_end(key)
        new = [key for key in shown if key not in found]
        like = next(one for one in model.image_encoder.parameters() if one.is_floating_point())
        for start in range(0, len(new), TOGETHER):
            part = new[start : start + TOGETHER]
            pixels = model.processor.images([shown[key] for key in part]).to(like)  # type: ignore[union-attr, operator]
            counts = tuple(count for _, count in part)
            pieces = model.encode(CountedImages(pixels, counts)).split(counts)
            found.update((key, piece.clone()) for key, piece in zip(part, pieces, strict=True))  # each leaves by itself
        self.encoded += len(new)
        self._known.update((key, found[key]) for key in new)
        while sum(one.nbytes for one in self._known.values()) > self.limit:
            self._known.popitem(last=False)
        return found


def changes_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 for one that torch does not count (`torch.inference_mode`)."""
    return 0 if tensor.is_inference() else tensor._version


_MEMORIES: WeakKeyDictionary[nn.Module, VisualMemory] = WeakKeyDictionary()


def memory_of(model: nn.Module) -> VisualMemory:
    """The memory of a model, which lives as long as it does."""
    return _MEMORIES.setdefault(model, VisualMemory())


def _pictures(documents: Sequence[Document]) -> Iterator[tuple[Picture, bool]]:
    """Each picture that is not embedded yet, and whether it is a frame of a clip."""
    for document in documents:
        for segment in document.segments:
            if isinstance(segment, Image):
                yield segment.image, False
            elif isinstance(segment, Video):
                yield from ((frame, True) for frame in segment.frames if not isinstance(frame, Seen))
