"""The two towers and their meeting: what they promise beyond parity."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.encoders.dual_encoder import DualEncoder, IdentityProjection, LinearProjection, LogitScale
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.encoders.pooling import ClassTokenPool, MeanPool
from multimodal_zoo.encoders.text_transformer import ClipTextTransformer, end_positions
from multimodal_zoo.encoders.vision_transformer import VisionTransformer
from multimodal_zoo.nn.attention import SelfAttention
from multimodal_zoo.nn.mlp import Mlp
from multimodal_zoo.nn.norms import LayerNorm
from multimodal_zoo.nn.patches import ConvStem, PatchEmbedding
from multimodal_zoo.nn.positions import ClassToken, LearnedPositions, ResizablePositions
from multimodal_zoo.nn.projections import PackedProjection
from multimodal_zoo.nn.regularize import PatchDropout
from multimodal_zoo.nn.rotary import Rotary2d
from multimodal_zoo.nn.transformer import PreNormBlock, Transformer


def stack(width: int = 24, depth: int = 2, drop_path: float = 0.0) -> Transformer:
    attention = SelfAttention(width, PackedProjection(width, 2, 12, 2, True))
    block = PreNormBlock(attention, Mlp(width, 2 * width, "gelu"), LayerNorm(width, 1e-5))
    return Transformer(block, depth, drop_path)


def image_tower(size: int = 32, patch: int = 8, **parts: nn.Module | None) -> VisionTransformer:
    chosen = {
        "patches": PatchEmbedding(24, patch, bias=False),
        "blocks": stack(),
        "pool": ClassTokenPool(LayerNorm(24, 1e-5)),
        "prefix": ClassToken(24, std=0.2),
        "positions": LearnedPositions(24, size, patch, prefix=1, std=0.2),
        **parts,
    }
    return VisionTransformer(24, size, **chosen)


def text_tower(context: int = 10, vocab: int = 50) -> ClipTextTransformer:
    return ClipTextTransformer(24, context, vocab, stack(), LayerNorm(24, 1e-5), token_std=1.0, position_std=0.5)


def dual(image: nn.Module | None = None, text: nn.Module | None = None) -> DualEncoder:
    projections = LinearProjection(24, 16), LinearProjection(24, 16, bias=True)
    return DualEncoder(image or image_tower(), text or text_tower(), *projections, LogitScale(), embed_dim=16)


IDS = torch.tensor([[48, 3, 4, 49, 0, 0], [48, 49, 0, 0, 0, 0], [48, 1, 2, 3, 4, 49]])


@pytest.mark.parametrize(("size", "patch"), [(32, 8), (33, 11), (7, 7)])
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_fill_the_grid(size: int, patch: int, batch: int) -> None:
    features = image_tower(size, patch)(torch.randn(batch, 3, size, size))
    assert features.grid == (size // patch, size // patch)
    assert features.tokens.shape == (batch, math.prod(features.grid), 24)
    assert features.pooled.shape == (batch, 24)


@pytest.mark.parametrize("pool", ["class", "mean of all", "mean of patches"])
def test_pooled_alone_is_pooled_of_all(pool: str) -> None:
    norm = LayerNorm(24, 1e-5)
    parts = {"class": ClassTokenPool(norm), "mean of all": MeanPool(norm, 0), "mean of patches": MeanPool(norm, 1)}
    tower = image_tower(pool=parts[pool], rotary=Rotary2d(12)).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    whole = tower(images)
    assert_close(tower.pooled(images), whole.pooled)
    stream = tower.stream(images)
    first = {"class": stream[:, 0], "mean of all": stream.mean(1), "mean of patches": stream[:, 1:].mean(1)}
    assert_close(whole.pooled, norm(first[pool]))
    parameters = list(tower.parameters())
    gradients = [torch.autograd.grad(x.pow(3).sum(), parameters) for x in (tower.pooled(images), whole.pooled)]
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)


def test_a_tower_without_class_token_and_with_a_stem() -> None:
    tower = image_tower(
        patches=ConvStem(24, 8, hidden=8),
        prefix=None,
        positions=LearnedPositions(24, 32, 8, prefix=0, std=0.1),
        pool=MeanPool(LayerNorm(24, 1e-5), first=0),
    )
    images = torch.randn(2, 3, 32, 32)
    features = tower(images)
    assert torch.equal(features.tokens, tower.stream(images))


def test_images_of_another_size_need_resizable_positions() -> None:
    with pytest.raises(ValueError, match="40x32 pixels; the positions are for 32x32"):
        image_tower()(torch.randn(1, 3, 40, 32))
    tower = image_tower(positions=ResizablePositions(24, 32, 8, prefix=1, std=0.1))
    assert tower(torch.randn(1, 3, 40, 24)).grid == (5, 3)


def test_patch_dropout_acts_in_training_only() -> None:
    tower = image_tower(patch_dropout=PatchDropout(0.5), rotary=Rotary2d(12))
    images = torch.randn(2, 3, 32, 32)
    assert tower(images).tokens.shape[1] == 8
    assert tower.eval()(images).tokens.shape[1] == 16


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vision_transformer.norm_in has width 20, the tower has width 24"):
        image_tower(norm_in=LayerNorm(20, 1e-5))
    with pytest.raises(ValueError, match=r"positions.prefix is 1, but 0 tokens"):
        image_tower(prefix=None)
    with pytest.raises(ValueError, match=r"clip_text_transformer.blocks has width 24, the tower has width 32"):
        ClipTextTransformer(32, 10, 50, stack(), LayerNorm(32, 1e-5))


def test_the_end_is_the_first_largest_id() -> None:
    assert end_positions(torch.tensor([[48, 49, 49, 0], [48, 1, 49, 2], [0, 0, 0, 0]])).tolist() == [1, 2, 0]


def test_a_trimmed_batch_is_the_padded_batch() -> None:
    tower = text_tower().double()
    trimmed = tower(IDS)
    for padding in (0, 7, 48):
        padded = tower(nn.functional.pad(IDS, (0, 4), value=padding))
        assert_close(padded.pooled, trimmed.pooled)
        assert_close(padded.tokens[:, :6], trimmed.tokens)
    assert_close(tower.pooled(IDS), trimmed.pooled)
    for row, length in zip(range(3), (4, 2, 6), strict=True):
        alone = tower(IDS[row : row + 1, :length])
        assert_close(alone.pooled[0], trimmed.pooled[row])
        assert trimmed.mask[row].tolist() == [True] * length + [False] * (6 - length)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.tensor([[48, 50]]), r"ids run from 48 to 50; text.vocab_size is 50"),
        (torch.tensor([[-1, 49]]), r"ids run from -1"),
        (torch.zeros(1, 11, dtype=torch.long), r"at most 10 tokens \(text.context_length\)"),
        (torch.zeros(1, 3), r"torch.float32"),
        (torch.zeros(3, dtype=torch.long), r"expected integers \(batch, tokens\)"),
    ],
)
def test_ids_that_the_tower_cannot_read_are_refused(ids: Tensor, words: str) -> None:
    tower = text_tower()
    with pytest.raises(ValueError, match=words):
        tower(ids)
    with pytest.raises(ValueError, match=words):
        tower.pooled(ids)


def test_pictures_and_texts_that_are_no_tensors_yet_are_refused() -> None:
    model = zoo.create("eva_clip_tiny", overrides=["model.image.blocks.depth=1", "model.text.blocks.depth=1"])
    with pytest.raises(TypeError, match=r"expected a tensor, got list; the model's processor\.images makes one"):
        model.encode_image(["cat.png"])
    with pytest.raises(TypeError, match=r"expected a tensor, got list; the model's processor\.texts makes one"):
        model.encode_text(["a cat"])
    with pytest.raises(ValueError, match="images of 0x48 pixels"):
        model.encode_image(torch.zeros(1, 3, 0, 48))


def test_embeddings_are_normalised_and_match_the_encoders() -> None:
    model, images = dual(), torch.randn(3, 3, 32, 32)
    out = model(images, IDS)
    assert_close(out.image.norm(dim=-1), torch.ones(3))
    assert_close(out.text.norm(dim=-1), torch.ones(3))
    assert_close(out.image, model.encode_image(images))
    assert_close(out.logit_scale, torch.tensor(1 / 0.07))
    one = model(images[:1], IDS[:1])
    assert_close(one.image, out.image[:1], atol=1e-5, rtol=1e-4)
    assert_close(one.text, out.text[:1], atol=1e-5, rtol=1e-4)


class Plain(nn.Module):
    """An encoder of a user: the contract and nothing more."""

    width = 24

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 24)

    def forward(self, images: Tensor) -> ImageFeatures:
        tokens = self.layer(images.flatten(2).mT)
        return ImageFeatures(tokens.mean(1), tokens, (images.shape[2], images.shape[3]))


def test_any_encoder_with_the_contract_fits() -> None:
    images = torch.randn(2, 3, 4, 4)
    model = dual(image=Plain())
    assert_close(model.encode_image(images).norm(dim=-1), torch.ones(2))


def test_widths_that_do_not_meet_are_refused() -> None:
    parts = image_tower(), text_tower()
    with pytest.raises(ValueError, match="image_projection maps 20 to 16; the image tower has width 24"):
        DualEncoder(*parts, LinearProjection(20, 16), LinearProjection(24, 16), LogitScale(), 16)
    with pytest.raises(ValueError, match="embed_dim is 12"):
        DualEncoder(*parts, LinearProjection(24, 12), LinearProjection(24, 16), LogitScale(), 12)
    with pytest.raises(ValueError, match="use linear_projection"):
        IdentityProjection(24, 16)
    assert DualEncoder(*parts, IdentityProjection(24, 24), LinearProjection(24, 24), LogitScale(), 24).embed_dim == 24


def test_the_scale_has_a_ceiling_that_lets_gradients_down() -> None:
    scale = LogitScale(initial=50.0, maximum=100.0)
    assert_close(scale(), torch.tensor(50.0))
    scale().backward()
    assert_close(scale.weight.grad, torch.tensor(50.0))
    scale.weight.data.fill_(math.log(200.0))
    assert scale().item() == 100.0
    for sign, expected in ((1.0, 200.0), (-1.0, 0.0)):  # descent lowers the weight along a positive gradient
        scale.weight.grad = None
        (sign * scale()).backward()
        assert_close(scale.weight.grad, torch.tensor(expected))
    with pytest.raises(ValueError, match=r"logit_scale.initial is 200"):
        LogitScale(initial=200.0)


def test_double_precision_and_saved_weights(tmp_path: Path) -> None:
    model = dual().double().eval()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = dual().double().eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for one, same in zip(model(images, IDS), other(images, IDS), strict=True):
        assert one.dtype == torch.float64
        assert torch.equal(one, same)


def test_two_models_do_not_influence_each_other() -> None:
    images, small = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    first = image_tower().eval()
    before = first(images).pooled
    second = image_tower(rotary=Rotary2d(12), patch_dropout=PatchDropout(0.5), blocks=stack(drop_path=0.5))
    second(small).pooled.sum().backward()
    assert torch.equal(first(images).pooled, before)
    assert all(p.grad is None for p in first.parameters())


def test_a_meta_model_takes_real_weights() -> None:
    source = dual()
    with torch.device("meta"):
        model = dual()
        out = model(torch.empty(2, 3, 32, 32), torch.empty(2, 6, dtype=torch.long))
    assert out.image.is_meta
    model.load_state_dict(source.state_dict(), assign=True)
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(model(images, IDS).text, source(images, IDS).text)


def test_images_and_ids_are_left_as_they_are() -> None:
    images, ids = torch.randn(2, 3, 32, 32), IDS.clone()
    kept = images.clone()
    dual()(images, ids[:2])
    assert torch.equal(images, kept)
    assert torch.equal(ids, IDS)
