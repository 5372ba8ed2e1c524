"""Pictures of documents to codes: batches, padding, clips, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emu3_samples import MeanCodes, transform

from multimodal_zoo.data.documents import Codes, Document, Image, Text, Video
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.visual_codes import encode_clip, encode_pictures, with_codes


def noise(high: int, wide: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (high, wide, 3)).astype(np.uint8)


def test_pictures_of_one_size_are_encoded_together_and_equal_one_by_one() -> None:
    pictures = [noise(16, 24), noise(32, 16), noise(16, 24, 1), noise(16, 24, 2), noise(32, 16, 3)]
    pixels, encoder = transform()(pictures), MeanCodes()
    codes = encode_pictures(encoder, pixels, batch_size=2)
    assert [one.shape for one in codes] == [(2, 3), (4, 2), (2, 3), (2, 3), (4, 2)]
    assert [call[0] for call in encoder.calls] == [2, 1, 2]
    for one, pixel in zip(codes, pixels, strict=True):
        assert torch.equal(one, encoder.encode(pixel[None])[0])
    assert encode_pictures(encoder, []) == []


def test_padding_encodes_all_at_once_and_cuts_the_codes() -> None:
    pixels, encoder = transform()([noise(16, 24), noise(32, 16)]), MeanCodes()
    codes = encode_pictures(encoder, pixels, pad=True)
    assert encoder.calls == [(2, 3, 32, 24)]
    for one, alone in zip(codes, encode_pictures(encoder, pixels), strict=True):
        assert torch.equal(one, alone)  # this tokenizer sees squares only; Emu3's sees the padding (tests/parity)


def test_padding_cuts_by_the_tokenizers_own_factor() -> None:
    class Fine(MeanCodes):
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return super().encode(torch.nn.functional.interpolate(pixels, scale_factor=2))

    pixels = transform()([noise(16, 24), noise(32, 16)])
    assert [one.shape for one in encode_pictures(Fine(), pixels, pad=True)] == [(4, 6), (8, 4)]
    assert [one.shape for one in encode_pictures(Fine(), pixels)] == [(4, 6), (8, 4)]


def test_documents_keep_order_and_texts() -> None:
    given = np.array([[3, 4]])
    first = Document([Text("a"), Image(noise(16, 24)), Codes(given), Image(noise(32, 16))], {"key": "one"})
    second = Document([Video([noise(16, 16, i) for i in range(8)], 12.0), Text("b", "user")], {"key": "two"})
    found, clip = with_codes([first, second], MeanCodes(), transform())
    text, one, kept, other = found.segments
    assert text == Text("a")
    assert one.codes.shape == (2, 3)
    assert kept.codes is given
    assert other.codes.shape == (4, 2)
    assert found.meta is first.meta
    assert clip.segments[0].codes.shape == (2, 2, 2)
    assert clip.segments[0].rate == 12.0
    assert isinstance(first.segments[1], Image)  # the given document is as it was


def test_pictures_that_cannot_be_encoded_are_named() -> None:
    for picture, what in ((noise(16, 200), "shape"), (b"none", "broken")):
        with pytest.raises(UnusableError, match=what):
            with_codes([Document([Image(picture)], {"key": "bad"})], MeanCodes(), transform())
    frames = [noise(16, 16), noise(16, 24)] * 2
    for clip, what in ((frames, "different sizes"), ([noise(16, 16)] * 3, "fewer than 4")):
        with pytest.raises(UnusableError, match=what):
            with_codes([Document([Video(clip, 1.0)])], MeanCodes(), transform())
    with pytest.raises(ValueError, match="4 frames needs frames of one size"):
        encode_clip(MeanCodes(), transform(), frames, None)
