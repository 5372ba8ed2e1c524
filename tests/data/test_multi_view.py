"""Batches of several views: what each view is made of, the same whatever reads them, refused when wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from torch import Tensor

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.multi_view import ImageView, MultiViewCollate
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.text_views import IGNORED
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.objectives.batch import MultiViewBatch
from multimodal_zoo.registry import build

CROP = {"type": "random_resized_crop", "size": 16, "scale": [0.2, 1.0]}
FLIP = {"type": "random_flip", "probability": 0.5}


class Letters:
    """A tokenizer of letters with a mask word."""

    pad_id, mask_id, start_id, end_id, vocab_size = 0, 1, 2, 3, 200

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: list[str]) -> list[list[int]]:
        self.encoded += texts
        return [[2, *(4 + ord(c) for c in text[:14]), 3] for text in texts]


def processor() -> ImageTextProcessor:
    return ImageTextProcessor(ImageTransform(16, [0.5] * 3, [0.25] * 3), Letters())


class Pairs:
    """Pairs of made pictures; sample 3 is broken if it is to be."""

    def __init__(self, count: int = 10, broken: bool = False) -> None:
        self.skips = Skips()
        self.broken = broken
        self.arrays = np.random.default_rng(0).integers(0, 255, (count, 20, 24, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Document:
        if self.broken and index == 3:
            raise UnusableError("broken image", "3")
        text = f"pair of words {index}"
        return Document([Image(self.arrays[index]), Text(text)], {"key": str(index), "concept": index // 2})


def node(**changes: Any) -> dict[str, Any]:
    base = {
        "type": "multi_view_data",
        "processor": processor(),
        "train": Pairs(),
        "batch_size": 4,
        "captions": {"type": "text_caption"},
        "image_views": {
            "plain": {"type": "image_view", "transform": {"type": "fixed_crop", "size": 16}},
            "first": {"type": "image_view", "transform": CROP, "augment": [FLIP]},
            "second": {"type": "image_view", "transform": CROP, "augment": [FLIP]},
        },
        "text_views": {
            "plain": {"type": "plain_text"},
            "masked": {"type": "masked_text", "probability": 0.5},
            "augmented": {
                "type": "augmented_text",
                "augmentation": {"type": "eda", "operations": [{"type": "random_deletion", "probability": 0.5}]},
            },
        },
        "order": {"type": "shuffled_order"},
        "seed": 3,
    }
    return {**base, **changes}


def same(ours: MultiViewBatch, theirs: MultiViewBatch) -> bool:
    tables = (
        (a, b) for name in ("images", "texts", "labels") for a, b in [(getattr(ours, name), getattr(theirs, name))]
    )
    equal = all(a.keys() == b.keys() and all(torch.equal(a[view], b[view]) for view in a) for a, b in tables)
    return equal and ours.keys == theirs.keys and torch.equal(ours.concepts, theirs.concepts)  # type: ignore[arg-type]


def test_what_the_views_hold() -> None:
    made = node()
    batch = next(iter(build(made).train_dataloader()))
    assert list(batch.images) == ["plain", "first", "second"]
    assert list(batch.texts) == ["plain", "masked", "augmented"]
    assert all(view.shape == (4, 3, 16, 16) for view in batch.images.values())
    documents = [Pairs()[int(key)] for key in batch.keys]
    assert torch.equal(batch.images["plain"], processor().images([document.image for document in documents]))
    assert not torch.equal(batch.images["first"], batch.images["second"])
    plain = Letters().encode([document.text for document in documents])
    assert [row[:length].tolist() for row, length in zip(batch.texts["plain"], map(len, plain), strict=True)] == plain
    masked, labels = batch.texts["masked"], batch.labels["masked"]
    assert list(batch.labels) == ["masked"]
    assert masked.shape == labels.shape == batch.texts["plain"].shape
    assert torch.equal(torch.where(labels == IGNORED, masked, labels), batch.texts["plain"])
    assert 0 < int((labels != IGNORED).sum()) < labels.numel()
    assert batch.concepts.tolist() == [int(key) // 2 for key in batch.keys]
    for row, key in zip(batch.texts["augmented"].tolist(), batch.keys, strict=True):
        words = "".join(chr(i - 4) for i in row if i > 3).split()
        assert words
        assert set("".join(words)) <= set(f"pair of words {key}")


def test_a_caption_is_encoded_once_for_all_views_that_show_it() -> None:
    made = node(text_views={"plain": {"type": "plain_text"}, "masked": {"type": "masked_text"}})
    next(iter(build(made).train_dataloader()))
    assert len(made["processor"].tokenizer.encoded) == 4


@pytest.mark.multiprocess
def test_workers_change_nothing_and_epochs_do() -> None:
    epochs = []
    for workers in (0, 2):
        loader = build(node(workers=workers)).train_dataloader()
        epochs.append([list(loader), list(loader)])
    assert all(same(*pair) for pair in zip(epochs[0][0] + epochs[0][1], epochs[1][0] + epochs[1][1], strict=True))
    assert not same(epochs[0][0][0], epochs[0][1][0])


def test_resuming_goes_on_with_the_very_same_views() -> None:
    whole = build(node())
    batches = [batch for _ in range(2) for batch in whole.train_dataloader()]
    first, second = build(node()), build(node())
    next(iter(first.train_dataloader()))
    second.load_state_dict(first.state_dict())
    assert same(next(iter(second.train_dataloader())), batches[1])


def test_validation_has_the_same_views_each_time_and_the_documents_own_texts() -> None:
    captions = {"type": "template_caption", "templates": ["never {text}"]}
    data = build(node(validation=Pairs(5), captions=captions))
    once, again = (list(data.val_dataloader()) for _ in range(2))
    assert [len(batch) for batch in once] == [4, 1]
    assert all(same(*pair) for pair in zip(once, again, strict=True))
    assert once[0].texts["plain"][0, 1:5].tolist() == [4 + ord(c) for c in "pair"]


def test_broken_samples_are_replaced() -> None:
    reader = Pairs(broken=True)
    batches = list(build(node(train=reader, batch_size=5)).train_dataloader())
    assert sum(batch.keys.count("4") for batch in batches) == 2
    assert reader.skips.counts == {"broken image": 1}


def test_shards_and_mixtures(make_shards: Callable[..., list[str]]) -> None:
    shards = make_shards([6, 6])
    tars = {"type": "webdataset_pairs", "sources": shards, "streams": 1, "shuffle": 4, "samples_per_epoch": 12}
    batches = list(build(node(train=tars, validation={**tars, "samples_per_epoch": None})).train_dataloader())
    assert [batch.images["second"].shape for batch in batches] == [(4, 3, 16, 16)] * 3
    assert all(batch.labels["masked"].shape == batch.texts["masked"].shape for batch in batches)
    ordered = list(build(node(validation={**tars, "samples_per_epoch": None})).val_dataloader())
    assert sum(len(batch) for batch in ordered) == 12
    mixed = {"type": "source_mixture", "sources": {"a": tars, "b": Pairs()}, "weights": None, "samples_per_epoch": 16}
    again = [list(build(node(train=mixed)).train_dataloader()) for _ in range(2)]
    assert len(again[0]) == 4
    assert all(torch.equal(a.images["first"], b.images["first"]) for a, b in zip(*again, strict=True))


def test_pixels_from_memory() -> None:
    reader = {"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["val"], "image_size": 72}
    place = {"type": "random_placement", "size": 16, "scale": [0.6, 1.0]}
    still = {"type": "image_view", "transform": None, "augment": []}
    moved = {"type": "image_view", "transform": None, "augment": [place, {"type": "flat_ground", "white": 1}]}
    data = build(node(train=reader, validation=reader, image_views={"still": still, "moved": moved}))
    batch = next(iter(data.train_dataloader()))
    assert batch.images["still"].shape == (4, 3, 72, 72)
    assert batch.images["moved"].shape == (4, 3, 16, 16)
    straight = build(reader)
    number = next(i for i in range(len(straight)) if straight[i].key == batch.keys[0])
    pixels = straight.pixels([number]).float()[0] / 255
    expected = pixels[:3] * pixels[3:] + 1 - pixels[3:]
    torch.testing.assert_close(batch.images["still"][0] * 0.25 + 0.5, expected, atol=1e-5, rtol=0)
    assert len(next(iter(data.val_dataloader()))) == 4
    with pytest.raises(ValueError, match=r"does not hold its pictures in memory"):
        next(iter(build(node(image_views={"still": still})).train_dataloader()))


def test_a_single_view_may_decode_at_reduced_size() -> None:
    """One view alone gets the picture as it was opened, several share one that is decoded."""

    class Seen:
        opened: ClassVar[list[Any]] = []

        def __call__(self, image: Any, random: Random) -> Tensor:
            self.opened.append(image)
            return torch.zeros(3, 4, 4, dtype=torch.uint8)

    single = MultiViewCollate(processor(), build({"type": "text_caption"}), {"only": ImageView(Seen())}, text())
    picture = PilImage.new("RGB", (9, 9))
    single.pictures(picture, Random(0))
    assert Seen.opened == [picture]
    assert single.image_transform is not None


def text() -> dict[str, Any]:
    return {"plain": build({"type": "plain_text"})}


def test_to_and_batches_of_one() -> None:
    batch = next(iter(build(node(batch_size=1)).train_dataloader()))
    moved = batch.to("meta")
    assert len(batch) == 1
    assert moved.images["first"].device.type == moved.labels["masked"].device.type == "meta"


def test_bad_settings_are_named() -> None:
    class Unmasked(Letters):
        mask_id = None  # type: ignore[assignment]

    transform = ImageTransform(16, [0.5] * 3, [0.25] * 3)
    for changes, message in (
        ({"batch_size": 0}, r"data.batch_size is 0"),
        ({"image_views": {}}, r"data.image_views is empty"),
        ({"text_views": {}}, r"data.text_views is empty"),
        ({"processor": ImageTextProcessor(transform, Unmasked())}, r"Unmasked has no mask_id.*processor.texts.mask"),
        (
            {"image_views": {"a": ImageView(None), "b": ImageView(build({"type": "fixed_crop", "size": 8}))}},
            r"data.image_views: a have no transform",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build(node(**changes))
    sizes = {name: ImageView(build({"type": "fixed_crop", "size": size})) for name, size in (("a", 8), ("b", 9))}
    with pytest.raises(ValueError, match=r"different sizes.*'a': \(3, 8, 8\)"):
        next(iter(build(node(image_views=sizes)).train_dataloader()))
    with pytest.raises(KeyError, match="mashed_text"):
        build(node(text_views={"masked": {"type": "mashed_text"}}))
