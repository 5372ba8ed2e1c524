"""CLIP's tokenizer against open_clip and its own promises; tests/parity has the published ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal_zoo.tokenizers.clip_bpe import ClipSubsetTokenizer, ClipTokenizer


@pytest.fixture(scope="module")
def full() -> ClipTokenizer:
    return ClipTokenizer()


def padded(rows: list[list[int]], length: int) -> list[list[int]]:
    return [row + [0] * (length - len(row)) for row in rows]


def test_long_texts_are_cut_and_counted() -> None:
    tokenizer = ClipTokenizer(16)
    texts = ["a dog", "x " * 14, "x " * 15, "a very " * 50, ""]
    rows = tokenizer.encode(texts)
    assert tokenizer.truncated == 2  # a row that just fills the context looks like a cut one, but is not
    assert [len(row) for row in rows] == [4, 16, 16, 16, 2]
    for row, whole in zip(rows, map(tokenizer.words, texts), strict=True):
        assert row == [tokenizer.start_id, *whole[:14], tokenizer.end_id]


def test_one_text_in_place_of_several_is_refused(full: ClipTokenizer) -> None:
    with pytest.raises(TypeError, match=r"expected a list of strings, got one: write \['a red cat'\]"):
        full.encode("a red cat")


def test_agrees_with_open_clip(full: ClipTokenizer) -> None:
    import open_clip

    texts = [
        "Résumé: naïve co-operation, isn't it?",
        "\uff11\uff12\uff13 \u2460\u2461 x\u00b2",
        "a\u00a0b\u3000c",
        "it'S DON'T",
        "<END_OF_TEXT>",
        "ǅ ß İ",
    ]
    expected = open_clip.SimpleTokenizer()(texts, context_length=77).tolist()
    assert padded(full.encode(texts), 77) == expected


def test_sizes_and_ids(full: ClipTokenizer) -> None:
    assert (full.vocab_size, full.start_id, full.end_id, full.pad_id) == (49408, 49406, 49407, 0)
    assert full.encode([""]) == [[49406, 49407]]
    assert full.encode([]) == []


def test_fewer_merges_spell_rare_words_with_more_pieces(full: ClipTokenizer) -> None:
    small = ClipTokenizer(context_length=64, vocab_size=2048)
    text = "a crocodile with sunglasses 🐊"
    (row,) = small.encode([text])
    assert len(row) > len(full.encode([text])[0])
    assert max(row) == small.end_id == 2047
    assert small.decode(row) == text
    only_bytes = ClipTokenizer(context_length=64, vocab_size=514)
    assert only_bytes.decode(only_bytes.encode([text])[0]) == text


def test_a_subset_keeps_the_pieces_in_use(full: ClipTokenizer) -> None:
    texts = ["a red apple", "a green apple", "red car"]
    small = ClipSubsetTokenizer(vocab_size=12, texts=texts, context_length=8)
    rows = small.encode(texts)
    assert [small.decode(row) for row in rows] == texts
    assert {i for row in rows for i in row} <= {2, 3, 4, 5, 6, 10, 11}
    assert all(row[0] == small.start_id == 10 and row[-1] == small.end_id == 11 for row in rows)
    (unknown,) = small.encode(["a yellow apple"])
    assert unknown.count(small.unknown_id) == 1
    assert small.kept == sorted({i for text in texts for i in full.words(text)})


def test_a_subset_from_published_ids(full: ClipTokenizer, tmp_path: Path) -> None:
    pieces = sorted(set(full.words("a red apple")))
    file = tmp_path / "pieces.txt"
    file.write_text("\n".join(map(str, pieces)))
    one, other = ClipSubsetTokenizer(9, pieces=pieces), ClipSubsetTokenizer(9, pieces=str(file))
    assert one.encode(["red apple"]) == other.encode(["red apple"]) == [[7, *one.words("red apple"), 8]]
    frequent = ClipSubsetTokenizer(5, texts=["cat dog dog"])
    assert frequent.decode(frequent.encode(["dog"])[0]) == "dog"
    assert frequent.encode(["cat"]) == [[3, 1, 4]]


def test_what_is_shared_stays_as_it_is(full: ClipTokenizer) -> None:
    """Words that one tokenizer has met are known to the next of the same vocabulary, and to no other."""
    text = "a red tuk-tuk <mask>"
    rows = full.encode([text])
    special = ("<mask>", "<start_of_text>", "<end_of_text>")
    others = [ClipSubsetTokenizer(64, [text]), ClipTokenizer(vocab_size=49409, special=special, mask="<mask>")]
    found = [other.encode([text]) for other in others]
    assert ClipTokenizer().encode([text]) == full.encode([text]) == rows
    assert [other.encode([text]) for other in others] == found
    assert all(one != rows for one in found)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="start and end alone take 2"):
        ClipTokenizer(1)
    with pytest.raises(ValueError, match=r"vocab_size is 60000; expected 514 to 49408"):
        ClipTokenizer(vocab_size=60000)
    with pytest.raises(ValueError, match="3 pieces and 4 more ids do not fit"):
        ClipSubsetTokenizer(6, pieces=[5, 6, 7])


def test_a_missing_vocabulary_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal_zoo.tokenizers.clip_bpe.package_folders", lambda name: [])
    with pytest.raises(FileNotFoundError, match=r"processor.texts.vocabulary"):
        ClipTokenizer()


def test_a_mask_word_has_an_id_and_is_never_read_from_a_text() -> None:
    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    made = build(compose(None, ["+tokenizer=declip_bpe"]).tokenizer)
    assert (made.mask_id, made.start_id, made.end_id, made.vocab_size) == (49406, 49407, 49408, 49409)
    assert made.mask_id not in made.words("a <|mask|> b")
    assert made.decode([made.start_id, made.mask_id, made.end_id]) == "<|mask|>"
    assert ClipTokenizer().mask_id is None
    with pytest.raises(ValueError, match=r"texts\.mask is '<\|mask\|>'; expected a word of texts\.special"):
        ClipTokenizer(mask="<|mask|>")
    with pytest.raises(ValueError, match=r"texts\.mask is 'b'"):
        ClipTokenizer(special=("a", "b", "c"), mask="b")


def test_a_subset_has_a_mask_word_where_it_is_asked_for() -> None:
    plain = ClipSubsetTokenizer(40, ["a cat on a mat"])
    masked = ClipSubsetTokenizer(41, ["a cat on a mat"], mask="<|mask|>")
    assert plain.mask_id is None
    assert (masked.mask_id, masked.start_id, masked.end_id) == (38, 39, 40)
    assert masked.words("a mat <|mask|>")[:2] == plain.words("a mat"), "pieces keep their ids"
    assert masked.mask_id not in masked.words("a mat <|mask|>")
    assert masked.decode([masked.start_id, *masked.words("a"), masked.mask_id, masked.end_id]) == "a <|mask|>"
    assert masked.kept == plain.kept
    with pytest.raises(ValueError, match="2 pieces and 5 more ids do not fit"):
        ClipSubsetTokenizer(6, pieces=[320, 321], mask="<|mask|>")
