"""Batches of images with masked patches: from readers with and without texts, the same whatever reads them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from multimodal_zoo.data.augment import RandomFlip
from multimodal_zoo.data.documents import Document, Image
from multimodal_zoo.data.masked_images import MaskedImageCollate
from multimodal_zoo.data.masking import BlockwiseMasking
from multimodal_zoo.data.processor import ImageProcessor
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.registry import build

PROCESSOR = ImageProcessor(ImageTransform(16, [0.5] * 3, [0.25] * 3))


class Pictures:
    """Pictures in memory, without any text."""

    def __init__(self, count: int) -> None:
        self.skips = Skips()
        generator = np.random.default_rng(0)
        self.arrays = generator.integers(0, 255, (count, 20, 24, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Document:
        return Document([Image(self.arrays[index])], {"key": str(index)})


def node(**changes: Any) -> dict[str, Any]:
    base = {
        "type": "masked_image_data",
        "processor": PROCESSOR,
        "train": Pictures(10),
        "batch_size": 4,
        "masking": {"type": "blockwise_masking", "grid": [4, 4], "most": 7, "smallest": 2},
        "image_transform": {"type": "random_resized_crop", "size": 16, "scale": [0.2, 1.0]},
        "augment": [{"type": "random_flip", "probability": 0.5}],
        "order": {"type": "shuffled_order"},
        "seed": 3,
    }
    return {**base, **changes}


def test_workers_change_nothing_and_epochs_do() -> None:
    epochs = []
    for workers in (0, 2):
        loader = build(node(workers=workers)).train_dataloader()
        epochs.append([list(loader), list(loader)])
    for ours, theirs in zip(epochs[0][0] + epochs[0][1], epochs[1][0] + epochs[1][1], strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.mask, theirs.mask)
        assert ours.keys == theirs.keys
    first, second = (torch.cat([batch.mask for batch in epoch]) for epoch in epochs[0])
    assert first.shape == (8, 16)
    assert int(first.sum(1).min()) > 0
    assert int(first.sum(1).max()) <= 7
    assert not torch.equal(first, second)


def test_validation_is_plain_and_always_the_same() -> None:
    data = build(node(validation=Pictures(5)))
    once, again = (list(data.val_dataloader()) for _ in range(2))
    assert [len(batch) for batch in once] == [4, 1]
    assert all(
        torch.equal(a.mask, b.mask) and torch.equal(a.images, b.images) for a, b in zip(once, again, strict=True)
    )
    assert torch.equal(once[0].images[0], PROCESSOR.images([Pictures(5)[0].image])[0])


def test_a_folder_of_pictures_without_captions(tmp_path: Path) -> None:
    for name, colour in (("a/one.png", "red"), ("a/two.jpg", "green"), ("b/three.png", "blue")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        PilImage.new("RGB", (30, 20), colour).save(path)
    reader = {"type": "folder_pictures", "folder": str(tmp_path), "need_caption": False}
    batches = list(build(node(train=reader, batch_size=1)).train_dataloader())
    assert sorted(batch.keys[0] for batch in batches) == ["a/one.png", "a/two.jpg", "b/three.png"]
    assert all(batch.images.shape == (1, 3, 16, 16) for batch in batches)


def test_pixels_from_memory_need_no_transform() -> None:
    data = build(
        node(
            train={"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["val"], "image_size": 72},
            image_transform=None,
            augment=[
                {"type": "random_placement", "size": 16, "scale": [0.6, 1.0]},
                {"type": "flat_ground", "white": 1},
            ],
        )
    )
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.keys[0].startswith("twemoji/")


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size is 0"):
        build(node(batch_size=0))
    collate = MaskedImageCollate(PROCESSOR, BlockwiseMasking([4, 4], 5, 2), None, [])
    with pytest.raises(ValueError, match=r"image_transform is null"):
        collate.row(Pictures(1)[0], Random(0))
    with pytest.raises(ValueError, match=r"data.augment.probability is 1.5"):
        RandomFlip(1.5)


def test_flips() -> None:
    images = torch.rand(6, 3, 4, 5)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(RandomFlip(0.0)(images, generator), images)
    assert torch.equal(RandomFlip(1.0)(images, generator), images.flip(-1))
    some = RandomFlip(0.5)(images, generator)
    straight = (some == images).flatten(1).all(1)
    assert torch.equal(some[~straight], images[~straight].flip(-1))
    assert 0 < int(straight.sum()) < 6
