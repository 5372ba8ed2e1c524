"""All tokens of an encoder's last layer: this library's transformers with their class token, others without."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.encoders.image_tokens import ImageTokens, image_tokens, unpooled
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.encoders.vision_transformer import VisionTransformer
from multimodal_zoo.registry import build


def transformer(prefix: bool = True) -> VisionTransformer:
    norm = {"type": "layer_norm", "width": 8, "eps": 1e-6}
    qkv = {"type": "packed_qkv_keyless", "width": 8, "heads": 2, "head_dim": 4}
    block = {
        "type": "pre_norm_block",
        "norm": norm,
        "attention": {"type": "self_attention", "width": 8, "qkv": qkv},
        "mlp": {"type": "mlp", "width": 8, "hidden": 8, "activation": "gelu"},
    }
    node = {
        "type": "vision_transformer",
        "width": 8,
        "image_size": 8,
        "patches": {"type": "patch_embedding", "width": 8, "patch_size": 2, "bias": True},
        "prefix": {"type": "class_token", "width": 8, "std": 0.5} if prefix else None,
        "blocks": {"type": "transformer", "depth": 2, "block": block},
        "pool": {"type": "class_token_pool", "norm": norm}
        if prefix
        else {"type": "mean_pool", "norm": norm, "first": 0},
    }
    return build(node, path="encoder").eval()


class Cells(nn.Module):
    """An encoder of another kind: tokens are cells of the picture itself, as wide as it has colours."""

    width = 3

    def forward(self, images: Tensor) -> ImageFeatures:
        cells = images.unfold(2, 2, 2).unfold(3, 4, 4).mean((-1, -2))
        return ImageFeatures(cells.mean((2, 3)), cells.flatten(2).transpose(1, 2), tuple(cells.shape[2:]))


def test_a_transformers_stream_with_and_without_class_token() -> None:
    images = torch.randn(2, 3, 6, 8)
    for prefix in (True, False):
        encoder = transformer(prefix)
        found = image_tokens(encoder, images)
        assert (found.grid, found.prefix) == ((3, 4), int(prefix))
        assert_close(found.tokens, encoder.stream(images))
        assert_close(found.tokens[:, found.prefix :], encoder(images).tokens)


def test_patches_keep_their_rows_and_columns() -> None:
    images = torch.randn(1, 3, 4, 8)
    found = image_tokens(Cells(), images)
    assert (found.grid, found.prefix) == ((2, 2), 0)
    assert_close(found.patches, images.unfold(2, 2, 2).unfold(3, 4, 4).mean((-1, -2)))
    numbered = torch.arange(7.0)[None, :, None]
    assert ImageTokens(numbered, (2, 3), 1).patches[0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_what_only_pooling_reads_goes() -> None:
    encoder, images = transformer(), torch.randn(1, 3, 8, 8)
    before = image_tokens(encoder, images).tokens
    assert any(name.startswith("pool.") for name in encoder.state_dict())
    encoder = unpooled(encoder)
    assert not any(name.startswith("pool.") for name in encoder.state_dict())
    assert torch.equal(image_tokens(encoder, images).tokens, before)
    other = Cells()
    assert unpooled(other) is other


def test_every_weight_of_an_encoder_without_pool_learns() -> None:
    encoder = unpooled(transformer())
    image_tokens(encoder, torch.randn(1, 3, 8, 8)).tokens.square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []
