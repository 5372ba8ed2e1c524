"""Batches of words and visual embeddings: padded, packed, mixed, resumed; and what is left out of them."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from emu_samples import TOKENS, document, processor

from multimodal_zoo.data.conversation_layouts import ConversationTurns
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.data.visual_collate import VisualCollate
from multimodal_zoo.data.visual_data import visual_token_data
from multimodal_zoo.data.visual_sequences import ALL, LearntElements
from multimodal_zoo.nn.counted_images import joined_images
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import create

PADDED = {"type": "padded_batches", "context_length": 64}
PACKED = {"type": "packed_batches", "context_length": 60, "batches_per_epoch": 4}
OURS = processor()


class Pages:
    """Documents with no, one and two pictures, some of them unusable."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad, self.skips = count, bad, Skips()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Document:
        text = "a <image> dog" if index in self.bad else "a dog " * (1 + index % 3)
        return document(*([index, "then"] * (index % 3)), text, key=f"page {index}")


def data(train: Any, batching: dict[str, Any] = PADDED, **changes: Any) -> Any:
    """A data module."""
    given: dict[str, Any] = {
        "batch_size": 3,
        "layout": ConversationTurns(),
        "learn": ALL,
        "batching": build(batching),
        "order": build({"type": "shuffled_order"}),
        "seed": 7,
    }
    return visual_token_data(OURS, train, **(given | changes))


def same(one: VisualTokenBatch, two: VisualTokenBatch) -> bool:
    """Whether two batches are equal in everything."""
    tensors = ("ids", "weights", "documents", "positions", "vision", "regression")
    assert (one.images is None) == (two.images is None)
    pixels = one.images is None or torch.equal(one.images.pixels, two.images.pixels)  # type: ignore[union-attr]
    return pixels and one.keys == two.keys and all(torch.equal(getattr(one, t), getattr(two, t)) for t in tensors)


def test_rows_hold_their_samples_and_pictures_go_by_rows() -> None:
    samples = [OURS.sample(Pages(9)[i], Random(0)) for i in (2, 0, 4)]
    batch = visual_rows_batch([[samples[0], samples[1]], [samples[2]]], pad_id=OURS.ids.pad)
    for place, row in enumerate([samples[:2], samples[2:]]):
        for name in ("ids", "weights", "vision", "regression"):
            joint = torch.cat([getattr(sample, name) for sample in row])
            assert torch.equal(getattr(batch, name)[place, : len(joint)], joint)
        rest = slice(sum(len(sample.ids) for sample in row), None)
        assert not batch.vision[place, rest].any()
        assert not batch.regression[place, rest].any()
        assert (batch.ids[place, rest] == OURS.ids.pad).all()
    assert batch.images is not None
    shown = [sample.images for sample in samples if sample.images is not None]
    assert torch.equal(batch.images.pixels, joined_images(shown).pixels)
    assert batch.images.counts == (TOKENS,) * 3
    assert batch.weights[batch.positions == 0].sum() == 0
    assert batch.keys == ["page 2", "page 0", "page 4"]


def test_batches_without_pictures_have_none() -> None:
    batch = visual_rows_batch([[OURS.sample(Pages(9)[0], Random(0))]], pad_id=0)
    assert batch.images is None
    assert not batch.vision.any()


@pytest.mark.parametrize("batching", [PADDED, PACKED])
def test_what_cannot_be_learnt_from_is_counted(batching: dict[str, Any]) -> None:
    everything = data(Pages(24, bad=(3, 17)), batching)
    loader = everything.train_dataloader()
    found = [key for _ in range(3) for batch in loader for key in batch.keys]
    assert not {"page 3", "page 17"} & set(found)
    assert set(everything.train.skips.counts) == {"more placeholders than pictures"}
    assert any("page" in key for key in everything.train.skips.examples["more placeholders than pictures"])


@pytest.mark.parametrize("batching", [PADDED, PACKED])
def test_a_resumed_run_goes_on_with_the_next_batch(batching: dict[str, Any], tmp_path: Path) -> None:
    whole = list(data(Pages(24, bad=(3,)), batching).train_dataloader())
    begun = data(Pages(24, bad=(3,)), batching)
    first = list(islice(iter(begun.train_dataloader()), 2))
    torch.save(copy.deepcopy(begun.state_dict()), tmp_path / "state.pt")
    again = data(Pages(24, bad=(3,)), batching)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    rest = list(again.train_dataloader())
    assert len(whole) == len(first) + len(rest)
    assert all(same(a, b) for a, b in zip(whole, [*first, *rest], strict=True))


def test_packed_rows_hold_more_than_one_sample() -> None:
    batches = list(data(Pages(24), PACKED).train_dataloader())
    assert max(int(batch.documents.max()) for batch in batches) > 0
    assert all(batch.ids.shape[1] <= 60 for batch in batches)


def test_sources_are_mixed_each_with_its_layout() -> None:
    pairs = build({"type": "shuffled_pair", "captions": {"type": "text_caption"}})

    class Pairs(Pages):
        def __getitem__(self, index: int) -> Document:
            return document(index, "a kite", key=f"pair {index}")

    mixture = SourceMixture({"pages": Pages(12), "pairs": Pairs(12)}, {"pages": 1, "pairs": 3}, 16)
    batches = list(
        data(mixture, batch_size=4, layout={"pages": ConversationTurns(), "pairs": pairs}).train_dataloader()
    )
    keys = [key.split()[0] for batch in batches for key in batch.keys]
    assert (keys.count("page"), keys.count("pair")) == (4, 12)


def test_validation_is_padded_and_in_order() -> None:
    found = list(data(Pages(12), PACKED, validation=Pages(5)).val_dataloader())
    assert [key for batch in found for key in batch.keys] == [f"page {i}" for i in range(5)]


def test_long_documents_are_refused_left_out_or_cut() -> None:
    told = document(1, "a dog")
    size = len(OURS.sample(told, Random(0)).ids)

    def collate(limit: int, too_long: str, learn: LearntElements = ALL) -> VisualCollate:
        return VisualCollate(OURS, ConversationTurns(), learn, limit, too_long)

    for way in ("error", "skip", "cut"):
        assert len(collate(size, way).text_row(told, Random(0)).ids) == size
    with pytest.raises(ValueError, match=rf"'sample' has {size} tokens, {TOKENS} of them.*too_long=skip"):
        collate(size - 1, "error").text_row(told, Random(0))
    with pytest.raises(UnusableError, match=f"longer than {size - 1} tokens"):
        collate(size - 1, "skip").check(told)
    assert len(collate(size - 1, "cut").text_row(told, Random(0)).ids) == size - 1
    with pytest.raises(UnusableError, match="nothing to learn within 3 tokens"):
        collate(3, "cut").check(told)
    with pytest.raises(ValueError, match=r"too_long is 'drop'; it must be one of error, skip, cut"):
        collate(8, "drop")
    with pytest.raises(ValueError, match="context_length is 1"):
        collate(1, "cut")
    with pytest.raises(ValueError, match=r"data\.batch_size is 0"):
        data(Pages(9), batch_size=0)


@pytest.mark.multiprocess
def test_processes_that_read_change_nothing() -> None:
    alone = list(data(Pages(12)).train_dataloader())
    helped = list(data(Pages(12), workers=2).train_dataloader())
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_packed_rows_are_learnt_as_if_each_document_were_alone() -> None:
    """Loss, regression and gradients of one packed row against those of padded rows."""
    model = create("emu_tiny", overrides=["model.decoder.blocks.depth=1"], seed=3).train()
    told = [
        document(1, "a red heart", key="a"),
        document("two cats", 2, "and", 3, key="b"),
        document("no picture", key="c"),
    ]
    samples = [model.processor.sample(one, Random(0)) for one in told]
    objective = build({"type": "next_element", "objective": {"type": "next_token"}})
    found = []
    for rows in ([[one] for one in samples], [samples]):
        model.zero_grad()
        batch = visual_rows_batch(rows, model.processor.ids.pad)
        losses = objective(model, batch)
        losses["loss"].backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        found.append((losses["language_loss"], losses["regression_loss"], gradients))
    (words, pictures, gradients), (words_2, pictures_2, gradients_2) = found
    torch.testing.assert_close(words, words_2)
    torch.testing.assert_close(pictures, pictures_2)
    for one, two in zip(gradients, gradients_2, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
