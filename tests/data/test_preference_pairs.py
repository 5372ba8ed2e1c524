"""Preference pairs: written, read, and both sides behind one prompt."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from emu3_samples import Numbered, processor

from multimodal_zoo.data.preference_pairs import (
    PreferenceCollate,
    PreferencePairs,
    best_and_worst,
    preference_data,
    write_preferences,
)
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_sequences import TokenWeights
from multimodal_zoo.objectives.batch import PreferenceBatch
from multimodal_zoo.registry import build

OURS = processor()
VISION = TokenWeights(0.0, 1.0, 0.0, 0.0, 0.0)


def layout(null_prompt_probability: float = 0.0) -> Any:
    return build(
        {
            "type": "text_to_image_layout",
            "captions": {"type": "text_caption"},
            "null_prompt_probability": null_prompt_probability,
            "end": False,
        }
    )


def triples(count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [(f"a {'very ' * n}red kite", np.full((2, 2 + n % 2), n), np.full((2, 3), 15 - n)) for n in range(count)]


def data(table: Path, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "train": PreferencePairs(str(table)),
        "batch_size": 2,
        "layout": layout(),
        "weights": VISION,
        "order": build({"type": "shuffled_order"}),
        "batching": build({"type": "padded_batches", "context_length": 80, "too_long": "error"}),
    }
    return preference_data(OURS, **(given | changes))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    table = write_preferences(tmp_path, triples(3), keys=["a", "b", "c"], reference=[[-1.5, -2], [0, -3], [-4, -5]])
    reader = PreferencePairs(str(table))
    assert len(reader) == 3
    for document, (text, chosen, rejected) in zip(reader, triples(3), strict=True):
        assert document.text == text
        assert np.array_equal(document.segments[1].codes, chosen)
        assert np.array_equal(document.meta["rejected"], rejected)
    assert [document.key for document in reader] == ["a", "b", "c"]
    assert reader[0].meta["reference"] == [-1.5, -2.0]


def test_best_and_worst_of_several_drawings() -> None:
    drawings = [np.full((1, 2), n) for n in range(4)]
    best, worst = best_and_worst(drawings, [[1, 2, 3], [3, 3, 2], [0, 1, 1], [2, 2, 2]])
    assert (best[0, 0], worst[0, 0]) == (1, 2)
    with pytest.raises(ValueError, match=r"all 2 drawings have the score 1\.0: none is preferred"):
        best_and_worst(drawings[:2], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="1 drawings and votes for 1"):
        best_and_worst(drawings[:1], [[1.0]])


def test_both_sides_stand_behind_one_prompt(tmp_path: Path) -> None:
    table = write_preferences(tmp_path, triples(4))
    batch = next(iter(data(table).train_dataloader()))
    assert isinstance(batch, PreferenceBatch)
    assert batch.reference is None
    assert batch.keys == batch.rejected.keys
    for chosen, rejected, key in zip(batch.chosen.ids, batch.rejected.ids, batch.keys, strict=True):
        text, *codes = triples(4)[int(key)]
        start = [OURS.ids.bos, *OURS.text_ids(text), OURS.ids.image_start]
        for row, wanted in zip((chosen, rejected), codes, strict=True):
            assert row[: len(start)].tolist() == start
            assert np.array_equal(row[OURS.ids.is_visual(row)] - OURS.ids.visual_first, wanted.flatten())
    for side in (batch.chosen, batch.rejected):
        assert torch.equal(side.weights > 0, OURS.ids.is_visual(side.ids))


def test_texts_are_left_out_on_both_sides(tmp_path: Path) -> None:
    reader = PreferencePairs(str(write_preferences(tmp_path, triples(1))))
    collate = PreferenceCollate(OURS, layout(0.5), VISION, 80, "error")
    lengths = set()
    for seed in range(12):
        sample = collate.text_row(reader[0], Random(seed))
        first = [int((side.ids == OURS.ids.image_start).nonzero()) for side in sample[:2]]
        assert first[0] == first[1]
        lengths.add(first[0])
    assert len(lengths) == 2


def test_known_log_probabilities_come_along(tmp_path: Path) -> None:
    known = [[-1.0 - n, -2.0 - n] for n in range(2)]
    table = write_preferences(tmp_path, triples(2), reference=known)
    batch = next(iter(data(table).train_dataloader()))
    assert batch.reference.dtype == torch.float64
    assert batch.reference.tolist() == [known[int(key)] for key in batch.keys]
    with pytest.raises(ValueError, match=r"data\.layout\.null_prompt_probability=0"):
        next(iter(data(table, layout=layout(0.1)).train_dataloader()))
    lines = table.read_text().splitlines()
    del (first := json.loads(lines[0]))["reference"]
    table.write_text("\n".join([json.dumps(first), lines[1]]))
    with pytest.raises(ValueError, match="1 of 2 pairs have `reference`"):
        next(iter(data(table).train_dataloader()))


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    table = write_preferences(tmp_path, triples(3))
    np.save(tmp_path / "codes" / "00000001_rejected.npy", np.zeros((2, 2)))
    (tmp_path / "codes" / "00000002_chosen.npy").unlink()
    reader = PreferencePairs(str(table))
    for number, reason in ((1, "another form .rejected"), (2, "unreadable codes .chosen")):
        with pytest.raises(UnusableError, match=reason):
            reader[number]
    assert [document.key for document in reader] == ["00000000"]
    with pytest.raises(ValueError, match="it must be at least 1"):
        data(table, batch_size=0)
    packed = build({"type": "packed_batches", "context_length": 80, "batches_per_epoch": 1})
    with pytest.raises(ValueError, match="take padded_batches"):
        data(table, batching=packed)
    with pytest.raises(ValueError, match="has no rejected drawing"):
        next(iter(data(table, train=Numbered(4)).train_dataloader()))
    for text, message in (("", "has no line"), ("{", "no valid JSON"), ('{"key": 1}', "expected an object with key")):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            PreferencePairs(str(table))
    with pytest.raises(FileNotFoundError, match=r"data\.train\.table: no file"):
        PreferencePairs(str(tmp_path / "none"))


def test_tables_name_places_inside_their_folder_and_numbers(tmp_path: Path) -> None:
    table = write_preferences(tmp_path / "pairs", triples(2))
    np.save(tmp_path / "outside.npy", np.zeros((2, 2), int))
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    lines[1]["chosen"] = "../outside.npy"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = PreferencePairs(str(table))
    assert [document.key for document in reader] == ["00000000"]
    assert reader.skips.counts == {"path outside the folder": 1}
    table.write_text(json.dumps({**lines[0], "reference": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"line 1: reference is \['a', 'b'\]; expected two numbers"):
        PreferencePairs(str(table))


def test_codes_lie_beside_a_table_that_is_a_link(tmp_path: Path) -> None:
    table = write_preferences(tmp_path / "pairs", triples(1))
    (tmp_path / "elsewhere").mkdir()
    table.rename(tmp_path / "elsewhere" / "table.jsonl")
    table.symlink_to(tmp_path / "elsewhere" / "table.jsonl")
    assert [document.key for document in PreferencePairs(str(table))] == ["00000000"]
