"""The view transform against a loop over voxels and cameras."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from rigs import rig
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from multimodal_zoo.bev.cameras import Cameras, joined_frames
from multimodal_zoo.bev.fast_ray import FastRay, gather_voxels
from multimodal_zoo.bev.voxel_table import VoxelGrid, voxel_table

GRID = VoxelGrid((6, 5, 3), (5.0, 6.0, 1.5), (0.5, -1.0, 0.0))


def _by_hand(maps: torch.Tensor, cameras: Cameras, grid: VoxelGrid, overlap: str) -> torch.Tensor:
    """The volume `(x, y, z, channels)` of one sample and frame, voxel by voxel."""
    count, channels, height, width = maps.shape
    stride = -(-cameras.size[1] // width)
    volume = torch.zeros(*grid.counts, channels, dtype=maps.dtype)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in grid.counts)).tolist():
        corner = [c + (i - n / 2) * s for i, n, s, c in zip(place, grid.counts, grid.size, grid.centre, strict=True)]
        seen = []
        for camera in range(count):
            u, v, depth, _ = (cameras.lidar_to_image[0, 0, camera] @ torch.tensor([*corner, 1.0]).double()).tolist()
            if depth > 0:
                column, row = round(u / stride / depth), round(v / stride / depth)
                inside = 0 <= column < width and 0 <= row < height
                if inside and (cameras.present is None or bool(cameras.present[0, 0, camera])):
                    seen.append(maps[camera, :, row, column])
        if seen:
            chosen = {"last": seen[-1], "first": seen[0], "mean": torch.stack(seen).mean(0)}[overlap]
            volume[tuple(place)] = chosen
    return volume


@pytest.mark.parametrize("overlap", ["last", "first", "mean"])
@pytest.mark.parametrize("cameras", [1, 4, 7])
def test_every_voxel_is_filled_as_by_hand(overlap: str, cameras: int) -> None:
    seen, maps = rig(cameras), torch.randn(1, 1, cameras, 3, 8, 22)
    expected = _by_hand(maps[0, 0], seen, GRID, overlap)
    assert 0 < int(expected.any(-1).sum()) < expected[..., 0].numel()
    for lent in (False, True):
        with torch.no_grad():
            found = FastRay([GRID], overlap=overlap)([maps], seen, lent=lent)
        assert_close(found[0].unflatten(0, (3, 3)).permute(2, 3, 0, 1), expected)


def test_a_missing_camera_fills_nothing() -> None:
    seen, maps = rig(4), torch.randn(1, 1, 4, 2, 8, 22)
    present = torch.tensor([[[True, False, True, True]]])
    without = Cameras(seen.lidar_to_image, seen.size, present)
    expected = _by_hand(maps[0, 0], without, GRID, "last")
    found = FastRay([GRID])([maps], without)
    assert_close(found[0].unflatten(0, (3, 2)).permute(2, 3, 0, 1), expected)


def test_first_is_last_of_the_cameras_in_reverse() -> None:
    seen, maps = rig(5), torch.randn(1, 1, 5, 2, 8, 22)
    backwards = Cameras(seen.lidar_to_image.flip(2), seen.size)
    assert torch.equal(
        FastRay([GRID], overlap="first")([maps], seen), FastRay([GRID], overlap="last")([maps.flip(2)], backwards)
    )


@pytest.mark.parametrize("overlap", ["last", "mean"])
def test_gradients_are_those_of_the_definition(overlap: str) -> None:
    seen = rig(3, batch=2, frames=2, ahead=1.5)
    maps = torch.randn(2, 2, 3, 2, 4, 11, dtype=torch.float64, requires_grad=True)
    part = FastRay([GRID], overlap=overlap)
    assert torch.autograd.gradcheck(lambda one: part([one], seen), (maps,))


def test_batches_and_frames_do_not_mix() -> None:
    seen, maps = rig(3, batch=2, frames=2, ahead=2.0), torch.randn(2, 2, 3, 4, 8, 22)
    part = FastRay([GRID])
    whole = part([maps], seen)[:, :].unflatten(1, (3, 2, 4))
    for row in range(2):
        for frame in range(2):
            one = Cameras(seen.lidar_to_image[row : row + 1, frame : frame + 1], seen.size)
            alone = part([maps[row : row + 1, frame : frame + 1]], one)
            assert torch.equal(whole[row, :, frame].flatten(0, 1), alone[0])
    parts = [seen.frames(0, 1), seen.frames(1, 2)]
    assert torch.equal(joined_frames(parts).lidar_to_image, seen.lidar_to_image)


def test_styles_order_their_channels_as_published() -> None:
    """Height, map of the grid, frame, feature; grids outside (see the specification of styles v2 to v4)."""
    seen = rig(3, frames=2, ahead=1.0)
    fine, coarse = torch.randn(1, 2, 3, 2, 8, 22), torch.randn(1, 2, 3, 2, 4, 11)
    second = VoxelGrid((3, 5, 2), (10.0, 6.0, 2.0), (0.5, -1.0, 0.0))

    def volume(maps: torch.Tensor, grid: VoxelGrid) -> torch.Tensor:
        table = voxel_table(seen, maps.shape[-2:], grid, "last")
        return gather_voxels(maps, table, grid)[0].permute(2, 3, 4, 0, 1)  # (z, frame, feature, x, y)

    both = FastRay([GRID], pairs=[(0, 0), (1, 0)])([fine, coarse], seen)[0]
    assert torch.equal(both, torch.stack((volume(fine, GRID), volume(coarse, GRID)), 1).flatten(0, 3))
    twice = FastRay([GRID, second], pairs=[(0, 0), (0, 1)], resize="pool")([fine], seen)
    assert twice.shape == (1, 3 * 4 + 2 * 4, 3, 5)
    assert torch.equal(twice[0, 12:], volume(fine, second).flatten(0, 2))
    each = FastRay([GRID, second], pairs=[(0, 0), (1, 1)])
    assert each([fine, coarse], seen).shape == (1, each.channels([2, 2], 2), 6, 5)


def test_tables_are_kept_by_what_the_cameras_are() -> None:
    part, seen = FastRay([GRID], kept_tables=2).eval(), rig(3)
    (first,) = part.tables(seen, [(8, 22)])
    again = Cameras(seen.lidar_to_image.clone(), seen.size)
    assert part.tables(again, [(8, 22)])[0] is first
    assert part.tables(rig(3, ahead=0.0, batch=2), [(8, 22)])[0] is not first
    moved = seen.lidar_to_image.clone()
    moved[..., 0, 3] += 1e-9
    part.tables(Cameras(moved, seen.size), [(8, 22)])
    assert len(part._tables) == 2
    assert part.tables(seen, [(8, 22)])[0] is not first  # it was the oldest
    twin = copy.deepcopy(part)
    assert len(twin._tables) == 0
    assert not twin.training
    assert len(pickle.dumps(part)) < 4_000  # without tables too


def test_training_keeps_nothing() -> None:
    part, seen = FastRay([GRID]).eval(), rig(3)
    with torch.no_grad():
        part([torch.ones(1, 1, 3, 2, 8, 22)], seen, lent=True)
    assert len(part._tables) == 1
    part.train()
    part([torch.ones(1, 1, 3, 2, 8, 22)], seen)
    assert len(part._tables) == 0
    assert part._memories[0]._kept is None


@pytest.mark.parametrize("overlap", ["last", "mean"])
def test_what_inference_mode_left_serves_outside(overlap: str) -> None:
    part, seen, maps = FastRay([GRID], overlap=overlap).eval(), rig(3), torch.randn(1, 1, 3, 2, 8, 22)
    with torch.inference_mode():
        within = part([maps.clone()], seen.to("cpu"), lent=True).clone()
    with torch.no_grad():
        assert torch.equal(part([maps], seen, lent=True), within)
    learned = part([maps.requires_grad_()], seen)
    learned.sum().backward()
    assert torch.equal(learned, within)
    assert maps.grad is not None


def test_compiled_once_for_all_cameras() -> None:
    part, seen, maps = FastRay([GRID]).eval(), rig(3), torch.randn(1, 1, 3, 2, 8, 22)
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(part, backend=counter)
    counts = []
    with torch.no_grad():
        for step in range(6):
            moved = Cameras(seen.lidar_to_image * (1 + step / 100), seen.size)
            assert torch.equal(compiled([maps], moved), part([maps], moved))
            counts.append(counter.frame_count)
    assert counts[-1] == counts[1]


def test_maps_of_other_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps of \(1, 1, 5\).*calibrations of \(1, 1, 4\)"):
        FastRay([GRID])([torch.randn(1, 1, 5, 2, 8, 22)], rig(4))


def test_half_precision_reads_the_same_pixels() -> None:
    seen, maps = rig(3), torch.randn(1, 1, 3, 2, 8, 22)
    exact = FastRay([GRID])([maps], seen)
    with torch.autocast("cpu", torch.bfloat16):
        found = FastRay([GRID])([maps.bfloat16()], seen)
    assert torch.equal(found, exact.bfloat16())


def test_memory_that_is_lent_is_written_again() -> None:
    part, seen = FastRay([GRID]), rig(3)
    with torch.no_grad():
        first = part([torch.ones(1, 1, 3, 2, 8, 22)], seen, lent=True)
        second = part([torch.zeros(1, 1, 3, 2, 8, 22)], seen, lent=True)
    assert first.data_ptr() == second.data_ptr()
    assert not bool(first.any())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlap": "best"}, "lift.overlap is 'best'"),
        ({"resize": "crop"}, "lift.resize is 'crop'"),
        ({"pairs": [(0, 1)]}, "lift.pairs"),
    ],
)
def test_wrong_words(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FastRay([GRID], **given)


def test_matrices_of_lower_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="expected float64"):
        Cameras(torch.zeros(1, 1, 6, 4, 4), (32, 88))
