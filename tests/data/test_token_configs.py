"""The shipped configurations of token data, on small data of their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data.code_shards import write_codes
from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_features import write_feature, write_list
from multimodal_zoo.registry import build


@pytest.fixture(scope="module")
def model() -> Any:
    return zoo.create("emu3_tiny", overrides=["model.decoder.blocks.depth=1"])


def composed(model: Any, *overrides: str) -> Any:
    config = zoo.compose(None, ["+model=emu3_tiny", "+seed=0", *overrides])
    return build(config.data, path="data", processor=model.processor)


def documents(count: int) -> list[Document]:
    return [Document([Text(f"number {i}"), Codes(np.full((2, 1 + i % 3), i))], {"key": str(i)}) for i in range(count)]


def test_shards_are_packed(model: Any, tmp_path: Path) -> None:
    for number in range(2):
        write_codes(tmp_path / f"{number}.tar", documents(8), 0)
    data = composed(
        model, "+data=tokens", f"data.train.sources={tmp_path}/*.tar", "data.workers=0", "data.train.streams=2",
        "data.batching.context_length=80", "data.batch_size=2",
    )  # fmt: skip
    batch = next(iter(data.train_dataloader()))
    assert batch.ids.shape[0] == 2
    assert batch.documents.max() > 0
    assert set(batch.weights.unique().tolist()) == {0.0, 0.5, 1.0}


def test_emoji_are_encoded_and_both_ways(model: Any, tmp_path: Path) -> None:
    save_model(zoo.create("emu3_vision_tiny"), tmp_path / "vision")
    data = composed(
        model, "+data=emoji_tokens", f"data.train.tokenizer={tmp_path}/vision", "data.train.reader.splits=[test]",
        "data.train.reader.styles=[twemoji]", "data.batch_size=16", "data.validation=null",
    )  # fmt: skip
    batch = next(iter(data.train_dataloader()))
    second = batch.ids[:, 1] == model.ids.image_start
    assert 0 < int(second.sum()) < 16  # some begin with the picture
    for row, real in zip(batch.ids, batch.documents >= 0, strict=True):
        (picture,) = (piece for piece in model.processor.pieces(row[real]) if not isinstance(piece, str))
        assert picture.shape == tuple(model.processor.grid("1:1"))
    assert torch.isfinite(model(batch.ids, batch.positions, batch.documents)).all()


def test_readers_of_codes(model: Any, tmp_path: Path) -> None:
    names = [write_feature(tmp_path, one) for one in documents(6)]
    table = write_list(tmp_path, names)
    data = composed(
        model, "+data=tokens", "reader@data.train=emu3_features", f"data.train.table={table}", "data.workers=0",
        "data.batching.type=padded_batches", "~data.batching.batches_per_epoch", "data.batching.context_length=64",
        "data.batch_size=3",
    )  # fmt: skip
    assert len(data.train_dataloader()) == 2
