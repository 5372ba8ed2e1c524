"""Tokens behind those of any tokenizer of words: their ids, white space beside them, texts back."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.added_tokens import AddedTokens, spelt_out
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer
from multimodal_zoo.tokenizers.qwen2_tokenizer import Qwen2Tokenizer
from multimodal_zoo.tokenizers.vocabularies import TrainedVocabulary

FILE = str(Path(__file__).parents[1] / "goldens" / "emu" / "prompts_emu1" / "tokenizer.model")
WORDS = ["[PAD]", "[IMG]", "[/IMG]", "<image>", "[USER]"]
LLAMA = LlamaTokenizer(FILE)
ENDS = ("<|end|>", "<|pad|>")
PAIRS = Qwen2Tokenizer(TrainedVocabulary(["a red kite over a hill"] * 3, 270), ENDS, *ENDS)


def test_ids_follow_on_the_tokenizers_own() -> None:
    ours = AddedTokens(LLAMA, WORDS, "[PAD]")
    assert [ours.special_id(word) for word in WORDS] == [420, 421, 422, 423, 424]
    assert (ours.vocab_size, ours.pad_id, ours.bos_id, ours.eos_id) == (425, 420, 1, 2)
    assert (ours.special_id("</s>"), ours.special_id("[VIDEO]")) == (2, None)
    assert AddedTokens(LLAMA, WORDS).pad_id == LLAMA.pad_id
    assert AddedTokens(PAIRS, WORDS, bos="<|pad|>").bos_id == PAIRS.pad_id
    assert AddedTokens(PAIRS, WORDS).bos_id is None


def test_series_are_spelt_out() -> None:
    assert spelt_out(["a", "<p_{08..11}>"]) == ["a", "<p_08>", "<p_09>", "<p_10>", "<p_11>"]
    assert len(spelt_out(["<patch_index_{0000..0256}>"])) == 257


@pytest.mark.parametrize("own", [LLAMA, PAIRS])
def test_white_space_beside_special_tokens_is_dropped_or_kept(own: LlamaTokenizer | Qwen2Tokenizer) -> None:
    slow, fast = AddedTokens(own, WORDS), AddedTokens(own, WORDS, strip=False)
    image, user, first = own.vocab_size + 3, own.vocab_size + 4, own.encode(["a red"])[0]
    assert slow.encode([" a red <image>\n [USER] a red"])[0] == [*own.encode([" a red"])[0], image, user, *first]
    kept = [*own.encode([" a red "])[0], image, *own.encode(["\n "])[0], user, *own.encode([" a red"])[0]]
    assert fast.encode([" a red <image>\n [USER] a red"])[0] == kept
    assert slow.encode(["", " "]) == [[], own.encode([" "])[0]]


def test_special_strings_can_be_ordinary_text() -> None:
    ours = AddedTokens(LLAMA, WORDS)
    assert ours.encode(["a [IMG] </s>"], special=False) == LLAMA.encode(["a [IMG] </s>"], special=False)
    assert ours.encode(["a [IMG] </s>"])[0][-2:] == [421, 2]


@pytest.mark.parametrize("own", [LLAMA, PAIRS])
def test_texts_come_back(own: LlamaTokenizer | Qwen2Tokenizer) -> None:
    ours = AddedTokens(own, WORDS)
    ids = ours.encode(["a red[IMG]<image>[/IMG]kite"])[0]
    assert ours.decode(ids) == "a red[IMG]<image>[/IMG]kite"
    assert ours.decode(ids, skip_special=True) == "a redkite"
    assert ours.decode([]) == ""
    with pytest.raises(ValueError, match=f"id {ours.vocab_size}: the vocabulary has"):
        ours.decode([ours.vocab_size])


def test_other_processes_get_the_same_tokenizer() -> None:
    ours = AddedTokens(LLAMA, WORDS, "[PAD]")
    again = pickle.loads(pickle.dumps(ours))
    assert again.encode(["a [IMG] red"]) == ours.encode(["a [IMG] red"])


def test_wrong_words_are_named() -> None:
    with pytest.raises(ValueError, match="has a string twice"):
        AddedTokens(LLAMA, ["[IMG]", "[IMG]"])
    with pytest.raises(ValueError, match=r"tokenizer\.pad is '\[pad\]'"):
        AddedTokens(LLAMA, WORDS, "[pad]")
    with pytest.raises(ValueError, match=r"tokenizer\.bos is '<go>'"):
        _ = AddedTokens(LLAMA, WORDS, bos="<go>").bos_id
    with pytest.raises(TypeError, match="list of strings"):
        AddedTokens(LLAMA, WORDS).encode("a red kite")


PUBLISHED = {
    "emu": (4, {"[PAD]": 32000, "[IMG]": 32001, "[/IMG]": 32002, "<image>": 32003}),
    "emu_instruct": (6, {"<image>": 32003, "[USER]": 32004, "[ASSISTANT]": 32005}),
    "emu2": (272, {"[gIMG]": 32004, "[VIDEO]": 32007, "<grounding>": 32008, "<REC>": 32014,
                   "<patch_index_0000>": 32015, "<patch_index_0256>": 32271}),
    "emu2_chat": (274, {"[EOC]": 32006, "</delimiter_of_multi_objects/>": 32013, "[USER]": 32272,
                        "[ASSISTANT]": 32273}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tokens_have_their_ids(name: str) -> None:
    """Without LLaMA's file: its 32,000 pieces are counted here."""
    node = compose(overrides=[f"+tokenizer@published={name}"])["published"]
    ours = build(node)
    count, known = PUBLISHED[name]
    assert len(ours.added) == count
    assert {word: 32000 + ours.added.index(word) for word in known} == known
    assert (ours.pad, ours.strip) == ("[PAD]", True)
