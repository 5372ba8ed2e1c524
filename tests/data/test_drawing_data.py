"""Pictures to draw: parts by hand, what is seen of them, framings, prompts, and what is left out."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch.testing import assert_close

from multimodal_zoo import zoo
from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.drawing_data import DrawingCollate, drawing_data
from multimodal_zoo.data.loaders import OrderedLoader
from multimodal_zoo.data.order import ShuffledOrder
from multimodal_zoo.data.skips import UnusableError


@pytest.fixture(scope="module")
def processor() -> Any:
    """That of the small Emu: pictures of 48 pixels."""
    return zoo.create("emu_tiny").processor


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def document(height: int = 40, width: int = 60) -> Document:
    """A captioned picture."""
    return Document([Image(picture(height, width)), Text("red cat")], {"key": "one"})


def test_the_middle_is_cut_out_and_seen(processor: Any) -> None:
    collate = DrawingCollate(processor, 20, [1.0, 2.0], 1, None, centred=True)
    row = collate.text_row(document(), Random(0))
    resized = Pillow.fromarray(picture()).resize((30, 20), Pillow.Resampling.BICUBIC)
    part = resized.crop((5, 0, 25, 20))
    assert np.array_equal(row.target.permute(1, 2, 0).numpy(), np.asarray(part))
    assert torch.equal(row.seen, processor.transform.pixels(part))
    assert (row.framing, row.prompt) == ([40, 60, 0, 5, 20, 20], None)
    batch = collate.batch(torch.empty(0), [row, row], torch.Generator())
    assert_close(batch.targets[0], torch.from_numpy(np.array(part)).permute(2, 0, 1) / 127.5 - 1)
    assert torch.equal(batch.seen.pixels[:1], processor.images([part]))
    assert (batch.seen.counts, batch.prompts, batch.empty, len(batch)) == ((8, 8), [], None, 2)


def test_random_squares_keep_the_aspect_and_follow_their_own_chance(processor: Any) -> None:
    collate = DrawingCollate(processor, 20, [1.0, 2.0], 1, None)
    rows = [collate.text_row(document(), Random(number)) for number in range(30)]
    assert len({tuple(row.framing) for row in rows}) > 20
    for row in rows:
        assert 0 <= row.framing[2] <= 20
        assert 0 <= row.framing[3] <= 40
        assert row.target.shape == (3, 20, 20)
    again = collate.text_row(document(), Random(3))
    assert torch.equal(again.target, rows[3].target)
    assert again.seed == rows[3].seed
    assert len({row.seed for row in rows}) == 30


def test_texts_to_imagine_from(processor: Any) -> None:
    collate = DrawingCollate(processor, 16, [1.0, 1.0], 1, TextCaption(), centred=True)
    row = collate.text_row(document(), Random(0))
    batch = collate.batch(torch.empty(0), [row], torch.Generator())
    ids = processor.ids
    assert batch.prompts[0].tolist() == [ids.bos, *processor.text_ids("red cat"), ids.image_begin]
    assert batch.empty is not None
    assert batch.empty.tolist() == [ids.bos, ids.image_begin]


def test_what_cannot_be_drawn_is_named(processor: Any) -> None:
    collate = DrawingCollate(processor, 16, [1.0, 1.0], 50, None)
    with pytest.raises(UnusableError, match="shorter edge below 50 pixels"):
        collate.text_row(document(), Random(0))
    with pytest.raises(UnusableError, match="missing image"):
        collate.text_row(Document([Text("words")], {"key": "none"}), Random(0))
    for size, scales in ((0, [1.0, 1.0]), (16, [0.5, 1.0]), (16, [2.0, 1.0]), (16, [1.0])):
        with pytest.raises(ValueError, match=r"data\.size is"):
            DrawingCollate(processor, size, scales, 1, None)
    with pytest.raises(ValueError, match=r"data\.batch_size is 0"):
        drawing_data(processor, [], 0, 16, [1.0, 1.0], 1, ShuffledOrder())


def test_processes_leave_out_the_same_pictures(processor: Any) -> None:
    """A streamed validation set: each of two processes gets every other picture that is large enough."""
    held = [Document([Image(picture(side, 60))], {"key": str(side)}) for side in (40, 20, 44, 48, 21, 52)]
    collate = DrawingCollate(processor, 16, [1.0, 1.0], 30, None, centred=True)
    seen = [[batch.keys for batch in OrderedLoader(held, collate, 1, 0, (rank, 2), "data")] for rank in (0, 1)]  # type: ignore[arg-type, attr-defined]
    assert seen == [[["40"], ["48"]], [["44"], ["52"]]]


def test_batches_resume(processor: Any) -> None:
    """Workers and a new start change nothing."""
    reader = {"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["val"], "image_size": 48}
    from multimodal_zoo.registry import build

    def data() -> Any:
        return drawing_data(processor, build(reader), 4, 16, [1.0, 1.5], 1, ShuffledOrder(), seed=3)

    first = data()
    seen = [batch for _, batch in zip(range(3), first.train_dataloader(), strict=False)]
    place = first.state_dict()
    second = data()
    second.load_state_dict(place)
    one, two = next(iter(first.train_dataloader())), next(iter(second.train_dataloader()))
    assert one.keys == two.keys
    assert torch.equal(one.targets, two.targets)
    assert torch.equal(one.seeds, two.seeds)
    assert not set(one.keys) & {key for batch in seen for key in batch.keys}
