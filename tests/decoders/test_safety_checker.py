"""The safety checker: cosines and thresholds by hand, the stricter check, rounding, what it sees, and blackening."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_hf
from multimodal_zoo.decoders.safety_checker import DEVIATION, MEAN, SafetyChecker
from multimodal_zoo.registry import build

CLIP = {
    "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 4, "model_type": "clip",
}  # fmt: skip


def node() -> dict[str, Any]:
    image = sizes_from_hf({"vision_config": CLIP}).node()["image"]
    return {"type": "safety_checker", "image": image, "embed_dim": 6, "concepts": 3, "special": 2}


def checker() -> SafetyChecker:
    torch.manual_seed(0)
    made: SafetyChecker = build(node(), path="safety_checker")
    for one in (*made.parameters(), made.concept_embeddings, made.special_embeddings):
        one.data.normal_()
    return made.eval()


def cosines(model: SafetyChecker, images: Tensor, of: Tensor) -> Tensor:
    """One by one."""
    with torch.no_grad():
        embedded = model.image_projection(model.image(images).pooled)
    return torch.stack([torch.stack([F.cosine_similarity(row, one, dim=0) for one in of]) for row in embedded])


def test_cosines_one_by_one() -> None:
    model, images = checker(), torch.randn(4, 3, 16, 16)
    found = model.cosines(images)
    assert_close(found.concepts, cosines(model, images, model.concept_embeddings))
    assert_close(found.special, cosines(model, images, model.special_embeddings))
    assert found.embeddings.shape == (4, 6)


@pytest.mark.parametrize(("above", "flagged"), [(-0.02, False), (0.0004, False), (0.0006, True), (0.02, True)])
def test_a_cosine_above_its_threshold_flags(above: float, flagged: bool) -> None:
    """Rounded to three decimals first; concepts and special ones alike only where they are hit."""
    model, images = checker(), torch.randn(1, 3, 16, 16)
    found = model.cosines(images)
    model.special_thresholds.fill_(2)
    model.concept_thresholds.copy_(found.concepts[0].sub(torch.tensor([-1.0, above, -1.0])))
    assert model(images).tolist() == [flagged]


@pytest.mark.parametrize(("special", "below", "flagged"), [
    (0.1, 0.009, True), (0.1, 0.0107, False), (-0.1, 0.009, False), (0.0004, 0.009, False),
])  # fmt: skip
def test_a_special_hit_makes_the_others_stricter(special: float, below: float, flagged: bool) -> None:
    """By 0.01; it flags nothing by itself."""
    model, images = checker(), torch.randn(1, 3, 16, 16)
    found = model.cosines(images)
    model.special_thresholds.copy_(found.special[0] - torch.tensor([-1.0, special]))
    model.concept_thresholds.copy_(found.concepts[0] + torch.tensor([1.0, 1.0, below]))
    assert model(images).tolist() == [flagged]


def test_each_picture_is_checked_on_its_own() -> None:
    model, images = checker(), torch.randn(3, 3, 16, 16)
    found = model.cosines(images)
    model.special_thresholds.fill_(2)
    model.concept_thresholds.copy_(torch.tensor([2.0, 2.0, float(found.concepts[1, 2]) - 0.002]))
    expected = (found.concepts[:, 2] >= found.concepts[1, 2]).tolist()
    flags = model(images)
    assert flags.tolist() == expected
    assert flags[1]
    assert torch.equal(model(images[[2, 0, 1]]), flags[[2, 0, 1]])
    pixels = torch.rand(3, 3, 8, 12) + 0.1
    black = model.blackened(pixels, flags)
    for row in range(3):
        assert torch.equal(black[row], torch.zeros(3, 8, 12) if flags[row] else pixels[row])


@pytest.mark.parametrize("size", [(48, 48), (40, 56), (56, 40), (16, 16), (9, 9)])
def test_it_sees_pictures_as_clip_does(size: tuple[int, int]) -> None:
    """The middle square, by the bicubic filter of PIL."""
    model, generator = checker(), np.random.default_rng(0)
    levels = np.clip(generator.normal(128, 40, (*size, 3)), 0, 255).astype(np.uint8)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = Image.fromarray(levels[top : top + side, left : left + side])
    small = (
        torch.from_numpy(np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1) / 255
    )
    expected = (small - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    found = model.seen(torch.from_numpy(levels).permute(2, 0, 1)[None] / 255)
    assert_close(found[0], expected, atol=0.02, rtol=0)


def test_on_meta_and_in_half_precision() -> None:
    with torch.device("meta"):
        empty = build(node(), path="safety_checker")
    assert empty.state_dict().keys() == checker().state_dict().keys()
    assert all(one.is_meta for one in empty.state_dict().values())
    model = checker()
    pixels = torch.rand(2, 3, 24, 24)
    expected = model.cosines(model.seen(pixels)).concepts
    half = model.half()
    found = half.cosines(half.seen(pixels)).concepts
    assert_close(found.float(), expected, atol=0.02, rtol=0)
