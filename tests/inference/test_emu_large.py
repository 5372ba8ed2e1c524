"""What makes Emu fit: fewer bits, several devices, a plan of both; at tiny size on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from multimodal_zoo.analysis import Setting, decoder_plan
from multimodal_zoo.analysis.formats import block_matrices, inference_bytes
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.inference.quantize import quantize, stored_bytes
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.nn.low_rank import adapted, merge_adapters
from multimodal_zoo.zoo import create

#: Least cosine of logits and of generated visual embeddings with those in full precision, over random weights
#: (measured: 0.9999 and 0.98 at the least).
LEAST = {"int8": 0.999, "int4": 0.95}
COUNT = {"emu_tiny": 8, "emu2_tiny": 9}


def results(model: nn.Module, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of a picture, logits behind it, and generated embeddings."""
    torch.manual_seed(3)
    ids = torch.cat([torch.arange(5, 9), torch.full((count,), 1), torch.arange(20, 24)])
    vision = torch.zeros(len(ids), dtype=torch.bool)
    vision[4 : 4 + count] = True
    with torch.no_grad():
        visual = model.encode(CountedImages(torch.randn(1, 3, model.image_size, model.image_size), (count,)))
        prompts = model.prompts([ids], [vision], visual, 0)
        logits = model.decoder.head(model.decoder(prompts.inputs))
        return visual, logits, model.imagine(prompts, 4)


@pytest.mark.parametrize("bits", LEAST)
@pytest.mark.parametrize("name", COUNT)
def test_fewer_bits_change_little_and_leave_pictures_alone(name, bits):
    pytest.importorskip("torchao")
    model = create(name, seed=1).eval()
    assert all(matrix.startswith("decoder.") for matrix in block_matrices(model))
    count, size = COUNT[name], stored_bytes(model)
    expected = results(model, count)
    found = results(quantize(model, bits), count)
    assert torch.equal(found[0], expected[0])  # the image encoder and the connector keep their type
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert float(torch.nn.functional.cosine_similarity(a, b, dim=-1).min()) > LEAST[bits]
    assert stored_bytes(model) < size


def test_adapters_learn_beside_matrices_of_eight_bits():
    """torchao has no gradients through its matrices of four on a CPU: these are for inference."""
    pytest.importorskip("torchao")
    adapter = "{type: low_rank, rank: 2, alpha: 2, dropout: 0.0, layers: [attention.qkv.query, attention.out, mlp.up]}"
    model = create("emu_tiny", seed=1, overrides=[f"+model.decoder.blocks.adapter={adapter}"]).eval()
    for layer in adapted(model).values():
        nn.init.normal_(layer.adapter.up, std=0.1)
    ids = torch.arange(12)[None]
    expected = model.decoder(ids).detach()
    small = quantize(model, "int8")
    adapters = {name: value for name, value in small.named_parameters() if ".adapter." in name}
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(name in adapters)
    found = small.decoder(ids)
    assert float(nn.functional.cosine_similarity(found, expected, dim=-1).min()) > LEAST["int8"]
    found.square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in adapters.values())
    with pytest.raises(ValueError, match="merge_adapters: the model is in int8"):
        merge_adapters(small)


def test_a_placed_model_computes_the_same(tmp_path):
    pytest.importorskip("accelerate")
    model = create("emu_tiny", seed=1).eval()
    save_model(model, tmp_path / "model")
    for placement in (
        {"cpu": "6MB", "disk": "1GB"},
        {"": "cpu", "image_encoder": "disk", "connector.blocks.1": "disk"},
    ):
        folder = tmp_path / f"disk{len(placement)}"
        placed = create("emu_tiny", pretrained=tmp_path / "model", placement=placement, offload_folder=folder)
        assert "disk" in placed.placement.values()
        for found, expected in zip(results(placed.eval(), 8), results(model, 8), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_plan_says_what_37_billion_parameters_take():
    model = create(
        "emu2_chat", device="meta", overrides=["model.decoder.blocks.depth=4", "model.image_encoder.blocks.depth=2"]
    )
    found = decoder_plan(
        model,
        name="emu2_chat",
        context_length=64,
        setting=Setting(batch_size=1, strategy="fsdp", devices=8),
        shared_by=4,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    split = sum(p.numel() for p in model.decoder.blocks.parameters() if p.ndim == 2)
    assert found.parameters == parameters
    assert found.shared["float32"] == 4 * (parameters - split + split // 4)
    assert found.cache["float32"] == 4 * 2 * 4 * 6656
    four, half = found.inference["int4"], found.inference["float16 / bfloat16"]
    assert 2 * (parameters - split) + split // 2 < four < 0.65 * half  # the image encoder stays whole
    assert inference_bytes(model) == found.inference
    assert "each of 4 devices in tensor parallel" in str(found.tables())
