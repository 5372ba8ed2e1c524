"""Prompts of different lengths as one batch."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.generation.prompts import PromptBatch, left_padded


def test_prompts_end_at_the_last_column() -> None:
    batch = left_padded([[5, 6, 7], [8], [5, 6, 7]], pad_id=1)
    assert batch.inputs.tolist() == [[5, 6, 7], [1, 1, 8], [5, 6, 7]]
    assert batch.real.tolist() == [[True] * 3, [False, False, True], [True] * 3]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 0, 0], [0, 1, 2]]
    assert batch.lengths.tolist() == [3, 1, 3]
    assert len(batch) == 3


def test_two_batches_share_one_padding() -> None:
    both = left_padded([[4, 4, 4, 4]], 0).under(left_padded([[7, 8], [9]], 0))
    assert torch.where(both.real, both.inputs, -1).tolist() == [[-1, -1, 7, 8], [-1, -1, -1, 9], [4, 4, 4, 4]]


def test_equal_prompts_are_one() -> None:
    batch = left_padded([[5, 1], [1], [5, 1], [1, 1]], pad_id=1)  # padding is no token
    once, which = batch.distinct()
    assert len(once) == 3
    assert torch.equal(torch.where(once.real, once.inputs, -1)[which], torch.where(batch.real, batch.inputs, -1))


def test_embeddings_are_padded_with_zeros() -> None:
    rows = [torch.randn(3, 4), torch.randn(1, 4)]
    batch = left_padded(rows, 9)
    assert batch.inputs.shape == (2, 3, 4)
    assert batch.inputs[1, :2].abs().sum() == 0
    assert torch.equal(batch.inputs[1, 2], rows[1][0])
    wider = batch.under(left_padded([torch.randn(5, 4)], 9))
    assert wider.inputs.shape == (3, 5, 4)
    assert torch.equal(wider.inputs[1, 2:], rows[0])
    assert torch.equal(batch.distinct()[1], torch.arange(2))
    with pytest.raises(ValueError, match="ids cannot stand"):
        batch.under(left_padded([[1]], 0))


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_nothing_to_go_on_from_is_refused(rows) -> None:
    with pytest.raises(ValueError, match="none of them empty"):
        left_padded(rows, 0)


def test_a_mask_that_does_not_fit_is_refused() -> None:
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="bool mask"):
        PromptBatch(ids, torch.ones(2, 3))
    with pytest.raises(ValueError, match="bool mask"):
        PromptBatch(ids, torch.ones(2, 2, dtype=torch.bool))
    right = torch.tensor([[True, True, True], [True, True, False]])
    with pytest.raises(ValueError, match="pad on the left"):
        PromptBatch(ids, right)
