"""Text models of transformers in the text slot: padding, pooling, local folders, what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo import zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.encoders.text_adapters import TransformersText, text_lengths

OPTIONS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
IDS = torch.tensor([[2, 7, 0, 8, 3, 0, 0], [2, 3, 0, 0, 0, 0, 0]])


def tiny(family: str = "bert", **values: object) -> TransformersText:
    arguments = {"width": 32, "context_length": 8, "vocab_size": 60, "pad_id": 0, "options": OPTIONS} | values
    return TransformersText(family, **arguments)  # type: ignore[arg-type]


def test_padding_is_the_run_at_the_end_and_not_an_id() -> None:
    assert text_lengths(IDS, 0).tolist() == [5, 2]
    assert text_lengths(torch.zeros(2, 3, dtype=torch.long), 0).tolist() == [1, 1]
    assert text_lengths(IDS, 3).tolist() == [7, 7]
    assert tiny().eval()(IDS).mask.sum(1).tolist() == [5, 2]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_padding_changes_nothing(family: str) -> None:
    pad = 1 if family == "roberta" else 0
    tower = tiny(family, pad_id=pad).eval()
    ids = torch.where(torch.arange(7) < torch.tensor([[5], [2]]), IDS, pad)
    features = tower(ids)
    assert features.tokens.shape == (2, 7, 32)
    assert torch.equal(features.pooled, features.tokens[:, 0])
    assert_close(tower(ids[:, :5]).pooled, features.pooled, atol=1e-5, rtol=1e-5)
    assert_close(tower(ids[1:, :2]).tokens, features.tokens[1:, :2], atol=1e-5, rtol=1e-5)


def test_tokens_are_transformers_own() -> None:
    tower = tiny().eval()
    theirs = tower.model(input_ids=IDS, attention_mask=torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]]))
    assert torch.equal(tower(IDS).tokens, theirs.last_hidden_state)


def test_gradients_reach_every_parameter() -> None:
    tower = tiny(options={**OPTIONS, "hidden_dropout_prob": 0.0}).train()
    tower(IDS).pooled.square().sum().backward()
    assert not [name for name, p in tower.named_parameters() if p.grad is None]


def test_a_dual_encoder_takes_it_and_keeps_what_its_folder_said(tmp_path: Path) -> None:
    tiny(options={**OPTIONS, "intermediate_size": 40}).model.save_pretrained(tmp_path / "source")
    overrides = ["encoder@model.text=transformers_bert", "model.text.width=32", "model.text.vocab_size=60"]
    overrides += ["model.text.context_length=8", f"model.text.pretrained_folder={tmp_path / 'source'}"]
    node = zoo.declaration("clip_tiny", overrides)
    node["text"]["options"], node["processor"]["texts"] = {}, None
    model = zoo.build_model(node).eval()
    expected = model.encode_text(IDS)
    save_model(model, tmp_path / "saved")
    shutil.rmtree(tmp_path / "source")
    again = zoo.from_pretrained(tmp_path / "saved")
    assert_close(again.encode_text(IDS), expected)
    assert again.config["text"]["options"]["intermediate_size"] == 40


def test_weights_come_from_a_local_folder(tmp_path: Path) -> None:
    source = tiny().eval()
    source.model.save_pretrained(tmp_path)
    loaded = tiny(pretrained_folder=str(tmp_path)).eval()
    assert torch.equal(loaded(IDS).pooled, source(IDS).pooled)
    with pytest.raises(ValueError, match=r"text\.family is 'roberta', but .* holds a 'bert'"):
        tiny("roberta", pretrained_folder=str(tmp_path))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"text\.family is 'gpt2'; expected one that reads in both directions"):
        tiny("gpt2")
    with pytest.raises(ValueError, match=r"text\.width is 16, but the model has 32"):
        tiny(width=16)
    with pytest.raises(ValueError, match=r"text\.context_length is 600; the model has positions for 512"):
        tiny(context_length=600)
    with pytest.raises(ValueError, match=r"ids run from 0 to 60; text\.vocab_size is 60"):
        tiny()(torch.tensor([[0, 60]]))
    with pytest.raises(ValueError, match="at most 8 tokens"):
        tiny()(torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(TypeError, match="ids: expected a tensor, got list"):
        tiny()([[1]])  # type: ignore[arg-type]
