"""Placeholders of published batches become the tokens of pictures."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.data.picture_rows import PLACEHOLDER, expanded, shown

P = PLACEHOLDER


def test_pictures_take_the_places_of_placeholders_and_labels_follow() -> None:
    row = expanded(torch.tensor([5, P, 6, P]), [3, 2])
    assert row.ids.tolist() == [5, 0, 0, 0, 6, 0, 0]
    assert row.vision.tolist() == [False, True, True, True, False, True, True]
    assert row.source.tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert row.kept == (3, 2)
    assert row.follow(torch.tensor([50, 51, 52, 53]), -100).tolist() == [50, -100, -100, -100, 52, -100, -100]
    assert row.follow(torch.tensor([True, False, True, False]), True).tolist() == [True] * 7


@pytest.mark.parametrize(("ids", "tokens"), [([7, 8], []), ([P], [4]), ([P, P], [1, 1]), ([], [])])
def test_rows_of_one_kind(ids: list[int], tokens: list[int]) -> None:
    row = expanded(torch.tensor(ids, dtype=torch.long), tokens)
    assert len(row.ids) == (sum(tokens) if tokens else len(ids))
    assert bool(row.vision.all()) == bool(tokens or not ids)
    assert row.kept == tuple(tokens)


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, (3, 2)), (7, (3, 2)), (6, (3, 1)), (5, (3, 0)), (3, (2, 0)), (1, (0, 0))]
)
def test_a_limit_cuts_through_pictures_as_the_reference_does(limit: int | None, kept: tuple[int, int]) -> None:
    whole = expanded(torch.tensor([5, P, 6, P]), [3, 2])
    row = expanded(torch.tensor([5, P, 6, P]), [3, 2], limit=limit)
    assert row.kept == kept
    assert row.ids.tolist() == whole.ids[:limit].tolist()
    assert int(row.vision.sum()) == sum(kept)


def test_another_placeholder() -> None:
    assert expanded(torch.tensor([9, 1]), [2], placeholder=9).vision.tolist() == [True, True, False]


@pytest.mark.parametrize("tokens", [[], [3], [3, 2, 1]])
def test_each_picture_needs_a_placeholder(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match=f"2 placeholders for {len(tokens)} pictures"):
        expanded(torch.tensor([5, P, 6, P]), tokens)


def test_rows_of_text_pass_a_blank_picture_over() -> None:
    rows = [torch.tensor(ids) for ids in ([1, P], [2, 3], [P, P], [4], [P])]
    assert shown(rows, 6) == [[0], [], [2, 3], [], [5]]
    for count in (4, 5, 7):
        with pytest.raises(ValueError, match=f"5 rows need 6 pictures, blank ones counted, and there are {count}"):
            shown(rows, count)
