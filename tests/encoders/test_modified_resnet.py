"""CLIP's ResNet: its pools in other ways, the two contracts that it serves, first weights, errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.checkpoints.tables.declip import RESNET
from multimodal_zoo.encoders.attention_pool import AttentionPool2d, GridSwitchPool, MeanPool2d
from multimodal_zoo.encoders.dual_encoder import LinearProjection
from multimodal_zoo.encoders.modified_resnet import Bottleneck, ModifiedResNet


def tiny(grid: int = 2, **values) -> ModifiedResNet:
    pool = AttentionPool2d(64, heads=4, grid=grid, output=LinearProjection(64, 12, bias=True))
    return ModifiedResNet(
        **{"width": 12, "image_size": 64, "stem_width": 2, "depths": (1, 2, 1, 1), "pool": pool} | values
    )


def whole_attention(pool: AttentionPool2d, maps: torch.Tensor) -> torch.Tensor:
    """The same by torch's own attention, with queries of all tokens."""
    cells = maps.flatten(2).permute(2, 0, 1)
    tokens = torch.cat((cells.mean(0, keepdim=True), cells)) + pool.positions[:, None]
    qkv = (pool.qkv.query, pool.qkv.key, pool.qkv.value)
    identity = nn.Identity() if isinstance(pool.output, nn.Identity) else pool.output
    mixed, _ = F.multi_head_attention_forward(
        query=tokens,
        key=tokens,
        value=tokens,
        embed_dim_to_check=pool.width,
        num_heads=pool.qkv.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([layer.bias for layer in qkv]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=torch.eye(pool.width),
        out_proj_bias=torch.zeros(pool.width),
        use_separate_proj_weight=True,
        q_proj_weight=qkv[0].weight,
        k_proj_weight=qkv[1].weight,
        v_proj_weight=qkv[2].weight,
        need_weights=False,
    )
    return identity(mixed[0])


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_one_query_gives_what_all_give_forward_and_backward(projected: bool, batch: int) -> None:
    output = LinearProjection(32, 5, bias=True) if projected else None
    pool = AttentionPool2d(32, heads=4, grid=3, output=output)
    for layer in (pool.qkv.query, pool.qkv.key, pool.qkv.value):
        nn.init.normal_(layer.bias)
    maps = torch.randn(batch, 32, 3, 3, requires_grad=True)
    found, expected = pool(maps), whole_attention(pool, maps)
    assert found.shape == (batch, pool.embed_dim) == (batch, 5 if projected else 32)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    inputs = [maps, *pool.parameters()]
    ours = torch.autograd.grad(found.square().sum(), inputs)
    for one, other in zip(ours, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_switch_looks_at_the_maps_width_alone() -> None:
    attention = AttentionPool2d(8, heads=2, grid=3, output=LinearProjection(8, 5, bias=True))
    pool = GridSwitchPool(8, 3, attention, MeanPool2d(8, LinearProjection(8, 5, bias=True)))
    maps = torch.randn(1, 8, 3, 3)
    assert torch.equal(pool(maps), attention(maps))
    for shape in ((3, 4), (2, 2), (4, 4)):
        maps = torch.randn(1, 8, *shape)
        assert_close(pool(maps), pool.mean.output(maps.mean((2, 3))))
        assert pool(maps).shape == (1, 5), "a batch of one stays a batch"
    with pytest.raises(ValueError, match=r"positions for \(batch, 8, 3, 3\)"):
        pool(torch.randn(1, 8, 2, 3))


def test_pools_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image\.pool\.heads is 3; expected a divisor of the width 32"):
        AttentionPool2d(32, heads=3, grid=2)
    with pytest.raises(ValueError, match=r"output takes width 16, the pool has width 32"):
        AttentionPool2d(32, heads=4, grid=2, output=LinearProjection(16, 5))
    with pytest.raises(ValueError, match="expected the same widths in and out"):
        GridSwitchPool(32, 2, AttentionPool2d(32, heads=4, grid=2), MeanPool2d(32, LinearProjection(32, 5)))
    with pytest.raises(ValueError, match=r"expected \(batch, 2048, height, width\)"):
        MeanPool2d(2048)(torch.zeros(1, 64, 2, 2))


def test_tokens_are_the_cells_of_the_last_map_row_by_row_before_pooling() -> None:
    network = tiny().eval()
    images = torch.randn(2, 3, 64, 64)
    features, maps = network(images), network.feature_maps(images)
    assert (features.grid, features.tokens.shape) == ((2, 2), (2, 4, network.token_width))
    assert_close(features.tokens[:, 2], maps[-1][:, :, 1, 0])
    assert_close(features.pooled, network.pool(maps[-1]))
    assert [m.shape[1] for m in maps] == list(network.channels) == [8, 16, 32, 64]
    assert [64 // m.shape[2] for m in maps] == list(network.strides) == [4, 8, 16, 32]


def test_odd_sizes_are_rounded_down_by_the_pooling() -> None:
    network = tiny(pool=MeanPool2d(64, LinearProjection(64, 12))).eval()
    assert network(torch.randn(1, 3, 100, 71)).grid == (3, 2)
    assert network(torch.randn(1, 3, 32, 48)).grid == (1, 1)


def test_a_new_bottleneck_gives_its_shortcut_and_its_stride_is_a_mean() -> None:
    block = Bottleneck(8, 4, stride=2).eval()
    maps = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(maps), block.shortcut(maps).relu())
    assert_close(block.shortcut(maps), block.shortcut.norm(block.shortcut.convolution(F.avg_pool2d(maps, 2))))
    assert Bottleneck(16, 4, stride=1).shortcut is None
    assert {c.stride for c in block.modules() if isinstance(c, nn.Conv2d)} == {(1, 1)}


def test_first_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    pool = AttentionPool2d(256, heads=4, grid=7, output=LinearProjection(256, 128, bias=True))
    for weight in (pool.positions, pool.qkv.query.weight, pool.qkv.value.weight, pool.output.weight):
        assert_close(weight.std(), torch.tensor(256**-0.5), rtol=0.05, atol=0.0)
    network = tiny()
    for stage in network.stages:
        assert all(not block.norm_3.weight.any() for block in stage)


def test_gradients_reach_every_parameter() -> None:
    network = tiny()
    for stage in network.stages:
        for block in stage:
            nn.init.ones_(block.norm_3.weight)
    network(torch.randn(3, 3, 64, 64)).pooled.square().sum().backward()
    # softmax takes the same from every key: a bias of the keys moves nothing
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert_close(network.pool.qkv.key.bias.grad, torch.zeros(64), atol=1e-5, rtol=0)


def test_training_in_single_precision_keeps_its_digits() -> None:
    """Errors ten times as large, as of a channels-last batch norm on a CPU, switch ReLUs and move gradients by 1%."""
    torch.manual_seed(0)
    network, images = tiny(depths=(2, 2, 2, 2)), torch.randn(3, 3, 160, 160)
    for stage in network.stages:
        for block in stage:
            nn.init.ones_(block.norm_3.weight)
    found = network.feature_maps(images.to(memory_format=torch.channels_last))
    expected = network.double().feature_maps(images.double())
    errors = [float((a - b).square().mean().sqrt()) for a, b in zip(found, expected, strict=True)]
    assert max(errors) < 1e-5
    assert errors[0] < 2e-6


def test_half_precision_follows_the_weights_and_meta_holds_nothing() -> None:
    network = tiny().to(torch.float16).eval()
    assert network(torch.randn(1, 3, 64, 64, dtype=torch.float16)).pooled.dtype == torch.float16
    with torch.device("meta"):
        network = tiny()
        assert network(torch.empty(2, 3, 64, 64)).pooled.shape == (2, 12)


def test_sizes_and_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image\.depths is \[1, 1, 1\]"):
        tiny(depths=[1, 1, 1])
    with pytest.raises(ValueError, match=r"image\.stem_width is 3"):
        tiny(stem_width=3)
    with pytest.raises(ValueError, match=r"image\.pool maps 64 to 12; the last map has 128 channels"):
        tiny(stem_width=4)
    with pytest.raises(ValueError, match=r"sides of at least 32 pixels"):
        tiny()(torch.zeros(1, 3, 31, 64))
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
        tiny()(torch.zeros(1, 1, 64, 64))
    with pytest.raises(TypeError, match="expected a tensor, got list"):
        tiny()([])


@pytest.mark.parametrize(("depths", "stem", "grid", "batch"), [((1, 2, 1, 1), 4, 3, 2), ((2, 1, 3, 1), 6, 1, 1)])
def test_agrees_with_open_clips_through_the_published_names(
    depths: tuple[int, ...], stem: int, grid: int, batch: int
) -> None:
    from open_clip.modified_resnet import ModifiedResNet as Theirs

    torch.manual_seed(0)
    theirs = Theirs(list(depths), output_dim=10, heads=stem, image_size=32 * grid, width=stem)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(part.running_var, 0.5, 2)
    width = 32 * stem
    attention = AttentionPool2d(width, heads=stem, grid=grid, output=LinearProjection(width, 10, bias=True))
    pool = GridSwitchPool(width, grid, attention, MeanPool2d(2048, LinearProjection(2048, 10, bias=True)))
    ours = ModifiedResNet(10, 32 * grid, stem, depths, pool)
    state = {f"visual.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state |= {"visual.fc.weight": torch.zeros(10, 2048), "visual.fc.bias": torch.zeros(10)}
    found = {name.removeprefix("image."): tensor for name, tensor in RESNET.load(state).items()}
    ours.load_state_dict(found)
    images = torch.randn(batch, 3, 32 * grid, 32 * grid)
    assert_close(ours.eval()(images).pooled, theirs.eval()(images), atol=1e-5, rtol=1e-4)
    if batch > 1:
        assert_close(ours.train()(images).pooled, theirs.train()(images), atol=1e-4, rtol=1e-3)
        for name, tensor in theirs.state_dict().items():
            if "running_mean" in name:
                place = next(iter(RESNET.load({f"visual.{name}": tensor}))).removeprefix("image.")
                assert_close(ours.state_dict()[place], tensor, atol=1e-4, rtol=1e-3)
