from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.image_text_data import image_text_data
from multimodal_zoo.data.order import ConceptOrder, ShuffledOrder, plan_epoch, plan_once
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.skips import NoUsableSamplesError, Skips, UnusableError, usable
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.registry import build

AUGMENT = [
    {"type": "random_placement", "size": 16, "scale": [0.6, 1.05], "rotation": 10, "stretch": 0.1},
    {"type": "colour_jitter", "probability": 0.8, "hue": 0.06, "saturation": 0.5, "brightness": 0.1, "tint": 0.05},
    {"type": "flat_ground", "white": 0.5},
]
CAPTIONS = {
    "type": "caption_mixture",
    "weights": [1, 1],
    "parts": [{"type": "text_caption"}, {"type": "text_and_keywords", "fewest": 1, "most": 2}],
}


class Numbers:
    """Picture n is n grey, text n; every number in `bad` is broken."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad, self.skips = count, bad, Skips()
        self.concepts = [n // 3 for n in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Document:
        if index in self.bad:
            raise UnusableError("broken image", str(index))
        return pair(np.full((20, 20, 3), index, np.uint8), str(index), {"key": str(index), "concept": index // 3})


def emoji(processor: ImageTextProcessor, **changes: Any) -> Any:
    config = {
        "type": "image_text_data",
        "train": {"type": "emoji_pairs", "styles": ["twemoji", "openmoji"], "splits": ["val"], "image_size": 72},
        "validation": {"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["test"], "image_size": 72},
        "batch_size": 50,
        "captions": CAPTIONS,
        "image_transform": None,
        "augment": AUGMENT,
        "order": {"type": "shuffled_order"},
    }
    return build(config | changes, processor=processor)


def numbers(processor: ImageTextProcessor, count: int = 40, batch: int = 8, bad: tuple[int, ...] = ()) -> Any:
    return image_text_data(
        processor=processor,
        train=Numbers(count, bad),
        batch_size=batch,
        captions=build({"type": "text_caption"}),
        image_transform=build({"type": "random_resized_crop", "size": 16}),
        augment=[],
        order=ShuffledOrder(),
    )


def same(one: Any, other: Any) -> bool:
    return (
        one.keys == other.keys
        and torch.equal(one.images, other.images)
        and torch.equal(one.ids, other.ids)
        and torch.equal(one.concepts, other.concepts)
    )


def test_batches(processor: ImageTextProcessor) -> None:
    loader = emoji(processor).train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 7
    batch = batches[0]
    assert batch.images.shape == (50, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.ids.shape[0] == 50
    assert (batch.ids[:, -1] != 0).any()  # trimmed to the longest text
    assert batch.concepts.shape == (50,)
    assert len({key for b in batches for key in b.keys}) == 350
    low, high = -processor.transform.mean / processor.transform.std, (1 - processor.transform.mean) / 0.26
    assert (batch.images.amin((0, 2, 3)) >= low - 1e-5).all()
    assert (batch.images.amax((0, 2, 3)) <= high).all()


def test_workers_change_nothing(processor: ImageTextProcessor) -> None:
    plain, busy = emoji(processor).train_dataloader(), emoji(processor, workers=2).train_dataloader()
    for _ in range(2):
        assert all(same(a, b) for a, b in zip(plain, busy, strict=True))


def test_epochs_and_seeds_differ(processor: ImageTextProcessor) -> None:
    loader = emoji(processor).train_dataloader()
    first, second = next(iter(loader)), None
    other = next(iter(emoji(processor, seed=1).train_dataloader()))
    assert first.keys != other.keys
    loader = emoji(processor).train_dataloader()
    list(loader)
    second = next(iter(loader))
    assert first.keys != second.keys


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming(processor: ImageTextProcessor, workers: int) -> None:
    straight = emoji(processor).train_dataloader()
    whole = [*straight, *straight]
    for stop in (1, 6, 7, 9):
        first = emoji(processor, workers=workers)
        done = 0
        while done < stop:
            for _ in first.train_dataloader():
                done += 1
                if done == stop:
                    break
        second = emoji(processor, workers=workers)
        second.load_state_dict(first.state_dict())
        rest: list[Any] = []
        while len(rest) < 14 - stop:
            rest += [*second.train_dataloader()]
        assert all(same(a, b) for a, b in zip(rest, whole[stop:], strict=True))


def test_resuming_with_another_batch_size_is_refused(processor: ImageTextProcessor) -> None:
    first = emoji(processor)
    next(iter(first.train_dataloader()))
    with pytest.raises(ValueError, match=r"50 pairs in a global batch; data.batch_size x ranks is 25"):
        emoji(processor, batch_size=25).load_state_dict(first.state_dict())


def test_validation_is_in_order_and_whole(processor: ImageTextProcessor) -> None:
    data = emoji(processor)
    batches = list(data.val_dataloader())
    assert [len(batch) for batch in batches] == [50, 50, 50, 35]
    assert [key for batch in batches for key in batch.keys] == [d.key for d in data.validation]
    expected = processor.images([data.validation[0].image])
    torch.testing.assert_close(batches[0].images[:1], expected)
    assert emoji(processor, validation=None).val_dataloader() == []


def test_two_ranks_are_one_cut_in_two(processor: ImageTextProcessor) -> None:
    reader, order = Numbers(41), ShuffledOrder()
    one = plan_epoch(reader, order, 8, 5, 2)
    two = [plan_epoch(reader, order, 4, 5, 2, rank, 2) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 5
    for whole, left, right in zip(one, *two, strict=True):
        assert whole.indices == left.indices + right.indices
        assert (left.first, right.first) == (whole.first, whole.first + 4)
    assert max(Counter(i for plan in one for i in plan.indices).values()) == 1
    halves = [plan_once(11, 4, rank, 2) for rank in range(2)]
    assert [[plan.indices for plan in half] for half in halves] == [[[0, 1, 2, 3], [4]], [[5, 6, 7, 8], [9]]]


def test_small_data(processor: ImageTextProcessor) -> None:
    with pytest.raises(ValueError, match=r"data.batch_size is 8 .*has 5 samples; set data.batch_size to at most 5"):
        numbers(processor, count=5).train_dataloader()
    assert [len(b) for b in numbers(processor, count=3, batch=1).train_dataloader()] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"data.batch_size is 0"):
        numbers(processor, batch=0)


def test_broken_samples_are_replaced_and_counted(
    processor: ImageTextProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    data = numbers(processor, bad=(3, 4, 39))
    seen = Counter(key for batch in data.train_dataloader() for key in batch.keys)
    assert sum(seen.values()) == 40
    assert seen["5"] == 3
    assert seen["0"] == 2
    assert data.train.skips.counts == {"broken image": 4}  # 4 stands in for 3 and is broken as well
    assert "data.train: 4 skipped: broken image 4 (" in caplog.text


def test_nothing_usable(processor: ImageTextProcessor) -> None:
    data = numbers(processor, bad=tuple(range(40)))
    with pytest.raises(NoUsableSamplesError, match=r"Numbers has no usable sample; 40 skipped: broken image 40"):
        list(data.train_dataloader())
    with pytest.raises(NoUsableSamplesError, match=r"broken image 2"):
        list(usable(Numbers(2, (0, 1))))


def test_giving_up_says_how_many_were_tried(processor: ImageTextProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal_zoo.data.loaders.PATIENCE", 5)
    data = numbers(processor, bad=tuple(range(30)))
    with pytest.raises(
        NoUsableSamplesError,
        match=r"none of 5 samples in a row, from number \d+ of 40 on, .*broken image \d+ .*data.train",
    ):
        list(data.train_dataloader())


def test_concepts_may_be_integers_of_numpy(processor: ImageTextProcessor) -> None:
    collate = numbers(processor).plain
    given = [np.int64(3), np.uint8(4), 5, "x", 2.0, 10**30, None]
    documents = [pair(np.zeros((20, 20, 3), np.uint8), "t", {"key": "k", "concept": concept}) for concept in given]
    assert [collate.text_row(document, None).concept for document in documents] == [3, 4, 5, -1, -1, -1, -1]


def test_image_transform_is_needed_for_pictures_on_disk(processor: ImageTextProcessor) -> None:
    data = emoji(processor, train=None)
    data.train = Numbers(60)
    with pytest.raises(ValueError, match=r"image_transform is null, but Numbers"):
        list(data.train_dataloader())


def test_sampling_by_concept(processor: ImageTextProcessor) -> None:
    reader, order = Numbers(30), ConceptOrder(most=1)
    epochs = [order(reader, torch.Generator().manual_seed(seed)).tolist() for seed in range(6)]
    for epoch in epochs:
        assert sorted(n // 3 for n in epoch) == list(range(10))
    assert len({n for epoch in epochs for n in epoch}) > 20
    assert len(order(reader, torch.Generator())) == 10
    data = emoji(processor, order={"type": "concept_order", "most": 2})
    assert len(data.train_dataloader()) == 5  # 144 concepts in two styles


def test_pictures_of_a_folder(processor: ImageTextProcessor, tmp_path: Path) -> None:
    lines = ["filepath,title"]
    for n in range(6):
        buffer = io.BytesIO()
        Image.fromarray(np.full((30, 40, 3), 40 * n, np.uint8)).save(buffer, "JPEG")
        (tmp_path / f"{n}.jpg").write_bytes(buffer.getvalue() if n != 2 else buffer.getvalue()[:300])
        lines.append(f"{n}.jpg,picture {n}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    train = {"type": "folder_pairs", "table": str(tmp_path / "table.csv"), "folder": str(tmp_path)}
    data = emoji(
        processor,
        train=train | {"image": "filepath", "text": "title"},
        batch_size=3,
        image_transform={"type": "random_resized_crop", "size": 16},
        augment=[],
        workers=2,
    )
    batches = list(data.train_dataloader())
    assert {key for batch in batches for key in batch.keys} == {f"{n}.jpg" for n in range(6)} - {"2.jpg"}
    assert batches[0].concepts is None
    assert data.train.skips.counts == {"broken image": 1}


class Grey(Numbers):
    """The same, held in memory."""

    def pixels(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


def test_samples_in_memory_are_replaced_too_with_their_pictures(processor: ImageTextProcessor) -> None:
    data = emoji(processor, train=None, batch_size=10, augment=[])
    data.train = Grey(40, bad=(3, 4))
    batches = list(data.train_dataloader())
    assert sum(len(batch) for batch in batches) == 40
    assert data.train.skips.counts == {"broken image": 3}
    for batch in batches:
        shown = (batch.images[:, 0, 0, 0] * processor.transform.std[0] + processor.transform.mean[0]) * 255
        assert shown.round().int().tolist() == [int(key) for key in batch.keys]


def test_pictures_of_validation_are_those_of_evaluation(processor: ImageTextProcessor) -> None:
    own = ImageTransform(16, [0.5] * 3, [0.5] * 3, "shorter_crop", "bilinear", None, 24)
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 4)).astype(np.uint8)

    class One(Numbers):
        def __getitem__(self, index: int) -> Document:
            return pair(picture, "a", {"key": "a"})

    data = image_text_data(
        ImageTextProcessor(own, processor.tokenizer), One(1), 1, None, None, [], ShuffledOrder(), validation=One(1)
    )
    (batch,) = data.val_dataloader()
    assert torch.equal(batch.images, own([picture]))
