"""The patch aligning layer against loops over patches and layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.decoders.patch_aligning import PatchAligning, Taps, cells_per_patch, patch_places


def aligner(depth: int = 8, dtype: torch.dtype = torch.float64) -> PatchAligning:
    return PatchAligning(width=12, teacher_width=16, depth=depth, heads=4).to(dtype)


@pytest.mark.parametrize(
    ("depth", "every", "expected"),
    [
        (32, 4, [32, 28, 24, 20, 16, 12, 8, 4, 0]),
        (30, 4, [30, 26, 22, 18, 14, 10, 6, 2]),
        (4, 4, [4, 0]),
        (7, 3, [7, 4, 1]),
        (2, 1, [2, 1, 0]),
    ],
)
def test_tapped_layers_are_counted_from_the_top(depth: int, every: int, expected: list[int]) -> None:
    layer = PatchAligning(width=8, teacher_width=8, depth=depth, every=every)
    assert layer.taps == expected
    assert len(layer.norms) == len(layer.projections) == len(expected)


@pytest.mark.parametrize(("depth", "every", "heads"), [(3, 4, 8), (8, 9, 8), (8, 4, 3), (8, 0, 8), (8, -1, 8)])
def test_what_leaves_one_layer_is_refused(depth: int, every: int, heads: int) -> None:
    with pytest.raises(ValueError, match=r"model\.aligner"):
        PatchAligning(width=8, teacher_width=16, depth=depth, every=every, heads=heads)


def patch_by_patch(layer: PatchAligning, tapped: list[Tensor]) -> Tensor:
    """The deepest layer asks the others, head by head."""
    size, found = layer.teacher_width // layer.heads, []
    for states in zip(*tapped, strict=True):
        seen = [project(norm(one)) for project, norm, one in zip(layer.projections, layer.norms, states, strict=True)]
        heads = []
        for number in range(layer.heads):
            own = slice(number * size, (number + 1) * size)
            query, rest = seen[0][own], torch.stack([one[own] for one in seen[1:]])
            heads.append((rest @ query * layer.teacher_width**-0.5).softmax(0) @ rest)
        found.append(layer.input_layer(states[0]) + layer.output_layer(torch.cat(heads)))
    return torch.stack(found)


@pytest.mark.parametrize("depth", [8, 6])
def test_predictions_and_gradients_are_those_of_the_loop(depth: int) -> None:
    layer = aligner(depth)
    tapped = [torch.randn(5, 12, dtype=torch.float64, requires_grad=True) for _ in layer.taps]
    results = layer(tapped), patch_by_patch(layer, tapped)
    assert_close(*results)
    inputs = [*tapped, *layer.parameters()]
    found, expected = (torch.autograd.grad(one.square().sum(), inputs) for one in results)
    assert_close(found, expected)


def test_other_types_and_no_patch() -> None:
    layer = aligner(dtype=torch.float32)
    tapped = [torch.randn(5, 12) for _ in layer.taps]
    expected = layer(tapped)
    assert_close(layer.half()([one.half() for one in tapped]).float(), expected, atol=1e-2, rtol=1e-2)
    assert layer.float()([one[:0] for one in tapped]).shape == (0, 16)


def test_places_of_cells_leave_out_class_and_split_tokens() -> None:
    vision = torch.zeros(2, 20, dtype=torch.bool)
    vision[0, 3:12] = True  # 2 x 3 cells: class, 3 cells, split, 3 cells, split
    vision[1, :3] = vision[1, 6:11] = True  # 1 x 1 and 2 x 1 cells
    found = patch_places(vision, [(2, 3), (1, 1), (2, 1)], [1, 1, 1])
    assert found.flatten().tolist() == [4, 5, 6, 8, 9, 10, 21, 27, 29]


def test_places_of_several_cells_under_a_patch() -> None:
    vision = torch.ones(1, 1 + 4 * 3, dtype=torch.bool)
    found = patch_places(vision, [(4, 2)], [2])
    assert found.tolist() == [[1, 2, 4, 5], [7, 8, 10, 11]]
    with pytest.raises(ValueError, match="do not fit"):
        patch_places(vision, [(4, 2)], [3])
    with pytest.raises(ValueError, match="do not fit"):
        patch_places(vision, [(2, 2), (2, 2)], [1, 2])


def test_cells_under_each_patch_of_the_teacher() -> None:
    assert cells_per_patch([(4, 6), (2, 2)], [(0, 0, 2, 3), (5, 1, 1, 1)]) == [2, 2]
    for grid in ((4, 5), (4, 3), (1, 1)):
        with pytest.raises(ValueError, match=f"{grid[0]} x {grid[1]} cells shows 2 x 3 patches"):
            cells_per_patch([grid], [(0, 0, 2, 3)])


def test_taps_keep_the_means_of_cells_in_their_layers_only() -> None:
    streams = [torch.randn(2, 9, 4, requires_grad=True) for _ in range(5)]
    places = torch.tensor([[1, 2], [3, 4], [10, 17]])
    taps = Taps([4, 2, 0], places)
    for passed, stream in enumerate(streams):
        taps(passed, stream)
    found = taps.tapped()
    flat = [streams[layer].flatten(0, 1) for layer in (4, 2, 0)]
    assert_close(found, [one[places].mean(1) for one in flat])
    sum(one.sum() for one in found).backward()
    assert [stream.grad is not None for stream in streams] == [True, False, True, False, True]
