from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.collate import PairCollate
from multimodal_zoo.data.position import Position
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.skips import NoUsableSamplesError
from multimodal_zoo.data.stream_loader import StreamLoader
from multimodal_zoo.data.streams import count_streams, count_workers, deal
from multimodal_zoo.data.transforms import RandomResizedCrop
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs
from multimodal_zoo.objectives.batch import ImageTextBatch

Shards = Callable[..., list[str]]


def loader(
    shards: list[str],
    processor: ImageTextProcessor,
    samples: int | None = None,
    workers: int = 0,
    batch: int = 4,
    rank: tuple[int, int] = (0, 1),
    state: dict | None = None,
    streams: int = 4,
) -> StreamLoader:
    position = Position()
    if state is not None:
        position.restore(state)
    return StreamLoader(
        reader=WebdatasetPairs(shards, streams=streams, shuffle=5, samples_per_epoch=samples),
        collate=PairCollate(processor, TextCaption(), RandomResizedCrop(16, (0.3, 1.0)), []),
        batch_size=batch,
        seed=3,
        rank=rank,
        position=position,
        counting=lambda: True,
        workers=workers,
    )


def keys(batches: list[ImageTextBatch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def same(one: list[ImageTextBatch], other: list[ImageTextBatch]) -> bool:
    return len(one) == len(other) and all(
        a.keys == b.keys and torch.equal(a.images, b.images) and torch.equal(a.ids, b.ids)
        for a, b in zip(one, other, strict=True)
    )


def test_one_pass_sees_every_pair_once(make_shards: Shards, processor: ImageTextProcessor) -> None:
    shards = make_shards([7, 3, 9, 1, 5, 40, 2, 33])
    data = loader(shards, processor)
    first, second = list(data), list(data)
    assert len(keys(first)) == len(set(keys(first))) == 100
    assert keys(first) != sorted(keys(first))
    assert keys(first) != keys(second)
    assert set(keys(second)) == set(keys(first))
    with pytest.raises(TypeError):
        len(data)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(make_shards: Shards, processor: ImageTextProcessor, workers: int) -> None:
    shards = make_shards([7, 3, 9, 1, 5, 40, 2, 33])
    assert same(list(loader(shards, processor)), list(loader(shards, processor, workers=workers)))


def test_workers_change_nothing_in_endless_streams(make_shards: Shards, processor: ImageTextProcessor) -> None:
    shards = make_shards([7, 3, 9, 1, 5, 40])
    plain, busy = loader(shards, processor, samples=60), loader(shards, processor, samples=60, workers=2)
    assert len(plain) == 15
    for _ in range(2):
        assert same(list(plain), list(busy))


@pytest.mark.parametrize("stop", [1, 2, 7, 8, 9, 13, 24, 25])
def test_resuming_one_pass(make_shards: Shards, processor: ImageTextProcessor, stop: int) -> None:
    shards = make_shards([7, 3, 9, 1, 5, 40, 2, 33])
    whole = list(loader(shards, processor))
    assert len(whole) == 25
    before = loader(shards, processor)
    for _, _batch in zip(range(stop), before, strict=False):
        pass
    state = before.position.state()
    assert state["batch"] == stop
    assert same(list(loader(shards, processor, state=state)), whole[stop:])


@pytest.mark.parametrize("stop", [3, 12, 19, 31])
@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_endless_streams(make_shards: Shards, processor: ImageTextProcessor, stop: int, workers: int) -> None:
    shards = make_shards([7, 3, 9, 1, 5, 40])
    straight = loader(shards, processor, samples=60)
    whole = [*straight, *straight, *straight]
    first = loader(shards, processor, samples=60, workers=workers)
    done = 0
    while done < stop:
        for _ in first:
            done += 1
            if done == stop:
                break
    second = loader(shards, processor, samples=60, state=first.position.state())
    rest = [*second]
    while len(rest) < 45 - stop:
        rest += [*second]
    assert same(rest, whole[stop:])


def test_resuming_decodes_nothing_twice(
    make_shards: Shards, processor: ImageTextProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_shards([40, 40, 40, 40])
    before = loader(shards, processor, streams=1)
    for _, _batch in zip(range(32), before, strict=False):
        pass
    after = loader(shards, processor, streams=1, state=before.position.state())
    decoded = []
    decode = WebdatasetPairs.decode
    monkeypatch.setattr(WebdatasetPairs, "decode", lambda self, sample: (decoded.append(1), decode(self, sample))[1])
    rest = list(after)
    assert sum(len(batch) for batch in rest) == 32
    assert len(decoded) == 32


def test_ranks_share_the_data(make_shards: Shards, processor: ImageTextProcessor) -> None:
    shards = make_shards([8] * 6)
    ranks = [loader(shards, processor, samples=48, rank=(rank, 2), batch=6, streams=2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [4, 4]
    seen = Counter(key for rank in ranks for key in keys(list(rank)))
    assert len(seen) == 48
    assert set(seen.values()) == {1}


def test_every_shard_is_dealt_once() -> None:
    shards = [f"{n}" for n in range(23)]
    for turn in range(3):
        dealt = [
            shard for rank in range(3) for stream in range(4) for shard in deal(shards, 0, turn, rank, 3, stream, 4)
        ]
        assert sorted(dealt) == sorted(shards)
    assert deal(shards, 0, 0, 0, 1, 0, 1) != deal(shards, 0, 1, 0, 1, 0, 1) != shards


def test_streams_and_workers_fit_the_shards(make_shards: Shards, processor: ImageTextProcessor) -> None:
    assert count_streams(10, 4, 2) == 4
    assert count_streams(5, 4, 2) == 2
    assert [count_workers(n, 4) for n in (0, 1, 2, 3, 4, 9)] == [0, 1, 2, 2, 4, 4]
    with pytest.raises(ValueError, match=r"data.train.sources has 1 shard\(s\) for 2 ranks"):
        loader(make_shards([8]), processor, samples=8, rank=(0, 2))
    with pytest.raises(ValueError, match=r"samples_per_epoch is null with 2 ranks"):
        loader(make_shards([8, 8]), processor, rank=(0, 2))
    with pytest.raises(ValueError, match=r"data.batch_size is 4 .*samples_per_epoch is 3"):
        loader(make_shards([8]), processor, samples=3)


def test_batch_that_cannot_be_filled(make_shards: Shards, processor: ImageTextProcessor) -> None:
    with pytest.raises(ValueError, match=r"data.batch_size is 16, but the shards hold 5 usable pairs"):
        list(loader(make_shards([5]), processor, batch=16))
    assert len(list(loader(make_shards([5]), processor, batch=1))) == 5


@pytest.mark.parametrize("samples", [None, 8])
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_usable(
    make_tar: Callable[..., Path], processor: ImageTextProcessor, samples: int | None, workers: int
) -> None:
    bad = [str(make_tar(f"{n}.tar", [(f"{n}.txt", b"no image")])) for n in range(3)]
    with pytest.raises(NoUsableSamplesError, match=r"missing image \d+ .*check data.train.sources"):
        list(loader(bad, processor, samples=samples, workers=workers))


def test_skips_of_workers_are_reported(
    make_shards: Shards, make_tar: Callable[..., Path], processor: ImageTextProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    shards = [*make_shards([8, 8, 8]), str(make_tar("bad.tar", [("a.txt", b"a"), ("b.png", b"x"), ("b.txt", b"b")]))]
    for workers in (0, 2):
        data = loader(shards, processor, workers=workers)
        assert len(keys(list(data))) == 24
        assert data.reader.skips.counts == {"missing image": 1, "broken image": 1}
    assert "data.train: 2 skipped" in caplog.text


def test_shards_that_are_gone_end_no_epoch_in_silence(make_shards: Shards, processor: ImageTextProcessor) -> None:
    shards = make_shards([6, 6])
    data = loader(shards, processor, samples=12, streams=2)
    assert len(list(data)) == 3
    for shard in shards:
        Path(shard).unlink()
    with pytest.raises(NoUsableSamplesError, match=r"shard cannot be opened \d+ .*check data\.train\.sources"):
        keys([batch for _ in range(9) for batch in data])
