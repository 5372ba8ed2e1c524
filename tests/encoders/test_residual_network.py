"""The residual network: shapes, the two contracts it serves, errors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.encoders.residual_network import ResidualBlock, ResidualNetwork


def tiny(**values) -> ResidualNetwork:
    return ResidualNetwork(**{"image_size": 32, "width": 12, "channels": (4, 8, 12), "depths": (1, 0, 2)} | values)


def test_tokens_are_the_cells_of_the_last_map_row_by_row() -> None:
    network = tiny().eval()
    images = torch.randn(2, 3, 32, 48)
    features = network(images)
    assert features.grid == (2, 3)
    assert features.tokens.shape == (2, 6, 12)
    assert_close(features.pooled, network.pooled_norm(features.tokens.mean(1)))
    expected = network.final_norm(network.feature_maps(images)[-1]).relu()
    assert_close(features.tokens[:, 4], expected[:, :, 1, 1])


def test_feature_maps_have_the_declared_channels_and_strides() -> None:
    network = tiny()
    maps = network.feature_maps(torch.randn(1, 3, 64, 32))
    assert [m.shape[1] for m in maps] == list(network.channels)
    assert [64 // m.shape[2] for m in maps] == list(network.strides) == [4, 8, 16]


def test_a_block_is_the_sum_of_its_input_and_its_branch() -> None:
    block = ResidualBlock(3).eval()
    torch.nn.init.zeros_(block.convolution_2.weight)
    maps = torch.randn(1, 3, 5, 5)
    assert torch.equal(block(maps), maps)


def test_resetting_a_block_draws_it_anew_from_the_same_distribution() -> None:
    block, fresh = ResidualBlock(16), ResidualBlock(16)
    block(torch.randn(2, 16, 4, 4))  # moves the running statistics
    for _ in range(3):
        block.reset_parameters()
    bound = 1 / (16 * 9) ** 0.5  # PyTorch's, uniform
    for convolution, scale in ((block.convolution_1, 1.0), (block.convolution_2, 0.3)):
        assert_close(convolution.weight.std(), torch.tensor(scale * bound / 3**0.5), rtol=0.05, atol=0.0)
        assert convolution.weight.abs().max() <= scale * bound
    assert not torch.equal(block.convolution_1.weight, fresh.convolution_1.weight)
    assert torch.equal(block.norm_1.running_mean, torch.zeros(16))


def test_gradients_reach_every_parameter_and_one_image_is_enough_in_evaluation() -> None:
    network = tiny()
    network(torch.randn(4, 3, 32, 32)).pooled.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.eval()(torch.randn(1, 3, 32, 32)).pooled.shape == (1, 12)


def test_a_batch_gives_what_its_images_give_one_by_one() -> None:
    network, images = tiny().eval(), torch.randn(3, 3, 32, 32)
    alone = torch.cat([network(image[None]).pooled for image in images])
    assert_close(network(images).pooled, alone, atol=1e-5, rtol=1e-5)


def test_it_builds_on_meta_and_in_double() -> None:
    with torch.device("meta"):
        assert tiny()(torch.empty(2, 3, 32, 32, device="meta")).pooled.shape == (2, 12)
    assert tiny().double()(torch.randn(2, 3, 32, 32, dtype=torch.float64)).pooled.dtype == torch.float64


def test_sizes_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.image\.width"):
        tiny(width=13)
    with pytest.raises(ValueError, match="one entry a stage"):
        tiny(depths=(1, 1))
    with pytest.raises(ValueError, match="divisible by 16"):
        tiny()(torch.randn(1, 3, 30, 32))
    with pytest.raises(TypeError, match="expected a tensor, got list"):
        tiny()([torch.randn(3, 32, 32)])
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
        tiny()(torch.randn(1, 4, 32, 32))
