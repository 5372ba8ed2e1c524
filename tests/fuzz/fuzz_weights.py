"""Doors of weights: safetensors, pickles in both forms, TorchScript, GGUF, indices, model folders, configurations."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_harness import Door
from fuzz_mutations import damaged_tree, damaged_yaml
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoints"))  # its writer of GGUF files
from gguf_writer import F16, F32, Q4_1, Q8_0, f32, u32, write_gguf

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.files import manifest, read_state_dict
from multimodal_zoo.checkpoints.store import recognise, save_model

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.tensor(2.5)}


def read_both(path: Path) -> None:
    """The shapes, then the tensors with every value looked at."""
    manifest(path)
    for tensor in read_state_dict(path).values():
        tensor.double().sum()


def _safetensors(folder: Path) -> Path:
    save_file(STATE, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def _pickle(folder: Path) -> Path:
    torch.save({"state_dict": STATE, "epoch": 3}, folder / "weights.pt")
    return folder / "weights.pt"


def _old_pickle(folder: Path) -> Path:
    torch.save(STATE, folder / "weights.pth", _use_new_zipfile_serialization=False)
    return folder / "weights.pth"


def _script(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), str(folder / "scripted.pt"))
    return folder / "scripted.pt"


def _index(folder: Path) -> Path:
    for name, part in (("one", ("a.weight", "c")), ("two", ("b",))):
        save_file({key: STATE[key] for key in part}, folder / f"{name}.safetensors")
    placed = {"a.weight": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": placed}))
    return path


LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": u32(1),
    "llama.embedding_length": u32(32),
    "llama.feed_forward_length": u32(64),
    "llama.attention.head_count": u32(2),
    "llama.attention.head_count_kv": u32(1),
    "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
    "llama.context_length": u32(16),
    "llama.rope.freq_base": f32(10000.0),
    "llama.rope.dimension_count": u32(16),
    "llama.vocab_size": u32(8),
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "bc", "abc"],
    "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b", "b c", "a bc"],
    "tokenizer.ggml.bos_token_id": u32(0),
    "tokenizer.ggml.eos_token_id": u32(1),
    "tokenizer.ggml.padding_token_id": u32(1),
}


def _gguf(folder: Path) -> Path:
    random = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    tensors = {
        "token_embd.weight": (some(8, 32), Q8_0),
        "output_norm.weight": (some(32), F32),
        "blk.0.attn_norm.weight": (some(32), F32),
        "blk.0.ffn_norm.weight": (some(32), F32),
        "blk.0.attn_q.weight": (some(32, 32), F16),
        "blk.0.attn_k.weight": (some(16, 32), F16),
        "blk.0.attn_v.weight": (some(16, 32), Q4_1),
        "blk.0.attn_output.weight": (some(32, 32), Q8_0),
        "blk.0.ffn_gate.weight": (some(64, 32), Q8_0),
        "blk.0.ffn_up.weight": (some(64, 32), Q8_0),
        "blk.0.ffn_down.weight": (some(32, 64), Q8_0),
    }
    return write_gguf(folder / "model.gguf", LLAMA, tensors)


@cache
def tiny() -> Any:
    """A CLIP of a few thousand parameters."""
    return zoo.create("clip_tiny", overrides=["encoder@model.image=clip_vit_tiny", "model.text.blocks.depth=1"])


def _saved(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_model(tiny(), folder)
        return folder / name

    return make


def _run(folder: Path) -> Path:
    (folder / "checkpoints").mkdir()
    config = {"model": {"type": "dual_encoder", "card": {"name": "clip_tiny"}}, "seed": 0}
    content = {"pytorch-lightning_version": "2.6", "state_dict": STATE, "hyper_parameters": {"config": config}}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder / "checkpoints" / "last.ckpt"


CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {
        "model_type": "clip", "projection_dim": 16, "logit_scale_init_value": 2.6592,
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        },
        "text_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 99, "max_position_embeddings": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
            "eos_token_id": 98,
        },
    },
    "llama": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 99,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    },
    "open_clip": {
        "model_cfg": {
            "embed_dim": 16, "quick_gelu": False,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
            "text_cfg": {"context_length": 16, "vocab_size": 99, "width": 64, "heads": 1, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
}  # fmt: skip


def _published(kind: str, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        weights = "open_clip_model.safetensors" if kind == "open_clip" else "model.safetensors"
        save_file(STATE, folder / weights)
        (folder / name).write_text(json.dumps(CONFIGS[kind]))
        return folder / name

    return make


def recognised(path: Path) -> None:
    """The model of a folder."""
    with contextlib.suppress(CheckpointMismatch):  # the tensors are others than those of the model
        zoo.from_pretrained(path.parent)


DOORS = (
    Door("safetensors", _safetensors, read_both),
    Door("pickle in a zip (.pt)", _pickle, read_both),
    Door("pickle, old form (.pth)", _old_pickle, read_both),
    Door("TorchScript (.pt)", _script, read_both, share=50),
    Door("index of shards", _index, read_both, damaged_tree),
    Door("GGUF", _gguf, read_both),
    Door("GGUF with its tokenizer", _gguf, recognise, share=50),
    Door("model folder, weights", _saved("model.safetensors"), lambda path: zoo.from_pretrained(path.parent), share=5),
    Door(
        "model folder, config.yaml",
        _saved("config.yaml"),
        lambda path: zoo.from_pretrained(path.parent),
        damaged_yaml,
        share=10,
        names=("door",),
    ),
    Door("run folder, last.ckpt", _run, lambda path: recognise(path.parents[1]), names=("door",)),
    *(
        Door(name, _published(kind, file), recognised, damaged_tree, share=20, names=("door",))
        for name, kind, file in (
            ("config.json of a CLIP folder", "clip", "config.json"),
            ("config.json of a LLaMA folder", "llama", "config.json"),
            ("open_clip_config.json", "open_clip", "open_clip_config.json"),
        )
    ),
)
