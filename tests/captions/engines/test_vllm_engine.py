"""The engine around vLLM, against a stand-in with the signatures of vLLM's own `LLM` and `SamplingParams`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines import vllm_engine
from multimodal_zoo.captions.engines.vllm_engine import VllmEngine
from multimodal_zoo.registry import build

CONF = Path(__file__).parents[3] / "conf" / "fusion_engine" / "vllm.yaml"


class Tokenizer:
    """One token a character; `<s>` is special, and stands in front of what is no conversation."""

    eos_token_id, bos_token_id, pad_token_id = 0, 1, 0
    all_special_tokens = ("<s>",)
    chat_template = "yes"

    def __call__(
        self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False, verbose: bool = True
    ) -> Any:
        del verbose
        ids = [ord(one) for one in (text if split_special_tokens else text.replace("<s>", "\x01"))]
        return SimpleNamespace(input_ids=[1, *ids] if add_special_tokens else ids)

    def decode(self, ids: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        del clean_up_tokenization_spaces
        return "".join(chr(one) for one in ids if one > 1 or not skip_special_tokens)

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        assert add_generation_prompt
        return f"<s>user: {messages[0]['content']}\n"


@dataclass(frozen=True)
class SamplingParams:
    """The fields of vLLM's own that are used."""

    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop: str | list[str] | None = None


class LLM:
    """Answers with the last word of a prompt, and notes what it was asked."""

    made: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        enable_prefix_caching: bool | None = None,
        seed: int = 0,
    ) -> None:
        LLM.made = {"model": model, "prefix": enable_prefix_caching, "length": max_model_len, "seed": seed}
        LLM.made |= {"dtype": dtype, "devices": tensor_parallel_size, "memory": gpu_memory_utilization}
        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.text: str | None = None
        self.shut = 0
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._shutdown))

    def _shutdown(self) -> None:
        self.shut += 1

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def generate(
        self, prompts: Sequence[dict[str, list[int]]], sampling_params: Sequence[SamplingParams], use_tqdm: bool = True
    ) -> list[Any]:
        assert not use_tqdm
        assert len(prompts) == len(sampling_params)
        return [self._output(one["prompt_token_ids"], how) for one, how in zip(prompts, sampling_params, strict=True)]

    def _output(self, ids: list[int], how: SamplingParams) -> Any:
        self.asked.append((ids, how))
        text = "".join(map(chr, ids)).split()[-1] if self.text is None else self.text
        finish = "length"
        for word in how.stop or ():
            if word in text:
                text, finish = text[: text.index(word)], "stop"
        return SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=list(text), finish_reason=finish)])


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module `vllm` with these."""
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


def asked(*raws: str, attempt: int = 0) -> list[Request]:
    return [Request(f"Web: {raw}", raw, (), attempt) for raw in raws]


def llm_of(engine: VllmEngine) -> LLM:
    found = engine.ready()[0]
    assert isinstance(found, LLM)
    return found


def test_it_asks_with_ids_and_shared_beginnings(folder: str) -> None:
    engine = VllmEngine(folder, max_new_tokens=9, context=99, devices=2, memory=0.5, stop=["\n"])
    LLM.made = {}
    assert engine.describe()["engine"] == "vllm_engine"
    assert not LLM.made  # nothing is read for that
    first, again = engine.answer(asked("cat") + asked("dog", attempt=3))
    assert LLM.made == {
        "model": folder, "prefix": True, "length": 99, "seed": 0, "dtype": "auto", "devices": 2, "memory": 0.5,
    }  # fmt: skip
    assert (first.text, first.ended, first.tokens, first.error) == ("cat", False, 3, None)
    assert again.text == "dog"
    (ids, greedy), (_, drawn) = llm_of(engine).asked
    assert "".join(map(chr, ids)) == "\x01Web: cat"
    assert greedy == SamplingParams(0.0, None, 9, ["\n"])
    assert drawn == SamplingParams(0.7, 3, 9, ["\n"])
    assert engine.count(["abc", "<s>"]) == [3, 3]
    assert engine.cut("abcdef", 2) == "abcd"


def test_special_strings_of_captions_stay_text(folder: str) -> None:
    engine = VllmEngine(folder, layout="chat")
    engine.answer(asked("a<s>b"))
    (ids, how), *_ = llm_of(engine).asked
    assert "".join(map(chr, ids)) == "\x01user: Web: a<s>b\n"
    assert how.stop is None


def test_stop_words_count_behind_the_first_visible_character(folder: str) -> None:
    engine = VllmEngine(folder, stop=["\n", "Web"])
    llm_of(engine).text = "\n A cat\nhere Web"
    (answer,) = engine.answer(asked("x"))
    assert (answer.text, answer.ended) == ("\n A cat", True)
    assert [how.stop for _, how in llm_of(engine).asked] == [["\n", "Web"], ["Web"]]


def test_prompts_that_are_too_long_fail_alone(folder: str) -> None:
    long, short = VllmEngine(folder, max_new_tokens=5, context=20).answer(asked("a" * 30, "b"))
    assert long.error == "a prompt of 36 tokens; expected 1 to 15"
    assert short.text == "b"
    assert VllmEngine(folder).answer([]) == []


def test_failures_of_vllm_are_the_callers(folder: str) -> None:
    engine = VllmEngine(folder)
    llm = llm_of(engine)
    llm.generate = lambda *_, **__: []  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="vLLM: 0 answers to 1 prompts"):
        engine.answer(asked("x"))
    llm.generate = lambda *_, **__: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(RuntimeError, match="vLLM: ZeroDivisionError"):
        engine.answer(asked("x"))
    engine.close()
    engine.close()
    assert llm.shut == 1
    with pytest.raises(RuntimeError, match="closed"):
        engine.answer(asked("x"))


def test_errors_name_the_key(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: dict[str, Any] = {
        "devices": 0,
        "max_new_tokens": 0,
        "context": 80,
        "memory": 1.5,
        "layout": "x",
        "stop": "\n",
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"fusion_engine.{name} is"):
            VllmEngine(folder, **{name: value})
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"GGUF file; fusion_engine=llama_cpp reads it"):
        VllmEngine(str(tmp_path / "model.gguf"))
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'multimodal_zoo\[vllm\]'"):
        VllmEngine(folder)


def test_the_preset_is_described(folder: str) -> None:
    engine = build({**yaml.safe_load(CONF.read_text()), "model": folder})
    assert json.loads(json.dumps(engine.describe())) == engine.describe()
    before = engine.describe()
    (Path(folder) / "model.safetensors").write_bytes(b"others")
    assert VllmEngine(folder, stop=["\n"]).describe() != before
