"""Vocabulary files: what is read, what is refused, and what travels with a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from multimodal_zoo.registry import build, rewritten
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL
from multimodal_zoo.tokenizers.vocabularies import (
    RANKS_FILE,
    VISION_FILE,
    TiktokenFile,
    check_vision_tokens,
    ranks_text,
    read_ranks,
    train_vocabulary,
    vocabulary_node,
)

BYTES = {bytes([i]): i for i in range(256)}


def folder_of(place: Path, visual: int = 4) -> Path:
    place.mkdir(exist_ok=True)
    (place / RANKS_FILE).write_text(ranks_text({**BYTES, b"ab": 256, b" ab": 257}))
    lines = [*SPECIAL[-3:], *(f"<|visual token {i:06d}|>" for i in range(visual))]
    (place / VISION_FILE).write_text("\n".join(lines) + "\n")
    return place


def test_files_are_read_back(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "published")
    assert read_ranks(str(folder / RANKS_FILE)) == {**BYTES, b"ab": 256, b" ab": 257}
    tokenizer = build(vocabulary_node(folder))
    assert tokenizer.vocab_size == 258 + 211 + 4
    assert tokenizer.encode(["ab ab"]) == [[256, 257]]
    (folder / VISION_FILE).write_text((folder / VISION_FILE).read_text().rstrip("\n"))  # no line end at the end
    assert check_vision_tokens(folder / VISION_FILE) == 4


def test_other_numberings_of_visual_tokens_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "published")
    file = folder / VISION_FILE
    lines = file.read_text().splitlines()
    for changed, what in (
        ([lines[1], lines[0], *lines[2:]], "line 1.*image start.*expected.*image token"),
        ([*lines[3:], *lines[:3]], "line 1"),
        ([*lines[:4], lines[5], lines[4]], "line 5.*000002.*expected.*000001"),
        (lines[:3], "three and one for each"),
    ):
        file.write_text("\n".join(changed))
        with pytest.raises(ValueError, match=what):
            check_vision_tokens(file)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=VISION_FILE):
        vocabulary_node(folder)


def test_files_that_are_no_vocabulary_are_refused(tmp_path: Path) -> None:
    good = ranks_text(BYTES)
    for name, content, what in (
        ("words", good + "!!! 256\n", "line 257"),
        ("columns", good + "YWI=\n", "line 257"),
        ("gap", good + "YWI= 300\n", "0 to 256, each once"),
        ("twice", good + "YWI= 0\n", "0 to 256, each once"),
        ("bytes", "".join(good.splitlines(keepends=True)[:200]), "56 of the 256 single bytes.*0xc8"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=what):
            read_ranks(str(tmp_path / name))


def test_a_promised_file_is_checked(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "published") / RANKS_FILE
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(TiktokenFile(str(path), 258, sha256).ranks()) == 258
    with pytest.raises(ValueError, match=r"holds 258 tokens.*size is 259"):
        TiktokenFile(str(path), 259).ranks()
    with pytest.raises(ValueError, match=r"vocabulary\.sha256"):
        TiktokenFile(str(path), 258, "0" * 64).ranks()
    with pytest.raises(ValueError, match="size is 12"):
        TiktokenFile(str(path), 12)


def test_trained_size_must_be_reached() -> None:
    with pytest.raises(ValueError, match="size is 400; the texts give"):
        train_vocabulary(["abc"], 400)
    with pytest.raises(ValueError, match="size is 100"):
        train_vocabulary(["abc"], 100)


def test_files_travel_with_a_model(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "published")
    saved, moved = tmp_path / "saved", tmp_path / "moved"
    saved.mkdir()
    node = {"processor": {"texts": vocabulary_node(source)}, "sizes": [1, 2]}
    carried = rewritten(node, "carry", saved)
    assert carried["processor"]["texts"]["vocabulary"]["path"] == RANKS_FILE
    assert node["processor"]["texts"]["vocabulary"]["path"] == str(source / RANKS_FILE)  # the model's own stays
    saved.rename(moved)
    (source / RANKS_FILE).unlink()
    found = rewritten(carried, "carried", moved)
    assert build(found["processor"]["texts"]).encode(["ab ab"]) == [[256, 257]]


def test_learnt_tokens_travel_as_a_file(tmp_path: Path) -> None:
    texts = ["a red kite", "a red hill"] * 4
    node = {"type": "trained_vocabulary", "size": 262, "texts": texts}
    carried = rewritten(rewritten(node, "carry", tmp_path), "carried", tmp_path)
    assert carried == {"type": "tiktoken_file", "path": str(tmp_path / RANKS_FILE), "size": 262}
    assert build(carried).ranks() == build(node).ranks()


@pytest.mark.parametrize(("path", "missing"), [("gone", "no file "), (None, "its path is null, and no package")])
def test_an_absent_vocabulary_does_not_keep_a_model_from_being_saved(
    path: str | None,
    missing: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("multimodal_zoo.tokenizers.vocabularies.package_folders", lambda name: [])
    node = {"type": "tiktoken_file", "path": path and str(tmp_path / path), "size": 300}
    assert rewritten(node, "carry", tmp_path) == node
    assert f"does not travel with the model: {missing}" in caplog.text
    assert f"set path to the file {RANKS_FILE}" in caplog.text
    assert not list(tmp_path.iterdir())
