"""The engine around our own decoders: the answers of the transformers engine on the same weights; trained students."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_writer import F16, f32, u32, write_gguf
from test_gguf import tensors as gguf_tensors

import multimodal_zoo.captions.parts  # noqa: F401
from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines import auto_engine as choosing
from multimodal_zoo.captions.engines.auto_engine import auto_engine
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import create

#: Bytes as GPT-2 writes them: letters stand for themselves, a blank and a newline for two others.
LETTERS = ["<|im_end|>", "<|im_start|>", "\u0120", "\u010a", *"abcdefghijklmnopqrstuvwxyz.,:", "ab"]
SIZES = {
    "embedding_length": 32, "feed_forward_length": 64, "block_count": 2, "context_length": 128,
    "attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 8,
}  # fmt: skip
CHAT = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
WORDS = ("a", "boats in water", "harbour, view", "b", "a lighthouse on a rock", "no: why")
REQUESTS = [Request(f"two captions describe one picture. {word} fused:", word, ()) for word in WORDS]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LLaMA with a tokenizer of letters, in one GGUF file."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        **sizes, num_key_value_heads=2, vocab_size=len(LETTERS), max_position_embeddings=128, rms_norm_eps=1e-5
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    facts: dict[str, Any] = {"general.architecture": "llama", **{f"llama.{key}": u32(n) for key, n in SIZES.items()}}
    facts |= {"llama.attention.layer_norm_rms_epsilon": f32(1e-5), "llama.rope.freq_base": f32(1e4)}
    facts |= {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": LETTERS,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(LETTERS) - 2)], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": u32(0), "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.chat_template": CHAT,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    return write_gguf(path, facts, gguf_tensors(model, kind=F16))


def engine(kind: str, model: Path | str, **options: Any) -> Any:
    return build({"type": kind, "model": str(model), "max_new_tokens": 12, **options})


@pytest.mark.parametrize(
    "options", [{}, {"beams": 3}, {"layout": "chat", "stop": ["."]}, {"beams": 2, "batch_size": 4}]
)
def test_both_engines_say_the_same(file: Path, options: dict[str, Any]) -> None:
    ours, theirs = engine("zoo_engine", file, **options), engine("transformers_engine", file, **options)
    answers = ours.answer(REQUESTS)
    assert answers == theirs.answer(REQUESTS)
    assert all(answer.text for answer in answers)
    assert ours.count(list(WORDS)) == theirs.count(list(WORDS))
    told = {**ours.describe(), "engine": "transformers_engine"}
    assert told == theirs.describe()


def test_the_weights_are_those_of_the_file(file: Path) -> None:
    ours, theirs = engine("zoo_engine", file), engine("transformers_engine", file, dtype="float16")
    mine = ours.ready().write.decoder.token_embedding.weight
    found = theirs.ready().write.decoder.model.model.embed_tokens.weight
    assert found.dtype == torch.float16
    assert torch.equal(mine, found.float())


def test_students_answer_and_untrained_ones_do_not(tmp_path: Path) -> None:
    student: Any = create("capsfus_llama_tiny", seed=3)
    folder = save_model(student, tmp_path / "random")
    with pytest.raises(ValueError, match=r"weights of .* are random \(seed 3\), saved; train them first"):
        engine("zoo_engine", folder).count(["a"])
    student.weights = "a training run"
    ours = engine("zoo_engine", save_model(student, tmp_path / "student"), beams=2)
    together = ours.answer(REQUESTS)
    assert together == [ours.answer([one])[0] for one in REQUESTS]
    assert all(answer.error is None for answer in together)


def test_a_model_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fusion_engine\.model: no checkpoint at .*nothing"):
        engine("zoo_engine", tmp_path / "nothing")


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    model: Any = create("clip_tiny", seed=3)
    model.weights = "a training run"
    with pytest.raises(ValueError, match=r"expected a causal decoder with its tokenizer"):
        engine("zoo_engine", save_model(model, tmp_path / "clip")).count(["a"])


@pytest.mark.parametrize(
    ("gpu", "llama_cpp", "folder", "chosen"),
    [
        (False, True, False, "llama_cpp_engine"),
        (False, False, False, "transformers_engine"),
        (True, True, False, "transformers_engine"),
        (False, True, True, "transformers_engine"),
    ],
)
def test_the_engine_fits_the_machine(
    gpu: bool, llama_cpp: bool, folder: bool, chosen: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(choosing, "find_spec", lambda name: llama_cpp or None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(choosing, "build", lambda config, path: made.append(dict(config)))
    auto_engine(str(tmp_path if folder else file), stop=["\n"], max_new_tokens=7, timeout=3.0)
    (config,) = made
    assert config["type"] == chosen
    assert config["stop"] == ["\n"]
    assert config["max_new_tokens"] == 7
    monkeypatch.undo()
    if find_spec("xllamacpp") or chosen != "llama_cpp_engine":
        build(config).close()  # the chosen engine takes these keys


def test_auto_answers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    found = engine("auto_engine", file)
    assert found.describe()["engine"] == "transformers_engine"
    assert found.answer(REQUESTS) == engine("transformers_engine", file).answer(REQUESTS)
