"""Decoders of the LLaMA family from GGUF files: every kind of weight, every tensor accounted for, the same logits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_writer import F16, F32, Q4_1, Q8_0, f32, packed, u32, write_gguf
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.checkpoints.errors import (
    CheckpointMismatch,
    CorruptCheckpoint,
    MissingCheckpoint,
    UnknownCheckpoint,
)
from multimodal_zoo.checkpoints.files import iterate_shards, manifest, read_state_dict
from multimodal_zoo.checkpoints.locate import resolve
from multimodal_zoo.checkpoints.store import load_part, recognise, save_model
from multimodal_zoo.checkpoints.tables.gguf import GGUF, shortest
from multimodal_zoo.gguf_header import read_header
from multimodal_zoo.zoo import build_model, from_pretrained

SIZES = {"vocab_size": 70, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 40}
#: Name in a Hugging Face folder, behind the block -> in a GGUF file.
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip
IDS = torch.randint(0, 70, (2, 9), generator=torch.Generator().manual_seed(0))


def theirs(kind: str = "Llama", **changes: Any) -> Any:
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**{**SIZES, "rms_norm_eps": 1e-5, **changes})
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def facts(architecture: str = "llama", **more: Any) -> dict[str, Any]:
    sizes = {
        "embedding_length": 32, "feed_forward_length": 64, "block_count": 2, "context_length": 40,
        "attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 8,
    }  # fmt: skip
    said = {"general.architecture": architecture, **{f"{architecture}.{key}": u32(n) for key, n in sizes.items()}}
    said |= {f"{architecture}.attention.layer_norm_rms_epsilon": f32(1e-5), f"{architecture}.rope.freq_base": f32(1e4)}
    return {**said, **more}


def named(name: str) -> str:
    """The name of a Hugging Face tensor in a GGUF file."""
    stem, _, leaf = name.rpartition(".")
    if stem.startswith("model.layers."):
        number, rest = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{number}.{NAMES[rest]}.{leaf}"
    return f"{NAMES[stem]}.{leaf}"


def tensors(model: Any, turned: bool = True, kind: int = F32) -> dict[str, tuple[np.ndarray, int]]:
    """A model's tensors as llama.cpp's converter writes them; rows of queries and keys change places in LLaMA's."""
    found = {}
    for name, tensor in model.state_dict().items():
        weights = tensor.numpy()
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads and turned:
            weights = weights.reshape(heads, 2, -1, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)
        if not (name.startswith("lm_head") and model.config.tie_word_embeddings):
            found[named(name)] = (weights, kind if weights.ndim == 2 else F32)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "small.gguf", facts(), tensors(theirs()))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.head(model(IDS)) if hasattr(model, "head") else model(IDS).logits


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_model_that_was_converted(kind: str, tied: bool, tmp_path: Path) -> None:
    reference = theirs(kind, tie_word_embeddings=tied)
    path = write_gguf(
        tmp_path / "model.gguf", facts(kind.lower()), tensors(reference, turned=kind == "Llama"), version=2 + tied
    )
    model: Any = from_pretrained(path)
    assert_close(logits(model), logits(reference), atol=2e-5, rtol=1e-4)
    assert (model.output is None) == tied
    assert (model.weights, model.processor) == (str(path), None)
    assert not model.training
    assert {p.dtype for p in from_pretrained(path, dtype="auto").parameters()} == {torch.float32}


def one_by_one(raw: bytes, kind: int) -> list[float]:
    """The weights of some groups in plain Python, rounded to float32 after each product and each sum."""
    size, found = {Q4_1: 20, Q8_0: 34}[kind], []
    for start in range(0, len(raw), size):
        piece = raw[start : start + size]
        scale = np.float32(struct.unpack("<e", piece[:2])[0])
        if kind == Q8_0:
            found += [np.float32(scale * np.float32(code)) for code in struct.unpack("<32b", piece[2:])]
        else:
            low = np.float32(struct.unpack("<e", piece[2:4])[0])
            codes = [byte & 15 for byte in piece[4:]] + [byte >> 4 for byte in piece[4:]]
            found += [np.float32(np.float32(scale * np.float32(code)) + low) for code in codes]
    return found


@pytest.mark.parametrize("kind", [Q4_1, Q8_0])
def test_quantised_groups_are_what_each_number_stands_for(kind: int, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((3, 2, 64)).astype(np.float32)
    state = read_state_dict(write_gguf(tmp_path / "a.gguf", {}, {"other.weight": (weights, kind)}))
    found = state["other.weight"]
    assert found.shape == (3, 2, 64)
    assert found.flatten().tolist() == [float(x) for x in one_by_one(packed(weights, kind), kind)]
    # half a step of the coarser form: 1/15 of a group's range; one of 127 of its largest weight
    groups = weights.reshape(-1, 32)
    step = np.ptp(groups, 1) / 15 if kind == Q4_1 else np.abs(groups).max(1) / 127
    assert (np.abs(found.numpy().reshape(-1, 32) - groups) <= 0.55 * step[:, None]).all()


@pytest.mark.parametrize(("kind", "exact"), [(F32, np.float32), (F16, np.float16)])
def test_plain_floats_stay_as_they_are(kind: int, exact: Any, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    facts = {"general.alignment": u32(64)}
    path = write_gguf(tmp_path / "a.gguf", facts, {"first": (weights[0], kind), "second": (weights, kind)})
    state = read_state_dict(path)
    assert torch.equal(state["second"], torch.from_numpy(weights.astype(exact).astype(np.float32)))
    assert torch.equal(state["first"], state["second"][0])


@pytest.mark.parametrize("kind", [F16, Q8_0, Q4_1])
def test_a_stored_model_loads_the_same_from_its_own_numbers(kind: int, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", facts(), tensors(theirs(), kind=kind))
    model, reference = from_pretrained(path), theirs()
    state = read_state_dict(path)
    ours = GGUF.load(state)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, ours[name]), name
    assert {name: tuple(t.shape) for name, t in GGUF.save(model.state_dict()).items()} == {
        name: tuple(t.shape) for name, t in state.items()
    }
    error = (logits(model) - logits(reference)).abs().max() / logits(reference).std()
    assert error < {F16: 0.01, Q8_0: 0.1, Q4_1: 1.5}[kind]


def test_shapes_are_known_without_data_and_blocks_come_one_at_a_time(file: Path) -> None:
    shapes = manifest(file)
    assert all(tensor.is_meta for tensor in shapes.values())
    shards = list(iterate_shards(file))
    assert [sorted({name.split(".")[1] for name in shard}) for shard in shards if len(shard) > 1] == [["0"], ["1"]]
    whole = read_state_dict(file)
    assert {name: t.shape for name, t in whole.items()} == {name: t.shape for name, t in shapes.items()}
    source = recognise(file)
    assert (source.kind, source.naming) == ("a GGUF file of a llama decoder", GGUF)
    assert build_model(source.config, device="meta").token_embedding.weight.is_meta


def test_it_fills_the_decoder_of_a_larger_model(file: Path) -> None:
    model = nn.Module()
    model.decoder, model.other = build_model(recognise(file).config, seed=3), nn.Linear(2, 2)
    result = load_part(model, "decoder", file)
    assert (len(result.matched), result.left_out) == (len(model.decoder.state_dict()), ())
    assert_close(logits(model.decoder), logits(theirs()), atol=2e-5, rtol=1e-4)
    model.decoder = build_model({**recognise(file).config, "vocab_size": 71})
    with pytest.raises(CheckpointMismatch, match=r"token_embedding\.weight \[70, 32\], the model has \[71, 32\]"):
        load_part(model, "decoder", file)


def test_training_starts_from_it(file: Path) -> None:
    from multimodal_zoo.training.initial import initial_model

    embedding = {"type": "eve_direct_embedding", "width": 32, "hidden": 8, "patch": 4, "window": 2}
    node = {"type": "eve", "decoder": recognise(file).config, "vision_embedding": embedding}
    said: list[str] = []
    model: Any
    model, _ = initial_model({"model": node, "seed": 0, "initial_weights": {"decoder": str(file)}}, say=said.append)
    assert_close(logits(model.decoder), logits(theirs()), atol=2e-5, rtol=1e-4)
    assert said[0] == f"initial_weights.decoder: {len(model.decoder.state_dict())} tensors from {file}"
    assert {line.strip().split(".")[0] for line in said[1].splitlines()[1:]} == {"vision_embedding"}


def test_it_fills_both_branches_of_decoupled_blocks(file: Path) -> None:
    node = recognise(file).config
    blocks = {**node["blocks"], "block": {"type": "decoupled_block", "block": node["blocks"]["block"]}}
    blocks["block"]["parts"] = ["norm", "attention", "mlp"]
    model: Any = nn.Module()
    model.decoder = build_model({**node, "blocks": blocks}, seed=3)
    load_part(model, "decoder", file)
    assert_close(logits(model.decoder), logits(theirs()), atol=2e-5, rtol=1e-4)
    pictures = torch.ones_like(IDS, dtype=torch.bool)
    with torch.no_grad():
        found = model.decoder.head(model.decoder(IDS, vision=pictures))
    assert_close(found, logits(theirs()), atol=2e-5, rtol=1e-4)


def test_it_is_converted_to_a_folder_of_hugging_face(file: Path, tmp_path: Path) -> None:
    from multimodal_zoo.checkpoints.convert import write_published

    reference = theirs()
    write_published(from_pretrained(file), tmp_path / "theirs", "llama")
    again = type(reference).from_pretrained(tmp_path / "theirs")
    assert_close(logits(again), logits(reference), atol=1e-5, rtol=1e-5)


def test_a_model_is_saved_and_read_back_without_the_file(file: Path, tmp_path: Path) -> None:
    model = from_pretrained(file)
    save_model(model, tmp_path / "ours")
    file.unlink()
    again: Any = from_pretrained(tmp_path / "ours")
    assert_close(logits(again), logits(model), atol=0, rtol=0)
    assert torch.equal(again.token_embedding.weight, model.token_embedding.weight)


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(b"GGML" + bytes(60)), r"found b'GGML'; expected GGUF of version 2 or 3"),
        (lambda path: path.write_bytes(b"GGUF" + struct.pack(">I", 3) + bytes(60)), "version 50331648 .*big-endian"),
        (lambda path: path.write_bytes(b"GG"), "expected GGUF"),
        (lambda path: cut(path, 100), "ends inside its header; download it again"),
        (lambda path: cut(path, 20_000), "the file ends before .* does; download it again"),
    ],
)
def test_a_damaged_file_is_an_error(file: Path, change: Any, message: str) -> None:
    change(file)
    with pytest.raises(CorruptCheckpoint, match=message):
        from_pretrained(file)


@pytest.mark.parametrize(
    ("kind", "value", "shown"), [(8, struct.pack("<Q", 2) + b"32", "'32'"), (6, struct.pack("<f", 0.5), "0.5")]
)
def test_an_alignment_that_is_no_number_names_the_file(kind: int, value: bytes, shown: str, tmp_path: Path) -> None:
    key = b"general.alignment"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value
    (tmp_path / "a.gguf").write_bytes(head)
    with pytest.raises(ValueError, match=rf"a\.gguf: general.alignment is {shown}; expected a number above 0"):
        read_header(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "gemma2"}, "general.architecture is 'gemma2'; GGUF files are read of llama, qwen2"),
        ({"llama.rope.scaling.type": "yarn"}, "positions are stretched .yarn."),
        ({"llama.rope.dimension_count": u32(4)}, "4 of the 8 columns of a head are rotated"),
    ],
)
def test_what_no_part_can_be_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", facts(**change), tensors(theirs()))
    with pytest.raises(UnknownCheckpoint, match=message):
        from_pretrained(path)


def test_facts_that_are_not_there_are_named(tmp_path: Path) -> None:
    said, stored = facts(), tensors(theirs())
    del said["llama.block_count"]
    with pytest.raises(UnknownCheckpoint, match=r"without llama\.block_count"):
        from_pretrained(write_gguf(tmp_path / "a.gguf", said, stored))
    del stored["token_embd.weight"]
    with pytest.raises(UnknownCheckpoint, match=r"without token_embd\.weight"):
        from_pretrained(write_gguf(tmp_path / "b.gguf", facts(), stored))
    stored = tensors(theirs())
    del stored["blk.1.ffn_up.weight"]
    with pytest.raises(CheckpointMismatch, match=r"missing .*\n.*blocks\.layers\.1\.mlp\.up\.weight"):
        from_pretrained(write_gguf(tmp_path / "c.gguf", facts(), stored))


@pytest.mark.parametrize(("number", "name"), [(12, "Q4_K"), (30, "BF16"), (99, "type 99")])
def test_other_kinds_of_weights_are_named(number: int, name: str, file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index(b"blk.1.ffn_up.weight") + len(b"blk.1.ffn_up.weight") + 4 + 2 * 8
    content[place : place + 4] = struct.pack("<I", number)
    file.write_bytes(content)
    message = rf"blk\.1\.ffn_up\.weight is stored as {name}; read are F32, F16, Q4_1, Q8_0"
    with pytest.raises(UnknownCheckpoint, match=message):
        from_pretrained(file)


def test_the_shortest_number_that_float32_rounds_to() -> None:
    for number in (1e-5, 1e-6, 1e4, 100000.0, 5e5, 0.1):
        assert shortest(float(np.float32(number))) == number


def test_a_place_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "weights_of_a_test").mkdir()
    (tmp_path / "weights_of_a_test" / "__init__.py").write_text("raise RuntimeError('imported')")
    first = write_gguf(tmp_path / "weights_of_a_test" / "a.gguf", facts(), tensors(theirs()))
    assert resolve("package:weights_of_a_test") == first
    assert_close(logits(from_pretrained("package:weights_of_a_test/a.gguf")), logits(theirs()), atol=2e-5, rtol=1e-4)
    (first.parent / "b.gguf").write_bytes(first.read_bytes())
    with pytest.raises(MissingCheckpoint, match=r"holds a\.gguf, b\.gguf; choose one: package:weights_of_a_test/a"):
        resolve("package:weights_of_a_test")
    with pytest.raises(MissingCheckpoint, match=r"holds no c\.gguf; found a\.gguf, b\.gguf"):
        resolve("package:weights_of_a_test/c.gguf")
    with pytest.raises(MissingCheckpoint, match="no_such_weights is not installed: pip install no-such-weights"):
        resolve("package:no_such_weights")
    with pytest.raises(MissingCheckpoint, match="is not installed"):
        resolve("package:../weights_of_a_test")
