"""Batches of conversations about pictures: padded, packed, mixed, resumed; and what is left out of them."""

from __future__ import annotations

import copy
import json
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from eve_samples import conversation, processor

from multimodal_zoo.data.conversation_layouts import CaptionTurns, ConversationTurns
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.eve_collate import PictureCollate
from multimodal_zoo.data.eve_data import picture_token_data
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.picture_batches import picture_rows_batch
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.nn.patch_cells import joined
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.registry import build

PADDED = {"type": "padded_batches", "context_length": 256}
PACKED = {"type": "packed_batches", "context_length": 600, "batches_per_epoch": 4}
OURS = processor(version=2)
SHAPES = [(16, 16), (40, 20), (9, 30), (32, 32)]


class Talks:
    """Conversations about no, one and two pictures, some of them unusable."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad, self.skips = count, bad, Skips()
        self.modality_lengths = [1 + i if i % 3 else -1 - i for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Document:
        shown = [SHAPES[(index + i) % len(SHAPES)] for i in range(index % 3)]
        answer = " " if index in self.bad else "hills " * (1 + index % 4)
        return conversation(*shown, "What?", answer, key=f"talk {index}")


def data(train: Any, batching: dict[str, Any] = PADDED, **changes: Any) -> Any:
    """A data module."""
    given: dict[str, Any] = {
        "batch_size": 3,
        "layout": ConversationTurns(),
        "batching": build(batching),
        "order": build({"type": "shuffled_order"}),
        "seed": 7,
    }
    return picture_token_data(OURS, train, **(given | changes))


def same(one: PictureTokenBatch, two: PictureTokenBatch) -> bool:
    """Whether two batches are equal in everything."""
    tensors = ("ids", "weights", "documents", "positions", "vision")
    assert (one.pictures is None) == (two.pictures is None)
    pixels = one.pictures is None or torch.equal(one.pictures.pixels, two.pictures.pixels)  # type: ignore[union-attr]
    return pixels and one.keys == two.keys and all(torch.equal(getattr(one, t), getattr(two, t)) for t in tensors)


def test_rows_hold_their_samples_and_pictures_go_by_rows() -> None:
    samples = [OURS.sample(Talks(9)[i], Random(0)) for i in (2, 0, 4)]
    batch = picture_rows_batch([[samples[0], samples[1]], [samples[2]]], pad_id=OURS.ids.pad)
    first = len(samples[0].ids)
    assert batch.ids[0, :first].tolist() == samples[0].ids.tolist()
    assert batch.vision[0, :first].tolist() == samples[0].vision.tolist()
    assert not batch.vision[0, first:].any()
    assert batch.documents[0, first] == 1
    assert batch.positions[0, first] == 0
    shown = [sample.cells for sample in samples if sample.cells is not None]
    assert batch.pictures is not None
    assert torch.equal(batch.pictures.pixels, joined(shown).pixels)
    assert int(batch.vision.sum()) == sum(batch.pictures.tokens)
    assert batch.weights[batch.positions == 0].sum() == 0
    assert batch.keys == ["talk 2", "talk 0", "talk 4"]


def test_rows_without_pictures_have_none() -> None:
    batch = picture_rows_batch([[OURS.sample(Talks(9)[0], Random(0))]], pad_id=0)
    assert batch.pictures is None
    assert batch.inputs()["pictures"] is None
    assert not batch.vision.any()


def test_teachers_views_go_by_the_pictures() -> None:
    ours = processor()
    seen = [ours.sample(Talks(9)[i], Random(0), teacher=True) for i in (0, 1, 2)]
    batch = picture_rows_batch([[one] for one in seen], 0)
    assert batch.teacher is not None
    assert batch.teacher.shape == (3, 3, 16, 16)
    assert batch.boxes == [*seen[1].boxes, *seen[2].boxes]
    with pytest.raises(ValueError, match="1 of 2 samples with pictures"):
        picture_rows_batch([[seen[1]], [ours.sample(Talks(9)[2], Random(0))]], 0)


@pytest.mark.parametrize("batching", [PADDED, PACKED])
def test_what_cannot_be_learnt_from_is_counted(batching: dict[str, Any]) -> None:
    reader = Talks(24, bad=(3, 17))
    found = [key for batch in islice(iter(data(reader, batching).train_dataloader()), 4) for key in batch.keys]
    assert not {"talk 3", "talk 17"} & set(found)
    everything = data(Talks(24, bad=(3, 17)), batching)
    loader = everything.train_dataloader()
    for _ in range(3):
        list(loader)
    assert set(everything.train.skips.counts) == {"empty answer"}
    assert any("talk" in key for key in everything.train.skips.examples["empty answer"])


@pytest.mark.parametrize("batching", [PADDED, PACKED])
def test_a_resumed_run_goes_on_with_the_next_batch(batching: dict[str, Any]) -> None:
    whole = list(data(Talks(24, bad=(3,)), batching).train_dataloader())
    begun = data(Talks(24, bad=(3,)), batching)
    first = list(islice(iter(begun.train_dataloader()), 2))
    state = json.loads(json.dumps(copy.deepcopy(begun.state_dict()), default=lambda one: {"tensor": one.tolist()}))
    assert state["batch"] == 2
    again = data(Talks(24, bad=(3,)), batching)
    again.load_state_dict(copy.deepcopy(begun.state_dict()))
    rest = list(again.train_dataloader())
    assert len(whole) == len(first) + len(rest)
    assert all(same(a, b) for a, b in zip(whole, [*first, *rest], strict=True))


def test_states_can_be_saved_and_read_as_plain_values(tmp_path: Path) -> None:
    begun = data(Talks(24), PACKED)
    list(islice(iter(begun.train_dataloader()), 1))
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    again = data(Talks(24), PACKED)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    expected = list(data(Talks(24), PACKED).train_dataloader())[1:]
    assert all(same(a, b) for a, b in zip(again.train_dataloader(), expected, strict=True))


def test_packed_rows_hold_more_than_one_sample() -> None:
    batches = list(data(Talks(24), PACKED).train_dataloader())
    assert max(int(batch.documents.max()) for batch in batches) > 0
    assert all(batch.ids.shape[1] <= 600 for batch in batches)
    assert all(int(batch.vision.sum()) == sum(batch.pictures.tokens) for batch in batches if batch.pictures is not None)


def test_sources_are_mixed_and_captioned_pairs_are_conversations() -> None:
    class Pairs(Talks):
        def __getitem__(self, index: int) -> Document:
            shown = conversation(SHAPES[index % 4]).segments
            return Document([*shown, Text("a kite")], {"key": f"pair {index}"})

    mixture = SourceMixture({"talks": Talks(12), "pairs": Pairs(12)}, None, 12)
    layout = {"talks": ConversationTurns(), "pairs": build(
        {"type": "caption_turns", "captions": {"type": "text_caption"}, "questions": ["Describe it."]}
    )}  # fmt: skip
    batches = list(data(mixture, batch_size=4, layout=layout).train_dataloader())
    keys = [key.split()[0] for batch in batches for key in batch.keys]
    assert keys.count("pair") == keys.count("talk") == 6


def test_validation_is_padded_and_in_order() -> None:
    found = list(data(Talks(12), PACKED, validation=Talks(5)).val_dataloader())
    assert [key for batch in found for key in batch.keys] == [f"talk {i}" for i in range(5)]


def test_the_order_of_fine_tuning_fits() -> None:
    order = build({"type": "modality_length_order", "batch_size": 3})
    for batch in list(data(Talks(24), order=order).train_dataloader())[:-1]:
        modalities = {int(key.split()[1]) % 3 > 0 for key in batch.keys}
        assert len(modalities) == 1


def collate(limit: int, too_long: str) -> PictureCollate:
    """A collate of one limit."""
    return PictureCollate(OURS, ConversationTurns(), limit, too_long, teacher=False)


def test_long_documents_are_refused_left_out_or_cut() -> None:
    document = conversation((32, 32), "What?", "hills " * 20)
    size = len(OURS.sample(document, Random(0)).ids)
    for way in ("error", "skip", "cut", "cut_ids"):
        assert len(collate(size, way).text_row(document, Random(0)).ids) == size
    with pytest.raises(ValueError, match=rf"'sample' has {size} tokens, 21 of them.*too_long=skip"):
        collate(size - 1, "error").text_row(document, Random(0))
    with pytest.raises(UnusableError, match=f"longer than {size - 1} tokens"):
        collate(size - 1, "skip").check(document)
    assert len(collate(size - 1, "cut").text_row(document, Random(0)).ids) == size - 1
    assert len(collate(size - 20, "cut_ids").text_row(document, Random(0)).ids) == size
    with pytest.raises(UnusableError, match=r"picture beyond the 90 tokens of data\.batching\.context_length: sample"):
        collate(90, "cut").check(document)
    last = int(OURS.sample(document, Random(0)).weights.nonzero()[0])
    with pytest.raises(UnusableError, match=f"no answer within {last} tokens: sample"):
        collate(last, "cut").check(document)


def test_special_strings_in_texts_can_be_ordinary_text() -> None:
    end = OURS.ids.eos
    for special, count in ((True, 2), (False, 1)):
        ours = PictureCollate(OURS, ConversationTurns(special), 256, "error", teacher=False)
        sample = ours.text_row(conversation("What?", "A <|im_end|> sign"), Random(0))
        assert int((sample.ids == end).sum()) == count


def test_choices_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"too_long is 'drop'; it must be one of error, skip, cut, cut_ids"):
        collate(8, "drop")
    with pytest.raises(ValueError, match="context_length is 1"):
        collate(1, "cut")
    with pytest.raises(ValueError, match="packed_batches needs cut"):
        data(Talks(9), {**PACKED, "too_long": "cut_ids"})
    with pytest.raises(ValueError, match=r"data\.batch_size is 0"):
        data(Talks(9), batch_size=0)
    with pytest.raises(ValueError, match=r"questions is empty"):
        CaptionTurns(build({"type": "text_caption"}), [])


@pytest.mark.multiprocess
def test_processes_that_read_change_nothing() -> None:
    alone = list(data(Talks(12)).train_dataloader())
    helped = list(data(Talks(12), workers=2).train_dataloader())
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
