"""EVE's embedding layers against the convolutions and loops that they stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.encoders.eve_embedding import (
    EncoderEmbedding,
    EveDirectEmbedding,
    EvePatchEmbedding,
    PooledAttention,
)
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.nn.patch_cells import cut, joined

SHAPES = [(12, 20), (9, 6), (6, 6), (13, 31)]


def first(window: int = 2, patch: int = 3, dtype: torch.dtype = torch.float64) -> EvePatchEmbedding:
    return EvePatchEmbedding(width=12, hidden=16, patch=patch, window=window, heads=4).to(dtype)


def direct(window: int = 2, patch: int = 3, dtype: torch.dtype = torch.float64) -> EveDirectEmbedding:
    return EveDirectEmbedding(width=12, hidden=8, patch=patch, window=window).to(dtype)


def images(window: int = 2, patch: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    side = window * patch
    return [torch.randn(3, max(side, high), max(side, wide), dtype=dtype) for high, wide in SHAPES]


def read(part: PooledAttention, query: Tensor, keys: Tensor) -> Tensor:
    """One query (width,) and its keys (keys, width), head by head."""
    size = part.width // part.heads
    asked = part.query(part.query_norm(query))
    key, value = part.key_value(part.key_norm(keys)).chunk(2, dim=-1)
    heads = []
    for number in range(part.heads):
        own = slice(number * size, (number + 1) * size)
        weights = (key[:, own] @ asked[own] * part.width**-0.5).softmax(0)
        heads.append(weights @ value[:, own])
    return query + part.proj(torch.cat(heads))


def by_convolution(layer: EvePatchEmbedding, image: Tensor) -> Tensor:
    """One picture as the paper has it: convolution, windows, class token, rows."""
    window = layer.window
    plane = F.conv2d(image[None], layer.patches.weight, stride=layer.patch)[0]
    rows, columns = plane.shape[1] // window, plane.shape[2] // window
    lines = []
    for row in range(rows):
        for column in range(columns):
            cell = plane[:, row * window : (row + 1) * window, column * window : (column + 1) * window].flatten(1).T
            lines.append(read(layer.local_attention, cell.mean(0), cell))
    cells = torch.stack(lines)
    tokens = [read(layer.global_attention, layer.class_token, cells)]
    for row in cells.unflatten(0, (rows, columns)):
        tokens += [*row, layer.split_token]
    return layer.projector(torch.stack(tokens))


def by_two_convolutions(layer: EveDirectEmbedding, image: Tensor) -> Tensor:
    plane = F.gelu(F.conv2d(image[None], layer.patches.weight, layer.patches.bias, stride=layer.patch))
    cells = F.conv2d(plane, layer.cells.weight, layer.cells.bias, stride=layer.window)[0]
    tokens = [layer.class_token]
    for row in cells.permute(1, 2, 0):
        tokens += [*row, layer.split_token]
    return torch.stack(tokens)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize(("make", "second"), [(first, by_convolution), (direct, by_two_convolutions)])
def test_pictures_of_many_sizes_at_once_forward_and_backward(make: Any, second: Any, window: int) -> None:
    layer, pictures = make(window), images(window)
    cells = joined([cut(one, 3, window) for one in pictures])
    results = layer(cells), torch.cat([second(layer, one) for one in pictures])
    assert len(results[0]) == sum(cells.tokens)
    assert_close(*results)
    found, expected = (torch.autograd.grad(one.square().sum(), list(layer.parameters())) for one in results)
    assert_close(found, expected)


@pytest.mark.parametrize("make", [first, direct])
def test_one_picture_alone_and_beside_others(make: Any) -> None:
    layer, pictures = make(), [cut(one, 3, 2) for one in images()]
    together = joined(pictures)
    for alone, beside in zip(pictures, layer(together).split(together.tokens), strict=True):
        assert_close(layer(alone), beside)
    equal = joined([pictures[0]] * 2)
    assert_close(layer(equal), layer(pictures[0]).repeat(2, 1))


@pytest.mark.parametrize("make", [first, direct])
def test_gradients_reach_the_pixels(make: Any) -> None:
    layer, image = make(), torch.randn(3, 6, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda pixels: layer(cut(pixels, 3, 2)).sum(0), image)


@pytest.mark.parametrize("make", [first, direct])
def test_half_precision(make: Any) -> None:
    layer, image = make(dtype=torch.float32), torch.randn(3, 12, 18)
    expected = layer(cut(image, 3, 2))
    found = layer.half()(cut(image.half(), 3, 2))
    assert found.dtype == torch.float16
    assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("make", [first, direct])
def test_weights_survive_saving_and_drawing_anew(make: Any) -> None:
    torch.manual_seed(1)
    one, other, cells = make(), make(), cut(images()[0], 3, 2)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(cells), other(cells))
    one.reset_parameters()
    assert not torch.equal(one.class_token, other.class_token)
    assert one.split_token.std() > 0.3
    with torch.device("meta"):
        assert all(p.is_meta for p in make().parameters())


@pytest.mark.parametrize("make", [first, direct])
def test_pictures_cut_in_another_way_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"of 2 pixels and cells of 3 .* expects 3 and 2: make model.processor"):
        make()(cut(images()[0], 2, 3))
    with pytest.raises(ValueError, match="width 16 is no multiple of its heads, 3"):
        EvePatchEmbedding(width=12, hidden=16, patch=3, window=2, heads=3)


class Squares(nn.Module):
    """An image encoder whose patches are linear maps of squares of four pixels."""

    width, prefix_length = 6, 1

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 6, 4, stride=4)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> ImageFeatures:
        plane = self.drop(self.map(images))
        tokens = plane.flatten(2).transpose(1, 2)
        return ImageFeatures(tokens.mean(1), tokens, plane.shape[-2:])


def test_tokens_of_an_image_encoder() -> None:
    layer = EncoderEmbedding(width=12, encoder=Squares(), patch=4).train()
    pictures = torch.randn(2, 3, 8, 12)
    found = layer(joined([cut(one, 4, 1) for one in pictures])).unflatten(0, (2, 9))
    patches = layer.encoder.map(pictures).flatten(2).transpose(1, 2)  # frozen, so without dropout
    projected = layer.projector(patches)
    for one, tokens in zip(found, projected, strict=True):
        expected = [layer.class_token, *tokens[:3], layer.split_token, *tokens[3:], layer.split_token]
        assert_close(one, torch.stack(expected))
    found.sum().backward()
    assert {name for name, p in layer.named_parameters() if p.grad is None} == {
        "encoder.map.weight",
        "encoder.map.bias",
    }


def test_an_encoder_that_learns_and_pictures_that_it_cannot_take() -> None:
    layer = EncoderEmbedding(width=12, encoder=Squares(), patch=4, frozen=False).train()
    assert layer.encoder.drop.training
    assert all(p.requires_grad for p in layer.parameters())
    with pytest.raises(ValueError, match=r"one size, not grids \[\(1, 1\), \(2, 1\)\]"):
        layer(joined([cut(torch.zeros(3, 4, 4), 4, 1), cut(torch.zeros(3, 8, 4), 4, 1)]))
    layer.patch = 2
    with pytest.raises(ValueError, match=r"grid is \(2, 2\), the pictures' \(4, 4\): set"):
        layer(cut(torch.zeros(3, 8, 8), 2, 1))
