"""From pixels to tokens, and the positions added to them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from multimodal_zoo.nn.patches import ConvStem, FrozenPatchEmbedding, PatchEmbedding
from multimodal_zoo.nn.positions import ClassToken, LearnedPositions, ResizablePositions, resize_positions


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width", "patch"), [(32, 32, 8), (21, 35, 7), (11, 11, 11)])
def test_patch_embedding_is_the_published_convolution(height: int, width: int, patch: int, bias: bool) -> None:
    part = PatchEmbedding(12, patch, bias).double()
    images = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    tokens, grid = part(images)
    expected = F.conv2d(images, part.weight, part.bias, stride=patch)
    assert grid == tuple(expected.shape[2:])
    assert_close(tokens, expected.flatten(2).mT)
    inputs = [images, *part.parameters()]
    found = torch.autograd.grad(tokens.pow(2).sum(), inputs)
    for one, other in zip(found, torch.autograd.grad(expected.pow(2).sum(), inputs), strict=True):
        assert_close(one, other)


def test_a_frozen_patch_embedding_never_trains_its_weight() -> None:
    part = FrozenPatchEmbedding(12, 8, bias=True)
    before, images = part.weight.clone(), torch.randn(2, 3, 16, 24, requires_grad=True)
    part.requires_grad_(True)
    part.train()
    tokens, _ = part(images)
    tokens.square().sum().backward()
    assert part.weight.grad is None, "no gradient, so no optimiser moves or decays it"
    assert part.bias is not None
    assert part.bias.grad is not None
    assert images.grad is not None, "what stands before it still trains"
    assert torch.equal(part.weight, before)
    plain = PatchEmbedding(12, 8, bias=True)
    plain.load_state_dict(part.state_dict())
    assert torch.equal(plain(images)[0], tokens), "the same names and the same sums"
    with torch.device("meta"):
        empty = FrozenPatchEmbedding(12, 8, bias=True)
    empty.load_state_dict(part.state_dict(), assign=True)
    assert not empty.weight.requires_grad


def test_channels_last_images_give_the_same_tokens() -> None:
    part = PatchEmbedding(12, 8, False)
    images = torch.randn(2, 3, 16, 24)
    assert_close(part(images.contiguous(memory_format=torch.channels_last))[0], part(images)[0])


def test_conv_stem_has_the_interface_of_patches() -> None:
    stem = ConvStem(20, 8, hidden=8)
    images = torch.randn(2, 3, 32, 48)
    tokens, grid = stem(images)
    assert (tokens.shape, grid) == ((2, 24, 20), (4, 6))
    assert_close(tokens[1, 7], stem.layers(images[1:])[0, :, 1, 1], atol=1e-5, rtol=1e-4)
    alone = torch.cat([stem(image[None])[0] for image in images])
    assert_close(tokens, alone, atol=1e-5, rtol=1e-4)


def test_images_that_do_not_fit_are_refused() -> None:
    part = PatchEmbedding(12, 8, False)
    with pytest.raises(ValueError, match="20x16 pixels do not divide into patches of 8"):
        part(torch.zeros(1, 3, 20, 16))
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
        part(torch.zeros(1, 4, 16, 16))
    with pytest.raises(ValueError, match="power of 2"):
        ConvStem(12, 12, hidden=8)
    with pytest.raises(ValueError, match="multiple of"):
        ConvStem(12, 8, hidden=6)


def test_class_tokens_come_first() -> None:
    part = ClassToken(4, std=0.02, count=2)
    tokens = torch.randn(3, 5, 4)
    out = part(tokens)
    assert torch.equal(out[:, 2:], tokens)
    assert torch.equal(out[1, :2], part.weight)


def test_positions_belong_to_one_grid_unless_resizable() -> None:
    fixed = LearnedPositions(4, image_size=32, patch_size=8, prefix=1, std=0.02)
    assert torch.equal(fixed(torch.zeros(2, 17, 4), (4, 4))[1], fixed.weight)
    with pytest.raises(ValueError, match=r"48x32 pixels; the positions are for 32x32.*resizable_positions"):
        fixed(torch.zeros(2, 25, 4), (6, 4))
    with pytest.raises(ValueError, match="image_size 30 is not a multiple of patch_size 8"):
        LearnedPositions(4, image_size=30, patch_size=8, prefix=1, std=0.02)
    free = ResizablePositions(4, image_size=32, patch_size=8, prefix=1, std=0.02)
    free.load_state_dict(fixed.state_dict())
    assert torch.equal(free.table((4, 4)), fixed.weight)
    table = free.table((6, 5))
    assert torch.equal(table[:1], fixed.weight[:1])
    square = fixed.weight[1:].view(1, 4, 4, 4).permute(0, 3, 1, 2)
    expected = F.interpolate(square, size=(6, 5), mode="bicubic", align_corners=False)
    assert_close(table[1:], expected[0].flatten(1).T)


def test_resizing_keeps_half_precision_tables_exact_where_nothing_changes() -> None:
    table = torch.randn(17, 4).half()
    assert resize_positions(table, 1, (4, 4), (4, 4)) is table
    resized = resize_positions(table, 1, (4, 4), (5, 5))
    assert resized.dtype == torch.float16
    assert torch.equal(resized[0], table[0])
