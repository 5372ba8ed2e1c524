"""Exported towers compute what the model computes, or are not left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.cli import main
from multimodal_zoo.commands.export import sides
from multimodal_zoo.export import folder as folder_module
from multimodal_zoo.export.folder import ExportMismatch, export
from multimodal_zoo.export.formats import FORMATS
from multimodal_zoo.export.towers import FixedRotary, image_tower, text_tower

pytest.importorskip("onnxruntime")
SMALL = ["model.image.blocks.depth=2", "model.text.blocks.depth=1"]


@pytest.fixture(scope="module")
def eva() -> nn.Module:
    return zoo.create("eva_clip_tiny", overrides=SMALL)


def check_graph(path: Path) -> None:
    import onnx

    graph = onnx.load(path).graph
    assert not {"Sin", "Cos"} & {node.op_type for node in graph.node}  # rotary tables are constants
    sizes = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, 48, 48]
    assert [output.name for output in graph.output] == ["image_embedding"]


@pytest.mark.parametrize("format", FORMATS)
def test_both_towers_at_every_batch_and_length(eva: nn.Module, tmp_path: Path, format: str) -> None:
    facts = export(eva, tmp_path / "out", format=format)
    assert json.loads((tmp_path / "out/export.json").read_text())["image"]["file"] == facts["image"]["file"]
    assert facts["image"]["largest_difference"] < 2e-6
    assert facts["text"]["largest_difference"] < 2e-6
    run = FORMATS[format].load(tmp_path / "out" / facts["image"]["file"], 1)
    read = FORMATS[format].load(tmp_path / "out" / facts["text"]["file"], 1)
    with torch.no_grad():
        for batch in (1, 2, 7):
            images = torch.randn(batch, 3, 48, 48)
            torch.testing.assert_close(run(images), eva.eval().encode_image(images), atol=1e-5, rtol=0)
        for shape in ((1, 1), (1, 16), (4, 6)):
            ids = torch.randint(1, 4530, shape)
            ids[:, -1] = 4530
            torch.testing.assert_close(read(ids), eva.eval().encode_text(ids), atol=1e-5, rtol=0)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "export.json",
        facts["image"]["file"],
        facts["text"]["file"],
    }
    assert facts["preprocessing"]["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert facts["preprocessing"]["resize"] == "shorter_crop"
    assert (facts["tokenizer"]["end_id"], facts["tokenizer"]["context_length"]) == (4530, 16)
    if format == "onnx":
        check_graph(tmp_path / "out/image.onnx")
    assert set(facts["versions"]) >= {"multimodal_zoo", "torch"}


def test_other_resolutions(eva: nn.Module, tmp_path: Path) -> None:
    size = (32, 56)
    facts = export(eva, tmp_path / "out", format="torch_export", towers=["image"], image_size=size)
    assert facts["preprocessing"]["size"] == size
    run = FORMATS["torch_export"].load(tmp_path / "out/image.pt2", 1)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(run(images), eva.eval().encode_image(images), atol=1e-5, rtol=0)


def test_a_tower_shares_the_weights_and_leaves_the_model_alone(eva: nn.Module) -> None:
    eva.train()
    tower = image_tower(eva, 48, 48)
    assert isinstance(tower.module.model.image.rotary, FixedRotary)
    assert not isinstance(eva.image.rotary, FixedRotary)
    assert eva.training
    assert all(module.training for module in eva.modules())
    assert not any(module.training for module in tower.module.modules())
    ours = {p.data_ptr() for p in eva.image.parameters()} | {p.data_ptr() for p in eva.image_projection.parameters()}
    assert {p.data_ptr() for p in tower.module.parameters()} == ours
    assert not isinstance(tower.eager.model.image.rotary, FixedRotary)
    assert {p.data_ptr() for p in text_tower(eva).module.parameters()}.isdisjoint(ours)


@pytest.mark.parametrize("encoder", ["clip_vit_tiny", "residual_tiny", "timm_vit", "transformers_dinov2"])
def test_every_kind_of_image_encoder(tmp_path: Path, encoder: str) -> None:
    more = {
        "timm_vit": ["model.image.name=test_vit", "model.image.width=64", "model.image.image_size=160"],
        "transformers_dinov2": [
            "model.image.width=32",
            "model.image.image_size=28",
            "model.image.options={patch_size: 14, num_hidden_layers: 1, num_attention_heads: 2}",
        ],
    }
    words = [f"encoder@model.image={encoder}", *more.get(encoder, [])]
    if encoder == "clip_vit_tiny":
        words.append("model.image.blocks.depth=1")
    model = zoo.create("clip_tiny", overrides=words)
    assert export(model, tmp_path / "out", towers=["image"])["image"]["largest_difference"] < 1e-5


def test_what_differs_is_not_left_behind(eva: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "largest_difference", lambda *_: 3e-4)
    with pytest.raises(ExportMismatch, match=r"image.pt2 differs from the model by 0.0003, more than tolerance=0.0001"):
        export(eva, tmp_path / "out", format="torch_export")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(folder_module, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(ExportMismatch):
        export(eva, tmp_path / "out", format="torch_export", towers=["text"])


def test_bad_input(eva: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of onnx, torch_export"):
        export(eva, tmp_path / "out", format="tflite")
    with pytest.raises(ValueError, match="must be some of image, text"):
        export(eva, tmp_path / "out", towers=["sound"])
    with pytest.raises(ValueError, match="do not divide into patches of 8"):
        export(eva, tmp_path / "out", image_size=(50, 48))
    with pytest.raises(ValueError, match="has no image and image_projection"):
        image_tower(nn.Linear(2, 2), 48, 48)
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ValueError, match="is in use; name another folder"):
        export(eva, tmp_path)
    assert (tmp_path / "kept").read_text() == "mine"
    for size in ("large", [3], [3, 4, 5], 0):
        with pytest.raises(ValueError, match=r"image_size: .* must be a number of pixels"):
            sides(size)
    assert (sides(None), sides(32), sides([32, 48])) == (None, (32, 32), (32, 48))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["export", "eva_clip_tiny", "format=torch_export", *SMALL]
    with pytest.raises(SystemExit):
        main(words)
    assert "weights are random" in capsys.readouterr().err
    assert main([*words, "allow_random=true", "towers=[text]"]) == 0
    said = capsys.readouterr().out
    assert "text.pt2" in said
    assert "differs from eager mode by" in said
    with pytest.raises(SystemExit):
        main([*words, "allow_random=true", "towers=[text]"])
    assert "exported is in use; name another folder, or delete it" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == ["export.json", "text.pt2"]
