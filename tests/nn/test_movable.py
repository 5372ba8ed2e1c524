from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

from multimodal_zoo.nn.movable import moved, pinned


class Box(NamedTuple):
    top: int
    left: int


@dataclass
class Inner:
    to, pin_memory = moved, pinned

    rows: Tensor
    names: tuple[str, ...]


@dataclass
class Outer:
    to, pin_memory = moved, pinned

    stays: ClassVar[frozenset[str]] = frozenset({"seeds"})

    inner: Inner
    parts: tuple[Tensor, ...]
    views: dict[str, Tensor]
    boxes: list[Box]
    seeds: Tensor
    absent: Any = None

    def __post_init__(self) -> None:
        if len(self.parts) != 2:
            raise ValueError("two parts")


def test_every_tensor_moves_and_nothing_else() -> None:
    one, seeds = torch.ones(2), torch.arange(3)
    record = Outer(Inner(one, ("a",)), (one, one), {"first": one}, [Box(1, 2)], seeds)
    moved = record.to("meta")
    tensors = (moved.inner.rows, *moved.parts, *moved.views.values())
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.seeds is seeds
    assert moved.boxes == record.boxes
    assert isinstance(moved.boxes[0], Box)
    assert (moved.inner.names, moved.absent) == (("a",), None)
    assert record.inner.rows is one


class Pair(NamedTuple):
    first: Tensor
    name: str


def test_tensors_of_named_tuples_move() -> None:
    one = torch.ones(1)
    moved = Outer(Inner(one, ()), (one, one), {}, [], one, absent=[Pair(one, "a")]).to("meta").absent
    assert isinstance(moved[0], Pair)
    assert (moved[0].first.device.type, moved[0].name) == ("meta", "a")


def test_a_record_checks_itself_again() -> None:
    record = Outer(Inner(torch.ones(1), ()), (torch.ones(1),) * 2, {}, [], torch.ones(1))
    record.parts = record.parts[:1]
    with pytest.raises(ValueError, match="two parts"):
        record.to("cpu")
