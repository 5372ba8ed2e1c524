from __future__ import annotations

import pytest
import torch

from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.inference.placement import place
from multimodal_zoo.zoo import create

pytest.importorskip("accelerate")


@pytest.mark.parametrize(
    "placement",
    [
        {"cpu": "5MB", "disk": "1GB"},
        {"": "cpu", "image.blocks.layers.2": "disk", "text": "disk"},
        {"cpu": "1GB"},
        "auto",
    ],
)
def test_a_placed_model_computes_the_same(placement, tmp_path):
    model = create("eva_clip_tiny").eval()
    save_model(model, tmp_path / "model")
    placed = create(
        "eva_clip_tiny", pretrained=tmp_path / "model", placement=placement, offload_folder=tmp_path / "disk"
    )
    images, ids = torch.randn(3, 3, 48, 48), torch.randint(1, 500, (3, 12))
    with torch.no_grad():
        assert torch.equal(placed.encode_image(images), model.encode_image(images))
        assert torch.equal(placed.encode_text(ids), model.encode_text(ids))
        torch.testing.assert_close(placed(images, ids), model(images, ids), rtol=0, atol=0)
    if isinstance(placement, dict) and "disk" in (*placement, *placement.values()):
        assert "disk" in placed.placement.values()
        assert any(parameter.is_meta for parameter in placed.parameters())


def bytes_of(model, placed) -> dict[str, int]:
    """Bytes of half-precision weights on each device."""
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name
        while part not in placed:
            part = part.rpartition(".")[0]
        found[placed[part]] = found.get(placed[part], 0) + parameter.nbytes
    return found


def test_where_the_18b_goes():
    model = variant_on_meta("eva_clip_18b").half()
    two = place(model, {"cuda:0": "24GB", "cuda:1": "24GB"})
    shares = bytes_of(model, two)
    assert sum(shares.values()) == 2 * 18_325_482_241
    assert set(shares) == {"cuda:0", "cuda:1"}
    assert max(shares.values()) < 24e9
    order = [two[f"image.blocks.layers.{i}"] for i in range(48)]
    assert order == sorted(order)  # tokens cross once
    assert two["image_projection"] == two["text_projection"] == "cuda:0"  # embeddings come out in one place
    assert two["text.positions"] == two["text.token_embedding"]  # read side by side
    assert set(place(model, {"cuda:0": "80GB"}).values()) == {"cuda:0"}
    assert set(place(model, {"cuda:0": "24GB"}, "int8").values()) == {"cuda:0"}
    assert set(place(model, {"cuda:0": "12GB"}, "int4").values()) == {"cuda:0"}
    with pytest.raises(ValueError, match="too little"):
        place(model, {"cuda:0": "12GB"}, "int8")


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ("everywhere", "expected auto"),
        ({"cpu": "much"}, "memory 'much'"),
        ({"": "cpu", "image.block": "disk"}, "no such part"),
        ({"image": "cpu"}, "no device for text.positions"),
        ({"cpu": "5MB"}, "too little"),
        ({"": "disk"}, "name a folder"),
    ],
)
def test_placements_that_cannot_be_say_so(placement, message, tmp_path):
    save_model(create("eva_clip_tiny"), tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        create("eva_clip_tiny", pretrained=tmp_path / "model", placement=placement)


def test_what_an_earlier_model_left_is_not_read(tmp_path):
    save_model(create("eva_clip_tiny"), tmp_path / "model")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"offload_folder: .* is in use"):
        create(
            "eva_clip_tiny",
            pretrained=tmp_path / "model",
            placement={"": "disk"},
            offload_folder=tmp_path / "disk",
        )
