"""Tokenizers of conversations: against each other and against sentencepiece; tests/parity has the published ids."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import pytest

from multimodal_zoo.registry import build, rewritten
from multimodal_zoo.tokenizers.clip_bpe import byte_symbols
from multimodal_zoo.tokenizers.json_tokenizer import JsonTokenizer, json_node
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer, llama_node
from multimodal_zoo.tokenizers.qwen2_tokenizer import QWEN2_SPECIAL, Qwen2Tokenizer
from multimodal_zoo.tokenizers.vocabularies import SPLIT, TrainedVocabulary, packaged_ranks
from multimodal_zoo.tokenizers.words import WordTokenizer, split_special

TEXTS = ["a red kite over the red hill", "the hills are red; it's 10:45!", "kites and hills,\n\nhills and kites"] * 3
WORDS = [
    "", "It's 10:45, WE'LL walk!", "  two  spaces\n\n\nnew \t tab ", "一只小猫。", "🙂 naïve", "e\u0301", "x" * 90,
    "<|im_end|> and <|im_start|>", "a\u2581b </s>USER: c</s>", "<unk>",
]  # fmt: skip
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def qwen() -> Qwen2Tokenizer:
    return Qwen2Tokenizer(TrainedVocabulary(TEXTS, 280), SPECIAL)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, qwen: Qwen2Tokenizer) -> Path:
    """The same tokenizer as tokenizer.json."""
    from tokenizers.decoders import ByteLevel as Letters
    from tokenizers.models import BPE
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    from tokenizers import AddedToken, Regex, Tokenizer

    symbols, ranks = byte_symbols(), qwen.vocabulary.ranks()
    names = {word: "".join(symbols[byte] for byte in word) for word in ranks}
    merges = []
    for word in sorted(ranks, key=ranks.__getitem__)[256:]:  # the two parts that were last to stay apart
        parts = [word[i : i + 1] for i in range(len(word))]
        while len(parts) > 2:
            pairs = {
                i: ranks[parts[i] + parts[i + 1]] for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks
            }
            place = min(pairs, key=lambda i: (pairs[i], i))
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        merges.append((names[parts[0]], names[parts[1]]))
    made = Tokenizer(BPE({names[word]: number for word, number in ranks.items()}, merges))
    made.normalizer, made.decoder = NFC(), Letters()
    made.pre_tokenizer = Sequence([Split(Regex(SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    made.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in SPECIAL])
    path = tmp_path_factory.mktemp("json") / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sentencepiece file of LLaMA's kind."""
    sentencepiece = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4), model_writer=content, vocab_size=330, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("llama") / "tokenizer.model"
    path.write_bytes(content.getvalue())
    return path


@pytest.mark.parametrize("special", [True, False])
def test_two_ways_to_qwens_ids_agree(qwen: Qwen2Tokenizer, file: Path, special: bool) -> None:
    other = JsonTokenizer(str(file), "<|im_end|>", "<|endoftext|>")
    rows = qwen.encode(WORDS, special)
    assert rows == other.encode(WORDS, special)
    assert [qwen.decode(row) for row in rows] == [other.decode(row) for row in rows]
    assert [qwen.decode(row, True) for row in rows] == [other.decode(row, True) for row in rows]
    ours = (qwen.bos_id, qwen.eos_id, qwen.pad_id, qwen.vocab_size, qwen.special_id("<|im_start|>"))
    assert ours == (other.bos_id, other.eos_id, other.pad_id, other.vocab_size, other.special_id("<|im_start|>"))
    assert ours == (None, 282, 280, 283, 281)


def test_texts_come_back(qwen: Qwen2Tokenizer, model: Path) -> None:
    llama = LlamaTokenizer(str(model))
    for text in WORDS[:5]:
        assert qwen.decode(qwen.encode([text])[0]) == text
        assert llama.decode(llama.encode([text], special=False)[0]) == text


def test_strings_of_special_tokens_can_be_ordinary_text(qwen: Qwen2Tokenizer, model: Path) -> None:
    assert qwen.encode(["a<|im_end|>"])[0][-1] == qwen.eos_id
    assert qwen.eos_id not in qwen.encode(["a<|im_end|>"], special=False)[0]
    llama = LlamaTokenizer(str(model))
    assert llama.encode(["a</s>"])[0][-1] == llama.eos_id == 2
    assert llama.eos_id not in llama.encode(["a</s>"], special=False)[0]
    assert llama.decode(llama.encode(["a</s>b"])[0]) == "a</s>b"
    assert llama.decode(llama.encode(["a</s>b"])[0], skip_special=True) == "ab"


def test_llama_puts_a_blank_behind_special_tokens_or_not(model: Path) -> None:
    old, new = LlamaTokenizer(str(model)), LlamaTokenizer(str(model), legacy=False)
    pieces = [[old._pieces.id_to_piece(number) for number in one.encode(["a</s>the hill"])[0]] for one in (old, new)]
    assert "".join(pieces[0]) == "\u2581a</s>\u2581the\u2581hill"
    assert "".join(pieces[1]) == "\u2581a</s>the\u2581hill"
    assert old.encode(["the hill"]) == new.encode(["the hill"])
    assert new.encode_behind(" the hill", special=True) == new.encode([" the hill"])[0]
    assert (old.bos_id, old.eos_id, old.pad_id) == (1, 2, 0)


def test_qwens_published_numbers() -> None:
    try:
        packaged_ranks()
    except FileNotFoundError:
        pytest.skip("the package dashscope is not here")
    ours = build({"type": "qwen2_tokenizer", "vocabulary": {"type": "tiktoken_file", "path": None, "size": 151643}})
    assert len(QWEN2_SPECIAL) == 22
    assert (ours.vocab_size, ours.eos_id, ours.pad_id) == (151665, 151645, 151643)
    assert ours.special_id("<|image_pad|>") == 151655
    assert ours.encode(["Hello world"]) == [[9707, 1879]]


def test_files_travel_with_a_model(model: Path, file: Path, tmp_path: Path) -> None:
    node = {"type": "llama_tokenizer", "path": str(model), "legacy": False}
    carried = rewritten({"tokenizer": node}, "carry", tmp_path)["tokenizer"]
    assert carried == {**node, "path": "tokenizer.model"}
    moved = rewritten(carried, "carried", tmp_path)
    assert build(moved).encode(["a kite"]) == build(node).encode(["a kite"])
    other = {"type": "json_tokenizer", "path": str(file), "eos": "<|im_end|>", "pad": "<|endoftext|>"}
    again = rewritten(rewritten(other, "carry", tmp_path), "carried", tmp_path)
    assert build(again).encode(["a kite"]) == build(other).encode(["a kite"])
    for absent in ({**node, "path": None}, {**node, "path": "no/file"}):
        assert rewritten(absent, "carry", tmp_path) == absent


def test_published_folders_say_how_to_read_them(model: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    assert llama_node(tmp_path)["legacy"] is True
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"legacy": False, "eos_token": {"content": "<|im_start|>"}})
    )
    assert build(llama_node(tmp_path)).legacy is False
    (tmp_path / "tokenizer.json").write_bytes(file.read_bytes())
    found = json_node(tmp_path, "<|im_end|>", "<|endoftext|>")
    assert (found["eos"], found["pad"], found["bos"]) == ("<|im_start|>", "<|endoftext|>", None)
    for read in (llama_node, lambda folder: json_node(folder, "", "")):
        with pytest.raises(FileNotFoundError, match="which the tokenizer needs"):
            read(tmp_path / "none")


def test_what_is_missing_is_named(file: Path, qwen: Qwen2Tokenizer) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.path is None; texts need tokenizer\.model"):
        LlamaTokenizer(None).encode(["a"])
    with pytest.raises(FileNotFoundError, match=r"no file none\.json"):
        JsonTokenizer("none.json", "a", "b").encode(["a"])
    with pytest.raises(ValueError, match=r"tokenizer\.eos is '</s>'; the special tokens of .*<\|im_end\|>"):
        _ = JsonTokenizer(str(file), "</s>", "<|endoftext|>").eos_id
    with pytest.raises(ValueError, match=r"it lacks '</s>'"):
        Qwen2Tokenizer(TrainedVocabulary(TEXTS, 280), SPECIAL, eos="</s>")
    with pytest.raises(TypeError, match=r"write \['a'\]"):
        qwen.encode("a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="id 283: the vocabulary has 283 ids"):
        qwen.decode([283])


def test_they_travel_to_workers(qwen: Qwen2Tokenizer, model: Path, file: Path) -> None:
    ours: list[WordTokenizer] = [
        qwen,
        LlamaTokenizer(str(model)),
        JsonTokenizer(str(file), "<|im_end|>", "<|endoftext|>"),
    ]
    for tokenizer in ours:
        row = tokenizer.encode(["a kite"])
        assert pickle.loads(pickle.dumps(tokenizer)).encode(["a kite"]) == row


def test_the_longest_special_string_is_taken() -> None:
    assert split_special("a<b>c<b>>", {"<b>": 1, "<b>>": 2}) == ["a", 1, "c", 2]
    assert split_special("", {"<b>": 1}) == []
    assert split_special("ab", {}) == ["ab"]
