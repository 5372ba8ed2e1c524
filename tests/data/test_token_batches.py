"""Rows of samples: padding, packing, and that nothing is lost or cut."""

from __future__ import annotations

from random import Random

import pytest
import torch

from multimodal_zoo.data.token_batches import fit, padded_batch, rows_batch
from multimodal_zoo.data.token_loader import CountedRows, PackedRows
from multimodal_zoo.data.token_sequences import TokenSample
from multimodal_zoo.registry import build


def sample(length: int, first: int, key: str) -> TokenSample:
    weights = torch.ones(length)
    weights[0] = 0
    return TokenSample(torch.arange(first, first + length), weights, key)


def test_padding_is_on_the_right_and_counts_nothing() -> None:
    batch = padded_batch([sample(3, 10, "a"), sample(1, 20, "b")], pad_id=99)
    assert batch.ids.tolist() == [[10, 11, 12], [20, 99, 99]]
    assert batch.weights.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert batch.documents.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.keys == ["a", "b"]
    assert padded_batch([sample(3, 10, "a")], 99, length=5).ids.tolist() == [[10, 11, 12, 99, 99]]


def test_packed_rows_number_their_documents() -> None:
    batch = rows_batch([[sample(2, 10, "a"), sample(3, 20, "b")], [sample(4, 30, "c")]], pad_id=0)
    assert batch.ids.tolist() == [[10, 11, 20, 21, 22], [30, 31, 32, 33, 0]]
    assert batch.documents.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, -1]]
    assert batch.positions.tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]]
    assert batch.weights.tolist() == [[0, 1, 0, 1, 1], [0, 1, 1, 1, 0]]
    assert batch.keys == ["a", "b", "c"]


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a row has 5 tokens; rows of 4"):
        rows_batch([[sample(2, 0, "a"), sample(3, 0, "b")]], 0, length=4)
    with pytest.raises(ValueError, match="at least one row"):
        rows_batch([], 0)


def test_fitting_places_every_sample_once() -> None:
    random = Random(0)
    for _ in range(100):
        room, rows = 100, random.randint(1, 4)
        lengths: list[int] = []
        while sum(lengths) < (rows + 1) * room:
            lengths.append(random.randint(1, room))
        placed, over = fit(lengths, random.randint(0, 2), rows, room)
        assert sorted([*(i for row in placed for i in row), *over]) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in row) <= room for row in placed)
        assert all(placed)


@pytest.mark.parametrize(("rows", "least"), [(1, 0.9), (8, 0.95)])
def test_packing_leaves_little_padding_and_nobody_waits_for_ever(rows: int, least: float) -> None:
    random, assembly = Random(0), PackedRows(rows, 100, pad_id=0)
    waiting: list[TokenSample] = []
    drawn, taken, real = 0, set(), []
    for _ in range(100):
        old = len(waiting)
        while not assembly.ready(waiting):
            waiting.append(sample(random.randint(1, 100), 1, str(drawn)))
            drawn += 1
        oldest = waiting[0].key
        batch, waiting = assembly.batch(waiting, old)
        assert oldest in batch.keys or not old
        taken |= set(batch.keys)
        real.append(float((batch.documents >= 0).sum()) / (rows * 100))
    assert sum(real) / len(real) > least
    assert taken | {one.key for one in waiting} == {str(i) for i in range(drawn)}


def test_samples_that_waited_come_first() -> None:
    placed, over = fit([10, 90, 95], first=1, rows=1, room=100)
    assert placed == [[0, 1]] or placed == [[0]]
    assert 0 in placed[0]
    assert 2 in over


def test_a_batch_has_as_many_documents_as_asked_in_few_rows() -> None:
    """Short documents stand behind long ones; who waits is served in turn."""
    random, assembly = Random(1), CountedRows(12, 100, pad_id=0)
    waiting: list[TokenSample] = []
    drawn, rows, real = 0, 0, 0
    for step in range(20):
        while not assembly.ready(waiting):
            waiting.append(sample(random.choice([5, 8, 60, 100]), 1, str(drawn)))
            drawn += 1
        batch, waiting = assembly.batch(waiting, 0)
        assert set(batch.keys) == {str(number) for number in range(12 * step, 12 * step + 12)}
        assert batch.ids.shape[1] <= 100
        rows, real = rows + len(batch.ids), real + int((batch.documents >= 0).sum())
    assert rows < 0.7 * drawn
    assert real > 0.8 * rows * 100


def test_documents_are_packed_by_name() -> None:
    packed = build({"type": "packed_documents", "context_length": 20, "batches_per_epoch": 3})
    assembly = packed.assembly(3, 7)
    batch, over = assembly.batch([sample(n, 1, str(n)) for n in (4, 18, 9, 2)], 0)
    assert (len(over), batch.ids.shape, packed.batches_per_epoch) == (1, (2, 18), 3)
    assert sorted(batch.documents.amax(1).tolist()) == [0, 1]
    with pytest.raises(ValueError, match="batches_per_epoch is 0"):
        build({"type": "packed_documents", "context_length": 20, "batches_per_epoch": 0})
