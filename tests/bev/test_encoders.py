"""Image encoders, pyramid and encoder in bird's-eye view; parity holds their numbers against the published code's."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.bev.bev_encoder import BevEncoder
from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.deformable import DeformableConvolution
from multimodal_zoo.bev.feature_pyramid import FeaturePyramid, LevelFusion
from multimodal_zoo.bev.residual_maps import ResidualMaps
from multimodal_zoo.bev.stage_maps import StageMaps
from multimodal_zoo.bev.token_maps import TokenMaps
from multimodal_zoo.bev.voxel_table import map_stride
from multimodal_zoo.encoders.residual_network import ResidualNetwork
from multimodal_zoo.registry import build


@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_residual_maps_have_the_stated_channels_and_strides(size: tuple[int, int]) -> None:
    encoder = ResidualMaps("resnet18").eval()
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, *size))
    assert tuple(one.shape[1] for one in maps) == encoder.channels == (64, 128, 256, 512)
    for one, stride in zip(maps, encoder.strides, strict=True):
        assert tuple(one.shape[2:]) == (-(-size[0] // stride), -(-size[1] // stride))


def test_what_is_frozen_keeps_its_numbers() -> None:
    encoder = ResidualMaps("resnet18", frozen_stages=1, frozen_norms=True).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    for name, value in encoder.named_parameters():
        assert (value.grad is None) == name.startswith(("conv1", "bn1", "layer1")), name
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert encoder.layer2[0].bn1.weight.requires_grad
    learning = ResidualMaps("resnet18").train()
    learning(torch.randn(2, 3, 32, 32))
    assert int(learning.bn1.num_batches_tracked) == 1


def test_taps_that_do_not_move_make_a_convolution() -> None:
    layer, maps = DeformableConvolution(4, 6, stride=2), torch.randn(2, 4, 9, 8)
    assert_close(layer(maps), torch.nn.functional.conv2d(maps, layer.weight, stride=2, padding=1), atol=1e-5, rtol=1e-5)
    torch.nn.init.normal_(layer.conv_offset.weight)
    layer(maps).square().sum().backward()
    assert float(layer.conv_offset.weight.grad.abs().sum()) > 0


def test_an_encoder_of_tokens_gives_maps() -> None:
    encoder = build({"type": "timm_backbone", "name": "vit_tiny_patch16_224", "width": 192, "image_size": 64})
    part = TokenMaps(encoder, width=192, patch=16, channels=[8] * 4)
    maps = part(torch.randn(2, 3, 64, 64))
    assert [tuple(one.shape) for one in maps] == [(2, 8, side, side) for side in (16, 8, 4, 2)]
    assert (part.channels, part.strides) == ((8,) * 4, (4, 8, 16, 32))
    sum(one.square().mean() for one in maps).backward()
    assert all(p.grad is not None for name, p in part.named_parameters() if not name.startswith("encoder"))


@pytest.mark.parametrize("patch", [14, 7])
def test_maps_of_tokens_have_cells_of_whole_pixels(patch: int) -> None:
    """Lifting divides pixels by a whole stride; with cells of 3.5 it would read beside the picture."""

    class Columns(torch.nn.Module):
        width = 2

        def forward(self, images: torch.Tensor) -> SimpleNamespace:
            rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
            return SimpleNamespace(grid=(rows, columns), tokens=torch.zeros(1, rows * columns, 2))

    part = TokenMaps(Columns(), width=2, patch=patch, channels=[3] * 4)
    images = torch.zeros(1, 3, 4 * patch, 16 * patch)
    cameras = Cameras(torch.eye(4).double()[None, None, None], (4 * patch, 16 * patch))
    for maps, stride in zip(part(images), part.strides, strict=True):
        assert maps.shape[-1] == math.ceil(16 * patch / stride)
        assert map_stride(cameras, maps.shape[-1]) == stride


def test_stages_of_a_tower_are_maps_and_what_is_behind_them_goes() -> None:
    tower = ResidualNetwork(image_size=32, width=8, channels=[4, 8], depths=[1, 1])
    weights = tower.state_dict()
    images = torch.randn(2, 3, 32, 48)
    expected = tower.eval().feature_maps(images)
    part = StageMaps(tower, [4, 8]).eval()
    assert_close(part(images), expected)
    assert (part.channels, part.strides) == ((4, 8), (4, 8))
    kept = {name.removeprefix("encoder.") for name in part.state_dict()}
    assert {name.split(".")[0] for name in set(weights) - kept} == {"final_norm", "pooled_norm"}
    with pytest.raises(ValueError, match=r"image_encoder\.channels is \[4, 9\].*have \[4, 8\]"):
        StageMaps(ResidualNetwork(image_size=32, width=8, channels=[4, 8], depths=[1, 1]), [4, 9])
    with pytest.raises(ValueError, match=r"Linear, which has no maps of stages; bev@model.image_encoder=token_maps"):
        StageMaps(torch.nn.Linear(1, 1), [1])
    with pytest.raises(ValueError, match=r"image_encoder\.width is 9, image_encoder\.encoder gives tokens of width 8"):
        TokenMaps(ResidualNetwork(image_size=32, width=8, channels=[4, 8], depths=[1, 1]), 9, 8, [2] * 4)


def test_a_pyramid_hands_knowledge_down_to_odd_sizes() -> None:
    pyramid = FeaturePyramid((4, 6, 8), 5).eval()
    maps = [torch.randn(1, c, *size) for c, size in ((4, (9, 11)), (6, (5, 6)), (8, (3, 3)))]
    found = pyramid(maps)
    assert [tuple(one.shape) for one in found] == [(1, 5, 9, 11), (1, 5, 5, 6), (1, 5, 3, 3)]
    changed = pyramid([maps[0], maps[1], maps[2] + 1])
    assert not torch.equal(changed[0], found[0])
    assert torch.equal(pyramid([maps[0] + 1, *maps[1:]])[1], found[1])
    fused = LevelFusion(1, 10, 7)(found)
    assert fused.shape == (1, 7, 5, 6)


def test_parts_that_do_not_fit_say_so() -> None:
    with pytest.raises(ValueError, match=r"pyramid\.in_channels"):
        FeaturePyramid((4, 6), 5)([torch.zeros(1, 4, 2, 2), torch.zeros(1, 5, 1, 1)])
    with pytest.raises(ValueError, match=r"fusions\.in_channels is 9"):
        LevelFusion(0, 9, 2)([torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 1, 1)])
    with pytest.raises(ValueError, match=r"bev_encoder\.in_channels is 8"):
        BevEncoder(8, 4, 4, 1)(torch.zeros(1, 9, 4, 4))
    with pytest.raises(ValueError, match=r"image_encoder\.name"):
        ResidualMaps("resnet19")
    with pytest.raises(ValueError, match="no bottlenecks"):
        ResidualMaps("resnet18", deformable_stages=[1])


@pytest.mark.parametrize("stride", [1, 2])
def test_the_bev_encoder_halves_once(stride: int) -> None:
    encoder = BevEncoder(6, 8, 5, depth=2, stride=stride).eval()
    found = encoder(torch.randn(2, 6, 7, 10))
    assert found.shape == (2, 5, -(-7 // stride), 10 // stride)
    assert bool((found >= 0).all())


def test_a_bev_encoder_without_a_fusing_convolution_begins_with_the_block() -> None:
    torch.manual_seed(0)
    encoder = BevEncoder(6, None, 5, depth=1).eval()
    assert not [name for name in encoder.state_dict() if name.startswith("fuse")]
    maps = torch.randn(1, 6, 7, 4)
    assert torch.equal(encoder(maps), encoder.layers(maps))
    fused = BevEncoder(6, 6, 5, depth=1).eval()
    fused.load_state_dict(encoder.state_dict(), strict=False)
    with torch.no_grad():
        fused.fuse.weight.copy_(torch.eye(6)[..., None, None])
        fused.fuse.bias.zero_()
    assert torch.allclose(fused(maps), encoder(maps), atol=1e-5)
