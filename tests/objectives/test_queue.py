"""The queue of neighbours against a plain list, and its life as a part of a model."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.testing import assert_close

from multimodal_zoo.objectives.image_text import NearestNeighbour
from multimodal_zoo.objectives.queue import NeighbourQueue, SharedQueue, WrappingQueue
from multimodal_zoo.registry import build

SIZE, WIDTH = 7, 5
BATCHES = (3, 1, 2, 4, 7, 2, 5, 9, 1, 6, 16, 3, 4)


def published(entries: list[Tensor], pointer: int, batch: Tensor) -> int:
    """The update of the published code, entry by entry; returns where the next batch begins."""
    for place, row in zip(range(pointer, len(entries)), batch, strict=False):
        entries[place] = row
    return 0 if pointer + len(batch) >= len(entries) else pointer + len(batch)


def wrapping(entries: list[Tensor], pointer: int, batch: Tensor) -> int:
    for number, row in enumerate(batch):
        entries[(pointer + number) % len(entries)] = row
    return (pointer + len(batch)) % len(entries)


@pytest.mark.parametrize(("part", "update"), [(NeighbourQueue, published), (WrappingQueue, wrapping)])
def test_update_is_that_of_a_list(part: type[NeighbourQueue], update: object) -> None:
    queue, pointer = part(SIZE, WIDTH), 0
    entries = list(queue.entries.clone())
    for size in BATCHES:
        batch = torch.randn(size, WIDTH) * 10
        queue.enqueue(batch)
        pointer = update(entries, pointer, batch)  # type: ignore[operator]
        assert torch.equal(queue.entries, torch.stack(entries))
        assert queue.pointer.item() == pointer
        assert_close(queue.inverse_norms, 1 / torch.stack(entries).norm(dim=1))


@pytest.mark.parametrize("block_size", [1, 3, 7, 100])
def test_nearest_by_cosine(block_size: int) -> None:
    queue = NeighbourQueue(SIZE, WIDTH)
    queue.enqueue(torch.randn(SIZE, WIDTH) * torch.logspace(-3, 3, SIZE)[:, None])
    features = torch.randn(20, WIDTH, requires_grad=True)
    found = queue.nearest(100 * features, block_size)
    expected = F.cosine_similarity(features[:, None], queue.entries, dim=-1).argmax(1)
    assert torch.equal(found.indices, expected)
    assert torch.equal(found.features, queue.entries[expected])
    assert not found.features.requires_grad


def test_of_equal_entries_the_first() -> None:
    queue = NeighbourQueue(6, 2)
    queue.enqueue(torch.tensor([[0.0, 1], [1, 0], [0, 1], [1, 0], [2, 0], [-1, 0]]))
    for block_size in (1, 2, 4, 6):
        assert queue.nearest(torch.tensor([[3.0, 0], [0, 5]]), block_size).indices.tolist() == [1, 0]


def test_an_entry_of_length_zero_is_never_nearer_than_a_right_angle() -> None:
    queue = NeighbourQueue(2, 2)
    queue.enqueue(torch.tensor([[0.0, 0], [1, 1]]))
    assert queue.nearest(torch.tensor([[1.0, 0.0]])).indices.tolist() == [1]


def test_neighbours_stay_as_they_were_when_the_queue_moves_on() -> None:
    queue = NeighbourQueue(SIZE, WIDTH)
    neighbours = queue.nearest(torch.randn(3, WIDTH)).features
    before = neighbours.clone()
    queue.enqueue(torch.randn(SIZE, WIDTH))
    assert torch.equal(neighbours, before)


def test_starts_with_random_unit_vectors_of_the_seed() -> None:
    torch.manual_seed(4)
    first, second = NeighbourQueue(50, WIDTH), NeighbourQueue(50, WIDTH)
    assert_close(first.entries.norm(dim=1), torch.ones(50))
    assert not torch.equal(first.entries, second.entries)
    torch.manual_seed(4)
    assert torch.equal(NeighbourQueue(50, WIDTH).entries, first.entries)
    second.enqueue(torch.ones(3, WIDTH))
    second.reset_parameters()
    assert second.pointer.item() == 0
    assert_close(second.entries.norm(dim=1), torch.ones(50))


@pytest.mark.parametrize("part", [NeighbourQueue, WrappingQueue])
def test_goes_on_after_a_restart_bit_for_bit(part: type[NeighbourQueue]) -> None:
    batches = [torch.randn(size, WIDTH) for size in BATCHES]
    queue, file = part(SIZE, WIDTH), io.BytesIO()
    for batch in batches[:5]:
        queue.enqueue(batch)
    torch.save(queue.state_dict(), file)
    file.seek(0)
    other = part(SIZE, WIDTH)
    other.load_state_dict(torch.load(file, weights_only=True))
    for batch in batches[5:]:
        for one in (queue, other):
            one.enqueue(batch)
        assert torch.equal(queue.nearest(batch).features, other.nearest(batch).features)
    for mine, theirs in zip(queue.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("part", [NeighbourQueue, WrappingQueue])
def test_never_waits_for_values(part: type[NeighbourQueue]) -> None:
    """Tensors without values refuse whatever would have to be known on the host."""
    with FakeTensorMode():
        queue = part(SIZE, WIDTH)
        for size in (3, 9):
            queue.enqueue(torch.randn(size, WIDTH))
            assert queue.nearest(torch.randn(size, WIDTH), 3).features.shape == (size, WIDTH)


def test_meta_device_and_filling_later() -> None:
    with torch.device("meta"):
        queue = WrappingQueue(SIZE, WIDTH)
    assert queue.entries.is_meta
    queue = queue.to_empty(device="cpu")
    queue.reset_parameters()
    queue.enqueue(torch.ones(2, WIDTH))
    assert (queue.pointer.item(), queue.nearest(torch.ones(1, WIDTH)).indices.item()) == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_of_features(dtype: torch.dtype) -> None:
    queue = NeighbourQueue(SIZE, WIDTH)
    features = torch.randn(SIZE, WIDTH).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        queue.enqueue(features)
        found = queue.nearest(features)
    assert torch.equal(queue.entries, features.float())
    assert torch.equal(found.indices, torch.arange(SIZE))


def test_batch_of_nothing() -> None:
    queue = NeighbourQueue(SIZE, WIDTH)
    before = queue.entries.clone()
    queue.enqueue(torch.ones(0, WIDTH))
    assert torch.equal(queue.entries, before)
    assert queue.pointer.item() == 0
    assert queue.nearest(torch.ones(0, WIDTH)).features.shape == (0, WIDTH)


def test_parts_are_built_by_name() -> None:
    assert isinstance(build({"type": "neighbour_queue", "size": 3, "width": 2}), NeighbourQueue)
    assert repr(build({"type": "wrapping_queue", "size": 3, "width": 2})) == "WrappingQueue(size=3, width=2)"


@pytest.mark.parametrize("key", ["size", "width"])
def test_sizes_below_one_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"{key} is 0.*queue\.{key}"):
        NeighbourQueue(**{"size": 3, "width": 2, key: 0})


def test_other_features_are_refused() -> None:
    queue = NeighbourQueue(SIZE, WIDTH)
    for call in (queue.nearest, queue.enqueue):
        with pytest.raises(ValueError, match=r"must be \(batch, 5\), not \(2, 6\)"):
            call(torch.ones(2, 6))
    with pytest.raises(ValueError, match="block_size is 0"):
        queue.nearest(torch.ones(2, WIDTH), 0)


def test_half_precision_models_keep_the_queue_in_float32() -> None:
    queue = NeighbourQueue(SIZE, WIDTH)
    before = queue.entries.clone()
    queue.to(torch.bfloat16)
    assert queue.entries.dtype == queue.inverse_norms.dtype == torch.float32
    assert torch.equal(queue.entries, before)
    assert queue.pointer.dtype == torch.long
    assert queue.double().entries.dtype == torch.float32
    assert queue.to("meta").entries.is_meta


def test_a_shared_queue_stores_what_all_processes_have(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "multimodal_zoo.objectives.queue"
    monkeypatch.setattr(f"{module}.world_size", lambda: 3)
    monkeypatch.setattr(f"{module}.gather", lambda rows: torch.cat([rows, 2 * rows, 3 * rows]))
    queue, batch = SharedQueue(SIZE, WIDTH), torch.randn(2, WIDTH)
    assert (queue.stored(2), NeighbourQueue(SIZE, WIDTH).stored(2)) == (6, 2)
    queue.enqueue(batch)
    assert torch.equal(queue.entries[:6], torch.cat([batch, 2 * batch, 3 * batch]))
    part = NearestNeighbour(queue, [("plain", "plain")], ["plain"])
    part.check_batch(2)
    with pytest.raises(ValueError, match=r"queue.size is 7, smaller than the batch of 9 pairs"):
        part.check_batch(3)
