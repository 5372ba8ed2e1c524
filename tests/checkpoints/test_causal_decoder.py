"""Decoders of the LLaMA family come from Hugging Face folders and go back to them with the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointError, CheckpointMismatch, UnknownCheckpoint
from multimodal_zoo.checkpoints.store import recognise, save_model
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.causal_decoder_write import decoder_config
from multimodal_zoo.zoo import build_model, declaration, from_pretrained

SIZES = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64}
IDS = torch.randint(0, 67, (2, 9), generator=torch.Generator().manual_seed(0))
#: Class of transformers, and what its configuration says beside the sizes.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 2, "pad_token_id": 5}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "llama_biased": ("Llama", {"attention_bias": True, "head_dim": 16, "num_key_value_heads": 4}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "llama_linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e3}}),
    "llama_dynamic": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e3}, "max_position_embeddings": 6},
    ),
    "qwen2_tied": ("Qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
}


def theirs(kind: str, **changes: Any) -> Any:
    import transformers

    name, extra = KINDS[kind]
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **extra, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.head(model(IDS)) if hasattr(model, "head") else model(IDS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_same_in_both_directions(kind: str, tmp_path: Path) -> None:
    reference = theirs(kind)
    reference.save_pretrained(tmp_path / "theirs")
    model = from_pretrained(tmp_path / "theirs")
    assert_close(logits(model), logits(reference), atol=2e-5, rtol=1e-4)
    assert model.weights == str(tmp_path / "theirs")
    write_published(model, tmp_path / "again", "llama", shard_size=20_000)
    assert list((tmp_path / "again").glob("model-*.safetensors"))
    again = type(reference).from_pretrained(tmp_path / "again")
    assert_close(logits(again), logits(reference), atol=1e-6, rtol=1e-5)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert type(again.config)(**config).rope_parameters["rope_theta"] == reference.config.rope_parameters["rope_theta"]
    save_model(model, tmp_path / "ours")
    assert_close(logits(from_pretrained(tmp_path / "ours")), logits(model), atol=0, rtol=0)


def test_smollm2_is_of_the_family() -> None:
    published = {
        **SIZES,
        "model_type": "llama",
        "tie_word_embeddings": True,
        "rope_theta": 100000,
        "rope_scaling": None,
    }
    published |= {"is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1, "initializer_range": 0.04}
    node = node_from_hf(published)
    assert (node["tied"], node["rotary"]["base"], node["std"]) == (True, 1e5, 0.04)
    assert build_model(node).output is None


def test_stretched_positions_are_written_in_old_and_new_words() -> None:
    older = node_from_hf({**SIZES, "model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}})
    assert older["rotary"] == {"type": "rotary_1d_linear", "head_dim": 8, "base": 1e4, "factor": 2.0}
    dynamic = node_from_hf({**SIZES, "model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 3}})
    assert (dynamic["max_positions"], dynamic["rotary"]["trained"]) == (192, 64)
    for node in (older, dynamic):
        assert node_from_hf(decoder_config(node)) == node


def test_a_tied_matrix_may_be_in_the_file_twice(tmp_path: Path) -> None:
    reference = theirs("llama_tied")
    reference.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    matrix = state["model.embed_tokens.weight"]
    save_file({**state, "lm_head.weight": matrix.clone()}, file)
    assert_close(logits(from_pretrained(tmp_path)), logits(reference), atol=2e-5, rtol=1e-4)
    save_file({**state, "lm_head.weight": matrix + 1}, file)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs .* the configuration ties them"):
        from_pretrained(tmp_path)


def test_half_precision_is_widened_unless_it_is_asked_for(tmp_path: Path) -> None:
    theirs("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in from_pretrained(tmp_path).parameters()} == {torch.float32}
    assert {p.dtype for p in from_pretrained(tmp_path, dtype="auto").parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rope_scaling": {"type": "yarn", "factor": 2}},
            "rope_scaling is .*yarn.*takes default, linear, dynamic only",
        ),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_parameters is .*llama3"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; the decoder takes 'silu' only"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"sliding_window": 16}, "sliding_window is 16"),
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"intermediate_size": None}, "a decoder .llama. without intermediate_size"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; decoders known are llama, qwen2"),
    ],
)
def test_what_no_part_does_is_refused(change: dict[str, Any], message: str) -> None:
    config = {key: value for key, value in {**SIZES, "model_type": "llama", **change}.items() if value is not None}
    with pytest.raises(UnknownCheckpoint, match=message):
        node_from_hf(config)


def test_an_unused_window_and_split_products_change_nothing() -> None:
    plain = node_from_hf({**SIZES, "model_type": "qwen2"})
    windowed = {"sliding_window": 16, "use_sliding_window": False, "max_window_layers": 1}
    assert node_from_hf({**SIZES, "model_type": "qwen2", **windowed}) == plain
    plain = node_from_hf({**SIZES, "model_type": "llama"})
    assert node_from_hf({**SIZES, "model_type": "llama", "pretraining_tp": 4}) == plain


def test_other_models_are_not_written_as_decoders(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint, match="a decoder of the LLaMA family is a causal_decoder"):
        decoder_config(declaration("clip_tiny"))
    node = node_from_hf({**SIZES, "model_type": "llama"})
    node["blocks"]["block"]["mlp"] = {"type": "mlp", "width": 32, "hidden": 48, "activation": "gelu"}
    with pytest.raises(
        CheckpointError, match=r"no key for model\.blocks\.block\.mlp\.type=mlp.*can be written as ours"
    ):
        write_published(build_model(node), tmp_path / "out", "llama")


def test_weights_of_other_sizes_are_listed(tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointMismatch, match=r"missing .*: 9"):
        from_pretrained(tmp_path)


def test_a_bare_file_needs_its_configuration(tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path / "whole")
    file = tmp_path / "decoder.safetensors"
    (tmp_path / "whole" / "model.safetensors").rename(file)
    with pytest.raises(UnknownCheckpoint, match="keep the publisher's config file"):
        recognise(file)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert_close(logits(from_pretrained(file, config=config)), logits(theirs("llama")), atol=2e-5, rtol=1e-4)
