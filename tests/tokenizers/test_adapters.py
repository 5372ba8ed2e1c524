"""Tokenizers of transformers from a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal_zoo.registry import build

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "##s", "on", "mat"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from transformers import BertTokenizerFast

    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(tmp_path)
    return tmp_path


def node(folder: Path, **values: object) -> dict[str, object]:
    return {"type": "transformers_tokenizer", "folder": str(folder), "context_length": 6, "vocab_size": 11, **values}


def test_rows_are_framed_ragged_and_cut(folder: Path) -> None:
    tokenizer = build(node(folder))
    rows = tokenizer.encode(["A cat", "", "dogs on a mat on a mat"])
    assert rows == [[2, 5, 6, 3], [2, 3], [2, 7, 8, 9, 5, 3]]
    assert tokenizer.truncated == 1
    assert tokenizer.encode([]) == []
    with pytest.raises(TypeError, match="expected a list of strings"):
        tokenizer.encode("a cat")
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.mask_id) == (2, 3, 0, 4)
    assert tokenizer.decode([2, 7, 8, 4, 9, 3, 0, 0]) == "dogs on"


def test_rows_are_those_that_transformers_makes(folder: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["a cat on a mat", "strange dogs", "cats"]
    theirs = AutoTokenizer.from_pretrained(str(folder))(texts)["input_ids"]
    assert build(node(folder, context_length=20)).encode(texts) == theirs


def test_a_tokenizer_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"texts\.vocab_size is 10; the tokenizer in .* has 11 ids"):
        build(node(folder, vocab_size=10))
    with pytest.raises(ValueError, match=r"texts\.context_length is 1"):
        build(node(folder, context_length=1))
    with pytest.raises(FileNotFoundError, match=r"texts\.folder: no folder"):
        build(node(tmp_path / "nothing"))
