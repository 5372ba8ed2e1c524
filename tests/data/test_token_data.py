"""The data module of tokens: what a resumed run, more workers, more ranks and mixtures give."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emu3_samples import Numbered, document, processor
from lightning.pytorch import LightningModule, Trainer

from multimodal_zoo.data.code_shards import VisualCodes, write_codes
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.skips import NoUsableSamplesError, Skips
from multimodal_zoo.data.token_data import token_data
from multimodal_zoo.objectives.batch import TokenBatch
from multimodal_zoo.registry import build

LAYOUT = {
    "type": "layout_mixture",
    "weights": {"draw": 1, "name": 1},
    "layouts": {
        "draw": {
            "type": "text_to_image_layout",
            "captions": {"type": "text_caption"},
            "null_prompt_probability": 0.2,
            "end": True,
        },
        "name": {"type": "image_to_text_layout", "captions": {"type": "text_caption"}},
    },
}
PADDED = {"type": "padded_batches", "context_length": 64}
PACKED = {"type": "packed_batches", "context_length": 64, "batches_per_epoch": 5}
OURS = processor()


def data(train: Any, batching: dict[str, Any] = PADDED, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "batch_size": 3,
        "layout": build(LAYOUT),
        "weights": build(
            {"type": "token_weights", "text": 1.0, "vision": 0.5, "layout": 0.25, "prompt": 0.0, "end": 1.0}
        ),
        "batching": build(batching),
        "order": build({"type": "shuffled_order"}),
        "seed": 7,
    }
    return token_data(OURS, train, **(given | changes))


def shards(folder: Path, count: int = 4, each: int = 9) -> str:
    for number in range(count):
        documents = [document(number * each + i, (1, 2 + i % 3), "y" * (i % 5), "c") for i in range(each)]
        write_codes(folder / f"000-{number:05d}.tar", documents, 0)
    return str(folder / f"000-{{00000..{count - 1:05d}}}.tar")


class Words:
    """Texts without pictures."""

    def __init__(self, count: int) -> None:
        self.count, self.skips = count, Skips()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Document:
        return Document([Text("word " * (1 + index % 3))], {"key": f"w{index}"})


def readers(kind: str, folder: Path) -> Any:
    """A reader of each kind."""
    if kind == "numbered":
        return Numbered(40, bad=(3, 17))
    if kind == "shards":
        return VisualCodes(shards(folder), streams=2, shuffle=4, samples_per_epoch=36)
    sources = {"pairs": Numbered(40), "words": Words(20), "codes": VisualCodes(shards(folder), 2, 3)}
    return SourceMixture(sources, {"pairs": 2.0, "words": 1.0, "codes": 1.0}, samples_per_epoch=40)


def layout_of(kind: str) -> Any:
    if kind != "mixture":
        return build(LAYOUT)
    return {"pairs": build(LAYOUT), "words": build({"type": "document_layout"}), "codes": build(LAYOUT)}


def same(one: TokenBatch, other: TokenBatch) -> bool:
    fields = ("ids", "weights", "documents", "positions")
    return one.keys == other.keys and all(torch.equal(getattr(one, name), getattr(other, name)) for name in fields)


def taken(module: Any, count: int) -> list[TokenBatch]:
    """Batches over as many epochs as it takes."""
    found: list[TokenBatch] = []
    while len(found) < count:
        found += islice(module.train_dataloader(), count - len(found))
    module.teardown("fit")
    return found


def str_of(value: Any) -> str:
    return value if isinstance(value, str) else str(value["type"])


CASES = [(kind, batching) for kind in ("numbered", "shards", "mixture") for batching in (PADDED, PACKED)]


@pytest.mark.parametrize(
    ("kind", "batching"), CASES, ids=lambda value: value if isinstance(value, str) else value["type"]
)
def test_a_resumed_run_goes_on_with_the_next_batch(kind: str, batching: dict[str, Any], tmp_path: Path) -> None:
    def fresh() -> Any:
        return data(readers(kind, tmp_path), batching, layout=layout_of(kind))

    whole = taken(fresh(), 11)
    for stop in (1, 5, 8):
        first = fresh()
        before = taken(first, stop)
        second = fresh()
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        after = taken(second, 11 - stop)
        for one, other in zip(whole, before + after, strict=True):
            assert same(one, other)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("kind", "batching"), CASES, ids=lambda value: value if isinstance(value, str) else value["type"]
)
def test_workers_change_nothing(kind: str, batching: dict[str, Any], tmp_path: Path) -> None:
    alone = taken(data(readers(kind, tmp_path), batching, layout=layout_of(kind)), 5)
    several = taken(data(readers(kind, tmp_path), batching, layout=layout_of(kind), workers=2), 5)
    assert all(same(one, other) for one, other in zip(alone, several, strict=True))


@pytest.mark.parametrize("batching", [PADDED, PACKED], ids=lambda value: value["type"])
def test_ranks_share_the_documents(batching: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[set[str]] = []
    for rank in range(2):
        module = data(Numbered(400), batching)
        monkeypatch.setattr(type(module), "_distributed", lambda self, rank=rank: (rank, 2))
        seen.append({key for batch in taken(module, 3) for key in batch.keys})
    assert all(seen)
    assert not seen[0] & seen[1]


def test_packed_rows_hold_whole_documents() -> None:
    module = data(Numbered(40), PACKED)
    batches = taken(module, 10)
    assert len(module.train_dataloader()) == 5
    for batch in batches:
        assert batch.ids.shape[0] == 3
        assert batch.ids.shape[1] <= 64
        begins = batch.ids == OURS.ids.bos
        assert torch.equal(begins, (batch.positions == 0) & (batch.documents >= 0))
        assert int(begins.sum()) == len(batch.keys)
        assert not batch.weights[begins].any()
        assert not batch.weights[batch.documents < 0].any()
        for row in range(3):
            for number in range(int(batch.documents[row].max()) + 1):
                ids = batch.ids[row][batch.documents[row] == number]
                assert ids[0] == OURS.ids.bos
                assert ids[-1] == OURS.ids.eos
                assert sum(not isinstance(piece, str) for piece in OURS.pieces(ids)) == 1  # whole pictures only
    real = np.mean([float((batch.documents >= 0).float().mean()) for batch in batches])
    assert real > 0.85


def test_mixtures_hold_every_source_in_its_share(tmp_path: Path) -> None:
    batches = taken(data(readers("mixture", tmp_path), PADDED, layout=layout_of("mixture"), batch_size=4), 10)
    keys = [key for batch in batches for key in batch.keys]
    words = sum(key.startswith("w") for key in keys)
    codes = sum(key.startswith("c") for key in keys)
    assert (words, codes, len(keys)) == (10, 10, 40)
    for batch in batches:
        assert 0 < sum(key.startswith("w") for key in batch.keys) < 4


def test_documents_beyond_the_context(tmp_path: Path) -> None:
    short = PADDED | {"context_length": 24}
    with pytest.raises(ValueError, match=r"tokens; data\.batching\.context_length is 24.*too_long=skip"):
        taken(data(Numbered(40), short | {"too_long": "error"}), 8)
    for batching in (short, {**PACKED, "context_length": 24}):
        reader = Numbered(40)
        batches = taken(data(reader, batching), 13)
        assert max(batch.ids.shape[1] for batch in batches) <= 24
        assert "longer than 24 tokens" in reader.skips.counts
    with pytest.raises(NoUsableSamplesError, match="longer than 5 tokens"):
        taken(data(Numbered(12), PADDED | {"context_length": 5}), 1)
    with pytest.raises(ValueError, match="too_long is 'cut'"):
        data(Numbered(12), PADDED | {"too_long": "cut"})


def test_validation_is_padded_and_always_the_same(tmp_path: Path) -> None:
    for validation in (Numbered(10), VisualCodes(shards(tmp_path, 1))):
        module = data(Numbered(40), PACKED, validation=validation)
        first, again = list(module.val_dataloader()), list(module.val_dataloader())
        assert sum(len(batch) for batch in first) == (10 if isinstance(validation, Numbered) else 9)
        assert all(same(one, other) for one, other in zip(first, again, strict=True))
        assert all((batch.documents <= 0).all() for batch in first)
    assert data(Numbered(40)).val_dataloader() == []


def test_layouts_by_name_must_fit() -> None:
    mixture = SourceMixture({"a": Numbered(9), "b": Numbered(9)}, None, 18)
    one = build(LAYOUT)
    assert data(mixture, layout={"a": one, "b": one})
    assert data(mixture, layout={"a": one, "b": one, "validation": one}, validation=Numbered(3))
    for bad in ({"a": one}, {"a": one, "b": one, "validation": one}, {"a": one, "c": one}):
        with pytest.raises(ValueError, match=r"data\.layout has .*one.* each.* a, b"):
            data(mixture, layout=bad)
    with pytest.raises(ValueError, match=r"data\.batch_size is 0"):
        data(Numbered(9), batch_size=0)
    with pytest.raises(ValueError, match="batches_per_epoch is 0"):
        data(Numbered(9), PACKED | {"batches_per_epoch": 0})
    with pytest.raises(ValueError, match="9 samples"):
        taken(data(Numbered(9), batch_size=10), 1)


def test_a_position_belongs_to_its_number_of_ranks() -> None:
    module = data(Numbered(40), PACKED)
    taken(module, 2)
    state = module.state_dict()
    state = {**state, "ranks": [state["streams"]] * 2}
    with pytest.raises(ValueError, match=r"dealt to 2 process\(es\), this run has 1"):
        data(Numbered(40), PACKED).load_state_dict(state)


def test_every_rank_finds_its_own_place_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written by one rank and holds the places of all; packed ranks are at different documents."""

    def at(rank: int) -> Any:
        module = data(Numbered(400), PACKED)
        module._distributed = lambda: (rank, 2)  # as two processes would have it
        return module

    modules = [at(rank) for rank in range(2)]
    whole = [taken(at(rank), 6) for rank in range(2)]
    for module in modules:
        taken(module, 3)
    places = [module.position.streams for module in modules]

    def gather(own: Any) -> list[Any]:
        assert own == places[0]
        return places

    monkeypatch.setattr("multimodal_zoo.data.datamodule.each_one", gather)
    state = modules[0].state_dict()
    for rank in range(2):
        again = at(rank)
        again.load_state_dict(copy.deepcopy(state))
        assert all(same(one, other) for one, other in zip(taken(again, 3), whole[rank][3:], strict=True))


class Taker(LightningModule):
    """Notes the keys of the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.taken: list[tuple[str, ...]] = []

    def training_step(self, batch: TokenBatch, batch_idx: int) -> torch.Tensor:
        self.taken.append(tuple(batch.keys))
        return self.weight * batch.weights.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("batching", [PADDED, PACKED], ids=lambda value: value["type"])
def test_a_trainer_resumes_exactly(batching: dict[str, Any], tmp_path: Path) -> None:
    def fit(steps: int, resume: Path | None = None) -> tuple[Taker, Trainer]:
        model = Taker()
        trainer = Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=data(Numbered(40), batching), ckpt_path=resume)
        return model, trainer

    whole, _ = fit(17)
    first, trainer = fit(7)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, _ = fit(17, tmp_path / "half.ckpt")
    assert first.taken + second.taken == whole.taken
