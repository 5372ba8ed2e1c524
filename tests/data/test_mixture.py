"""Sources in turn and by weight: the shares, every resumption, several ranks, and the counts beside shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image as Pictures

from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.collate import PairCollate
from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.endless_loader import EndlessLoader
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.mixture_loader import mixture_loader
from multimodal_zoo.data.order import ShuffledOrder
from multimodal_zoo.data.position import Position
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.shard_counts import count_samples
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.data.transforms import RandomResizedCrop
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs
from multimodal_zoo.objectives.batch import ImageTextBatch

Shards = Callable[..., list[str]]


class Numbered:
    """Pairs with numbers; their keys begin with `n`."""

    def __init__(self, samples: int) -> None:
        self.samples, self.skips = samples, Skips()

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Document:
        picture = Pictures.new("RGB", (20, 24), (index, 3, 7))
        return pair(picture, f"t{index}", {"key": f"n{index}"})


def mixture(make_shards: Shards, weights: dict[str, float] | str | None = None, samples: int = 48) -> SourceMixture:
    shards = make_shards([7, 3, 9, 5, 12, 4])
    streams = WebdatasetPairs(shards, streams=2, shuffle=5, samples_per_epoch=None)
    return SourceMixture({"shards": streams, "numbers": Numbered(21)}, weights, samples)


def loader(
    mixed: SourceMixture,
    processor: ImageTextProcessor,
    state: dict | None = None,
    batch: int = 4,
    rank: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> EndlessLoader:
    position = Position()
    if state is not None:
        position.restore(state)
    collate = PairCollate(processor, TextCaption(), RandomResizedCrop(16, (0.3, 1.0)), [])
    return mixture_loader(mixed, collate, ShuffledOrder(), batch, 3, rank, position, lambda: True, workers)


def same(one: list[ImageTextBatch], other: list[ImageTextBatch]) -> bool:
    return len(one) == len(other) and all(
        a.keys == b.keys and torch.equal(a.images, b.images) and torch.equal(a.ids, b.ids)
        for a, b in zip(one, other, strict=True)
    )


def origin(batch: ImageTextBatch) -> str:
    kinds = {key.startswith("n") for key in batch.keys}
    assert len(kinds) == 1, "a batch comes from one source"
    return "numbers" if kinds.pop() else "shards"


def test_sources_alternate(make_shards: Shards, processor: ImageTextProcessor) -> None:
    data = loader(mixture(make_shards), processor)
    assert len(data) == 12
    assert [origin(batch) for batch in data] == ["shards", "numbers"] * 6
    assert [origin(batch) for batch in data] == ["shards", "numbers"] * 6


def test_weights_hold_after_every_batch() -> None:
    weights = {"a": 4.0, "b": 1.0, "c": 2.5}
    mixed = SourceMixture(dict.fromkeys(weights, Numbered(9)), weights, 100)
    drawn = dict.fromkeys(weights, 0)
    for number in range(1, 301):
        drawn[mixed.choose(drawn)] += 1
        for name, weight in weights.items():
            assert abs(drawn[name] - number * weight / 7.5) <= 1, (number, name)
    assert drawn == {"a": 160, "b": 40, "c": 100}


def test_a_source_goes_through_all_of_its_samples(make_shards: Shards, processor: ImageTextProcessor) -> None:
    data = loader(mixture(make_shards, samples=160), processor)
    batches = list(data)
    numbers = [key for batch in batches for key in batch.keys if key.startswith("n")]
    assert len(set(numbers[:20])) == 20  # five batches of four fill an epoch of 21
    assert max(Counter(numbers).values()) - min(Counter(numbers).values()) <= 1
    shards = [key for batch in batches for key in batch.keys if not key.startswith("n")]
    assert set(shards) == {f"{n:05d}" for n in range(40)}


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_after_any_batch(make_shards: Shards, processor: ImageTextProcessor, workers: int) -> None:
    mixed = mixture(make_shards, {"shards": 2.0, "numbers": 1.0}, samples=40)
    whole = loader(mixed, processor)
    expected = [*whole, *whole]
    for stop in (1, 2, 5, 10, 13) if workers == 0 else (5,):
        first = loader(mixed, processor, workers=workers)
        begun = list(islice((batch for _ in range(2) for batch in first), stop))
        state = json.loads(json.dumps(first.position.state()))  # as a checkpoint keeps it
        second = loader(mixed, processor, state, workers=workers)
        left = [*second, *second][: len(expected) - stop]
        first.close()
        second.close()
        assert same([*begun, *left], expected), stop


def test_two_ranks_draw_from_one_source_and_share_its_samples(
    make_shards: Shards, processor: ImageTextProcessor
) -> None:
    mixed = mixture(make_shards, samples=96)
    one = list(loader(mixed, processor, batch=8))
    two = [list(loader(mixed, processor, batch=4, rank=(rank, 2))) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 12
    for whole, left, right in zip(one, *two, strict=True):
        assert origin(whole) == origin(left) == origin(right)
        if origin(whole) == "numbers":  # numbered samples are cut up among the ranks row by row
            assert whole.keys == left.keys + right.keys
            assert torch.equal(whole.images, torch.cat((left.images, right.images)))
    first = [{key for batch in half[:4] if origin(batch) == "shards" for key in batch.keys} for half in two]
    assert not first[0] & first[1]  # shards are dealt out


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"shards": 1.0},
            r"data.train.weights is \{'shards': 1.0\}; it needs a positive number for each of sha",
        ),
        ({"shards": 1.0, "numbers": 0.0}, "positive number"),
        ("size", "data.train.weights is 'size'; give counted"),
        ("counted", r"data.train.sources.shards: neither sizes.json nor __len__ in"),
    ],
)
def test_weights_that_do_not_fit(make_shards: Shards, weights: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(make_shards, weights)  # type: ignore[arg-type]


def test_an_epoch_below_one_batch(make_shards: Shards, processor: ImageTextProcessor) -> None:
    with pytest.raises(ValueError, match=r"data.train.samples_per_epoch is 3, less than one batch of 4 pairs"):
        loader(mixture(make_shards, samples=3), processor)


def test_another_set_of_sources_cannot_go_on(make_shards: Shards, processor: ImageTextProcessor) -> None:
    data = loader(mixture(make_shards), processor)
    next(iter(data))
    other = SourceMixture({"numbers": Numbered(21)}, None, 48)
    with pytest.raises(ValueError, match=r"was reading shards, numbers, data.train.sources has numbers now"):
        next(iter(loader(other, processor, data.position.state())))


def test_counts_beside_shards(make_shards: Shards, tmp_path: Path) -> None:
    shards = make_shards([2, 3], folder="a") + make_shards([4], folder="b")
    (tmp_path / "a" / "sizes.json").write_text(json.dumps({"00000.tar": 2, "00001.tar": "3", "00002.tar": 9}))
    (tmp_path / "b" / "__len__").write_text("4\n")
    assert count_samples(shards, "key") == 9
    mixed = SourceMixture(
        {"a": WebdatasetPairs(shards[:2], 1, 1, None), "b": WebdatasetPairs(shards[2:], 1, 1, None)}, "counted", 9
    )
    assert mixed.shares == {"a": 5 / 9, "b": 4 / 9}
    (tmp_path / "a" / "sizes.json").write_text(json.dumps({"00000.tar": 2}))
    with pytest.raises(ValueError, match=r"key: .*sizes.json has no entry for the shard '00001.tar'"):
        count_samples(shards, "key")
    (tmp_path / "b" / "__len__").write_text("many")
    with pytest.raises(ValueError, match=r"key: .*__len__ is not readable"):
        count_samples(shards[2:], "key")
