"""Rare classes come as often as frequent ones, and all processes draw the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_zoo.bev.boxes import CLASSES
from multimodal_zoo.data.balanced_order import BalancedOrder, balanced_indices, picks_per_class
from multimodal_zoo.data.camera_infos import SceneInfo, SceneObjects
from multimodal_zoo.data.camera_reader import KeyFrames
from multimodal_zoo.data.order import plan_epoch


def key_frames(rows: list[list[tuple[str, int, int]]]) -> KeyFrames:
    """Key frames of objects: class, LiDAR points, radar points."""
    infos = []
    for number, row in enumerate(rows):
        lidar, radar = (np.array([one[place] for one in row], dtype=np.int64) for place in (1, 2))
        names = tuple(one[0] for one in row)
        objects = SceneObjects(np.zeros((len(row), 9)), names, lidar, radar, lidar + radar > 0)
        eye = np.eye(4)
        infos.append(SceneInfo(str(number), "", 0, eye, eye, {}, [], [], np.zeros(2), objects, None))
    return KeyFrames(infos, Path())


@pytest.fixture
def reader() -> KeyFrames:
    rows = [[("car", 5, 0), ("pedestrian", 1, 0)] for _ in range(60)]
    for number in range(6):
        rows[number].append(("bus", 3, 0))
    rows[50].append(("trailer", 0, 4))  # radar alone
    rows[51].append(("animal", 9, 9))
    return key_frames(rows)


def test_shares(reader: KeyFrames) -> None:
    """Each class gives total / classes key frames; one that is nowhere gives none."""
    order = BalancedOrder(CLASSES)
    presence = order.presence(reader.infos)
    assert presence.sum(axis=0).tolist() == [60, 0, 0, 6, 0, 0, 0, 60, 0, 0]
    assert picks_per_class(presence) == [12, 0, 0, 12, 0, 0, 0, 12, 0, 0]
    found = order(reader, torch.Generator().manual_seed(0))
    assert len(found) == 36
    assert int((found < 6).sum()) >= 12  # every pick of the bus
    assert BalancedOrder(CLASSES, keep="valid_flag").presence(reader.infos)[50, 2]


def test_draws_are_shared(reader: KeyFrames) -> None:
    """The same key frames in every epoch and process, in another order each time."""
    orders = [BalancedOrder(CLASSES, seed=3)(reader, torch.Generator().manual_seed(n)) for n in range(2)]
    assert orders[0].tolist() != orders[1].tolist()
    assert sorted(orders[0].tolist()) == sorted(orders[1].tolist())
    assert sorted(BalancedOrder(CLASSES, seed=4)(reader, torch.Generator()).tolist()) != sorted(orders[0].tolist())
    drawn = [
        BalancedOrder(CLASSES, seed=3, redraw=True)(reader, torch.Generator().manual_seed(n)).tolist() for n in (0, 1)
    ]
    assert sorted(drawn[0]) != sorted(drawn[1])
    one = [index for plan in plan_epoch(reader, BalancedOrder(CLASSES), 4, 0, 2) for index in plan.indices]
    two = [plan_epoch(reader, BalancedOrder(CLASSES), 2, 0, 2, rank, 2) for rank in range(2)]
    assert [i for a, b in zip(*two, strict=True) for i in a.indices + b.indices] == one


def test_with_replacement() -> None:
    presence = np.zeros((10, 2), dtype=bool)
    presence[:8, 0], presence[9, 1] = True, True
    found = balanced_indices(presence, lambda count, picks: [count - 1] * picks)
    assert found == [7] * 4 + [9] * 4


def test_refusals(reader: KeyFrames) -> None:
    with pytest.raises(ValueError, match="none of 2 key frames holds an object"):
        BalancedOrder(CLASSES)(key_frames([[], []]), torch.Generator())
    with pytest.raises(ValueError, match="balanced_order needs key frames, which list has none of"):
        BalancedOrder(CLASSES)([1, 2], torch.Generator())
    with pytest.raises(ValueError, match=r"truth\.keep is 'all'"):
        BalancedOrder(CLASSES, keep="all")(reader, torch.Generator())
