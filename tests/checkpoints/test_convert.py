"""Checkpoints rewritten under other names: every pair of namings gives the same model back, files whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from multimodal_zoo.checkpoints import convert
from multimodal_zoo.checkpoints.convert import names, write_published, write_shards
from multimodal_zoo.checkpoints.errors import CheckpointError, UnknownCheckpoint
from multimodal_zoo.checkpoints.tables import eva_clip_write
from multimodal_zoo.checkpoints.tables.eva_clip_config import original_node
from multimodal_zoo.cli import main
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

BASE = {"image_size": 28, "patch_size": 7, "width": 32, "layers": 2, "head_width": 8, "eva_model_name": "eva"}
RMS = {"qkv_bias": False, "use_rms_norm": True, "mlp_ratio": 5}
GATED = {"rope": True, "pt_hw_seq_len": 4, "intp_freq": True, "naiveswiglu": True, "subln": True, "mlp_ratio": 2.6667}
TEXT = {"context_length": 6, "vocab_size": 31, "width": 16, "heads": 2, "layers": 1}


def model(**vision: Any) -> Any:
    config = {"embed_dim": 12, "vision_cfg": {**BASE, "drop_path_rate": 0.1, **vision}, "text_cfg": TEXT}
    made = build_model(original_node(config))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "logit_scale.weight":
                parameter.copy_(torch.randn_like(parameter) * 0.1 + 0.05)
        made.logit_scale.weight.fill_(torch.tensor(100.0).log().item())
    return made


def same(found: Any, wanted: Any) -> None:
    expected = wanted.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize(
    ("vision", "naming"),
    [
        (RMS, "eva_clip"),
        (RMS, "eva_clip_root_text"),
        (RMS, "eva_clip_text_scale"),
        (RMS, "hf_eva_clip"),
        (RMS, "hf_eva_clip_scaled"),
        (RMS, "ours"),
        ({}, "hf_eva_clip_scaled"),
        ({"postnorm": True, "ls_init_value": 0.1, "global_average_pool": True}, "eva_clip"),
        (GATED, "eva_clip"),
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, vision: dict[str, Any], naming: str) -> None:
    made = model(**vision)
    folder = write_published(made, tmp_path / "out", naming)
    again: Any = from_pretrained(folder)
    same(again, made)
    images, ids = torch.randn(2, 3, 28, 28), torch.tensor([[1, 2, 30]])
    with torch.no_grad():
        assert torch.equal(again(images, ids).image, made.eval()(images, ids).image)
    write_published(again, tmp_path / "back", "ours")
    same(from_pretrained(tmp_path / "back"), made)


def test_the_command_goes_from_an_original_file_to_the_hub_and_back(tmp_path: Path, capsys: Any) -> None:
    made = model(**RMS)
    write_published(made, tmp_path / "original", "eva_clip", format="pt")
    assert sorted(p.name for p in (tmp_path / "original").iterdir()) == ["eva_clip.json", "model.pt"]
    hub, back = tmp_path / "hub", tmp_path / "back"
    words = [str(tmp_path / "original" / "model.pt"), f"out={hub}", "naming=hf_eva_clip", "shard_size=0.03MB"]
    assert main(["convert", *words]) == 0
    assert "folder:" in capsys.readouterr().out
    index = json.loads((hub / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert sum(len(load_file(hub / file)) for file in files) == len(index["weight_map"])
    assert json.loads((hub / "config.json").read_text())["architectures"] == ["EvaCLIPModel"]
    assert "logit_scale" not in index["weight_map"]
    assert main(["convert", str(hub), f"out={back}", "naming=eva_clip"]) == 0
    same(from_pretrained(back), made)
    first, again = (torch.load(tmp_path / "original" / "model.pt"), load_file(back / "model.safetensors"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_types_are_the_files_own_unless_asked_for(tmp_path: Path) -> None:
    made = model(**RMS).half()
    write_published(made, tmp_path / "half", "eva_clip")
    words = ["convert", str(tmp_path / "half"), "naming=hf_eva_clip"]
    assert main([*words, f"out={tmp_path / 'kept'}"]) == 0
    assert {t.dtype for t in load_file(tmp_path / "kept" / "model.safetensors").values()} == {torch.float16}
    assert main([*words, f"out={tmp_path / 'wide'}", "dtype=float32"]) == 0
    assert {t.dtype for t in load_file(tmp_path / "wide" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "needs a file, folder"),
        (["{source}", "naming=eva_clip"], "out: give out=FOLDER"),
        (["{source}", "out={out}", "naming=eva_clap"], "expected one of ours, eva_clip"),
        (["{source}", "out={out}", "naming=ours", "sharding=3"], "sharding=3: no option 'sharding'; there are out"),
        (["{source}", "out={out}", "naming=ours", "resize=maybe"], "resize=maybe"),
        (["{source}", "out={out}", "naming=eva_clip", "shard_size=3"], "shard_size=3: expected"),
        (["{source}", "out={out}", "naming=eva_clip", "format=onnx"], "format=onnx"),
        (["{source}", "out={source}", "naming=eva_clip"], "is in use"),
        (["{source}", "out={file}", "naming=eva_clip"], "file is in use"),
        (["{source}", "out={out}", "naming=open_clip_eva"], "timm declares no such tower"),
        (["{out}", "out={out}", "naming=ours"], "no checkpoint at"),
    ],
)
def test_bad_words_get_one_readable_message(tmp_path: Path, words: list[str], expected: str, capsys: Any) -> None:
    write_published(model(), tmp_path / "source", "eva_clip")
    places = {name: tmp_path / name for name in ("source", "out", "file")}
    places["file"].touch()
    assert main(["convert", *(word.format(**places) for word in words)]) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_naming_cannot_express_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint, match=r"no SwiGLU, no sub-LN.* written as ours, eva_clip"):
        write_published(model(**GATED), tmp_path / "out", "hf_eva_clip_scaled")
    with pytest.raises(UnknownCheckpoint, match="no rotary positions, no SwiGLU, no sub-LN") as refused:
        write_published(model(**GATED), tmp_path / "out", "hf_eva_clip")
    for naming in str(refused.value).split("written as ours, ")[1].split(", "):
        write_published(model(**GATED), tmp_path / naming, naming)
        assert not naming.startswith("hf_eva_clip")
    with pytest.raises(UnknownCheckpoint, match=r"no bias in visual_projection.* written as .*hf_eva_clip_scaled"):
        write_published(model(), tmp_path / "out", "hf_eva_clip")
    warm = model(**RMS)
    with torch.no_grad():
        warm.logit_scale.weight.fill_(1.0)
    with pytest.raises(CheckpointError, match=r"hf_eva_clip cannot express this model: logit_scale\.weight must be"):
        write_published(warm, tmp_path / "out", "hf_eva_clip")
    with pytest.raises(UnknownCheckpoint, match="no EVA-CLIP"):
        write_published(create("clip_tiny", device="meta"), tmp_path / "out", "eva_clip")
    assert not (tmp_path / "out").exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(convert, "write_safetensors", full)
    with pytest.raises(OSError, match="no space"):
        write_published(model(), tmp_path / "out", "eva_clip")
    assert list(tmp_path.iterdir()) == []


def test_shards_hold_every_tensor_once(tmp_path: Path) -> None:
    state = {"a": torch.ones(10), "b": torch.ones(300), "c": torch.zeros(5), "d": torch.ones(10).half()}
    files = write_shards(tmp_path, "model", state, shard_size=200)
    assert [sorted(load_file(file)) for file in files] == [["a"], ["b"], ["c", "d"]]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in state.values())
    assert list(index["weight_map"]) == list(state)


PUBLISHED = ["eva_clip_g14", "eva_clip_l14_336", "eva_clip_e14_plus", "eva_clip_18b"]


@pytest.mark.parametrize("variant", PUBLISHED)
def test_configurations_of_the_published_variants_come_back(variant: str) -> None:
    node = declaration(variant)
    assert original_node(eva_clip_write.original_config(node)) == node


@pytest.mark.parametrize(("width", "hidden"), [(1408, 6144), (768, 2048), (1024, 2730), (1792, 15360), (7, 3)])
def test_ratios_truncate_to_the_hidden_width(width: int, hidden: int) -> None:
    assert int(width * eva_clip_write.ratio(width, hidden)) == hidden


def test_every_naming_with_a_configuration_is_offered() -> None:
    assert {"ours", "eva_clip", "hf_eva_clip", "open_clip_eva", "open_clip_eva02"} <= set(names())
