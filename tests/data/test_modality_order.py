"""The order of fine-tuning: groups of one modality and similar lengths, evenly dealt."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from multimodal_zoo.data.modality_order import ModalityLengthOrder
from multimodal_zoo.data.order import plan_epoch
from multimodal_zoo.registry import build


class Lengths:
    """A reader that knows lengths only."""

    def __init__(self, lengths: list[int]) -> None:
        self.modality_lengths = lengths

    def __len__(self) -> int:
        return len(self.modality_lengths)


def reader(pictures: int, texts: int) -> Any:
    drawn = torch.randint(1, 500, (pictures + texts,), generator=torch.Generator().manual_seed(2)).tolist()
    return Lengths([length if i < pictures else -length for i, length in enumerate(drawn)])


@pytest.mark.parametrize(("pictures", "texts"), [(70, 45), (64, 0), (0, 33), (3, 2), (1, 0)])
@pytest.mark.parametrize(("batch", "ranks", "accumulation"), [(4, 1, 1), (2, 2, 2), (3, 1, 2)])
def test_groups_hold_one_modality(pictures: int, texts: int, batch: int, ranks: int, accumulation: int) -> None:
    data, size = reader(pictures, texts), batch * ranks * accumulation
    order = ModalityLengthOrder(batch, ranks, accumulation)(data, torch.Generator().manual_seed(1)).tolist()
    assert sorted(order) == list(range(pictures + texts))
    whole = pictures // size + texts // size
    groups = [order[number * size : (number + 1) * size] for number in range(whole)]
    assert all(len({data.modality_lengths[i] > 0 for i in group}) == 1 for group in groups)


def test_batches_are_more_even_than_shuffled_ones() -> None:
    data, batch = reader(800, 0), 8
    grouped = ModalityLengthOrder(batch, accumulation=8)(data, torch.Generator().manual_seed(1)).tolist()
    shuffled = torch.randperm(800, generator=torch.Generator().manual_seed(1)).tolist()

    def padding(order: list[int]) -> int:
        rows = [[data.modality_lengths[i] for i in order[start : start + batch]] for start in range(0, 800, batch)]
        return sum(len(row) * max(row) - sum(row) for row in rows)

    assert padding(grouped) < 0.3 * padding(shuffled)


def test_processes_get_as_much_and_longest_first() -> None:
    data, order = reader(64, 0), ModalityLengthOrder(2, ranks=2, accumulation=4)
    plans = [plan_epoch(data, order, 2, seed=3, epoch=0, rank=rank, ranks=2) for rank in (0, 1)]
    lengths = [[data.modality_lengths[i] for plan in ours for i in plan.indices] for ours in plans]
    for start in range(0, 32, 8):
        one, two = (ours[start : start + 8] for ours in lengths)
        assert abs(sum(one) - sum(two)) <= max(one + two)
        assert all(a >= b for a, b in pairwise(one))
    assert sorted(i for ours in plans for plan in ours for i in plan.indices) == list(range(64))


def test_it_is_a_function_of_its_seed() -> None:
    data, order = (
        reader(40, 30),
        build({"type": "modality_length_order", "batch_size": 4, "ranks": 1, "accumulation": 2}),
    )
    first, again, other = (order(data, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs the lengths of samples, which list does not know"):
        ModalityLengthOrder(2)([1, 2, 3], torch.Generator())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size 0"):
        ModalityLengthOrder(0)
