"""The data module under a real trainer: what it counts as taken is what the trainer took."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.registry import build

COMMON = {"type": "image_text_data", "captions": {"type": "text_caption"}, "order": {"type": "shuffled_order"}}


class Taker(LightningModule):
    """Notes the keys of the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.taken: list[tuple[str, ...]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.taken.append(tuple(batch.keys))
        return self.weight * batch.images.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def emoji(processor: ImageTextProcessor, workers: int) -> Any:
    config = {
        **COMMON,
        "train": {"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["val"], "image_size": 72},
        "validation": {"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["test"], "image_size": 72},
        "batch_size": 30,
        "image_transform": None,
        "augment": [],
        "workers": workers,
    }
    return build(config, processor=processor)


def shards(processor: ImageTextProcessor, workers: int, paths: list[str], samples: int | None) -> Any:
    train = {"type": "webdataset_pairs", "sources": paths, "streams": 2, "shuffle": 6, "samples_per_epoch": samples}
    crop = {"type": "random_resized_crop", "size": 16}
    config = {**COMMON, "train": train, "batch_size": 8, "image_transform": crop, "augment": [], "workers": workers}
    return build(config, processor=processor)


def fit(data: Any, folder: Path, steps: int, resume: str | None = None) -> tuple[list[tuple[str, ...]], str]:
    module = Taker()
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    path = str(folder / f"{steps}.ckpt")
    trainer.save_checkpoint(path)
    return module.taken, path


Make = Callable[[int], Any]


def check(make: Make, folder: Path, steps: int) -> None:
    straight, _ = fit(make(0), folder, steps)
    assert len(straight) == steps
    for stop in (2, 4, 5, steps - 1):
        before, checkpoint = fit(make(1), folder, stop)
        after, _ = fit(make(0), folder, steps, resume=checkpoint)
        assert before + after == straight


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resuming_numbered_samples(processor: ImageTextProcessor, tmp_path: Path) -> None:
    check(lambda workers: emoji(processor, workers), tmp_path, 12)  # 5 batches an epoch


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("samples", [None, 32])
def test_resuming_shards(
    processor: ImageTextProcessor, tmp_path: Path, make_shards: Callable[..., list[str]], samples: int | None
) -> None:
    paths = make_shards([9, 13, 11, 8])
    check(lambda workers: shards(processor, workers, paths, samples), tmp_path, 11)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_validation_in_shards(
    processor: ImageTextProcessor, tmp_path: Path, make_shards: Callable[..., list[str]], make_tar: Callable[..., Path]
) -> None:
    paths = make_shards([5, 8])
    broken = [("90000.png", b"no"), ("90000.txt", b"t"), ("90001.png", b"\x89PNG"), ("90001.txt", b"t")]
    paths.insert(1, str(make_tar("broken.tar", broken)))
    data = shards(processor, 0, paths, None)
    data.validation = data.train
    expected = [f"{number:05d}" for number in range(13)]
    seen = []
    data.on_after_batch_transfer = lambda batch, index: seen.append((data.trainer.state.stage, batch.keys)) or batch
    Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    ).validate(Taker(), datamodule=data, verbose=False)
    assert [keys for _, keys in seen] == [expected[:8], expected[8:]]
    assert data.train.skips.counts == {"broken image": 2}
    first = next(iter(data.val_dataloader()))
    torch.testing.assert_close(first.images[:1], processor.images([next(iter(data.train)).image]))


@pytest.mark.parametrize(("sizes", "expected"), [([5, 8], [[4, 2], [4, 2]]), ([1], [[], []]), ([16], [[4, 4], [4, 4]])])
def test_ranks_share_validation_in_shards(
    processor: ImageTextProcessor, make_shards: Callable[..., list[str]], sizes: list[int], expected: list[list[int]]
) -> None:
    from multimodal_zoo.data.loaders import OrderedLoader

    data = shards(processor, 0, make_shards(sizes), None)
    ranks = [list(OrderedLoader(data.train, data.plain, 4, 0, (rank, 2), "data.validation")) for rank in range(2)]
    assert [[len(batch) for batch in batches] for batches in ranks] == expected
    keys = sorted(key for batches in ranks for batch in batches for key in batch.keys)
    assert keys == [f"{number:05d}" for number in range(sum(sizes) // 2 * 2)]


def test_every_rank_finds_its_own_place_in_the_shards_again(
    make_shards: Callable[..., list[str]],
    make_tar: Callable[..., Path],
    processor: ImageTextProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint is written by one rank; what is unusable in its shards is not what is unusable in another's."""
    broken = [str(make_tar(f"{n}.tar", [(f"{n}{i}.txt", b"no image") for i in range(9 * n)])) for n in range(3)]
    paths = [*make_shards([17, 30, 11, 26]), *broken]

    def at(rank: int) -> Any:
        data = shards(processor, 0, paths, 64)
        data._distributed = lambda: (rank, 2)  # as two processes would have it
        return data

    def taken(data: Any, count: int) -> list[tuple[str, ...]]:
        batches = (batch for _ in range(9) for batch in data.train_dataloader())
        return [tuple(batch.keys) for batch in islice(batches, count)]

    whole = [taken(at(rank), 7) for rank in range(2)]
    stopped = [at(rank) for rank in range(2)]
    before = [taken(data, 5) for data in stopped]
    places = [data.position.streams for data in stopped]
    assert places[0] != places[1]

    def gather(own: Any) -> list[Any]:
        assert own == places[0]
        return places

    monkeypatch.setattr("multimodal_zoo.data.datamodule.each_one", gather)
    state = stopped[0].state_dict()
    for rank in range(2):
        again = at(rank)
        again.load_state_dict(state)
        assert before[rank] + taken(again, 2) == whole[rank]
    one = shards(processor, 0, paths, 64)
    with pytest.raises(ValueError, match=r"dealt to 2 process\(es\), this run has 1"):
        one.load_state_dict(state)
