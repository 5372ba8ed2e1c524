"""Folders of `save_model` hold the files that a model's parts need, and can be moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import recognise, save_model
from multimodal_zoo.tokenizers.vocabularies import RANKS_FILE, ranks_text, train_vocabulary

TEXTS = ["a red kite over the hill", "two red kites", "kites over hills"] * 3


def test_a_moved_folder_works_without_the_vocabulary_it_was_trained_with(tmp_path: Path) -> None:
    ranks = tmp_path / "ranks.tiktoken"
    ranks.write_text(ranks_text(train_vocabulary(TEXTS, 270)))
    model = zoo.create(
        "emu3_tiny",
        overrides=[
            "model.processor.texts.vocabulary.type=tiktoken_file",
            "~model.processor.texts.vocabulary.texts",
            f"+model.processor.texts.vocabulary.path={ranks}",
            "model.processor.texts.vocabulary.size=270",
            f"model.decoder.vocab_size={270 + 211 + 512}",
            "model.decoder.blocks.depth=1",
        ],
    )
    expected = model.processor.tokenizer.encode(TEXTS)
    save_model(model, tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "far" / "moved")
    ranks.unlink()
    assert recognise(tmp_path / "far" / "moved").config["processor"]["texts"]["vocabulary"]["path"] == str(
        tmp_path / "far" / "moved" / RANKS_FILE
    )
    again = zoo.from_pretrained(tmp_path / "far" / "moved")
    assert again.processor.tokenizer.encode(TEXTS) == expected
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    save_model(again, tmp_path / "far" / "moved")  # into the folder that it was read from
    shutil.move(tmp_path / "far" / "moved", tmp_path / "third")
    assert zoo.from_pretrained(tmp_path / "third").processor.tokenizer.encode(TEXTS) == expected


def test_a_learnt_vocabulary_is_not_learnt_again(tmp_path: Path) -> None:
    model = zoo.create("emu3_tiny", overrides=["model.decoder.blocks.depth=1"])
    save_model(model, tmp_path / "saved")
    again = zoo.from_pretrained(tmp_path / "saved")
    assert again.config["processor"]["texts"]["vocabulary"]["type"] == "tiktoken_file"
    words = ["woman running", "red apple <|image start|>"]
    assert again.processor.tokenizer.encode(words) == model.processor.tokenizer.encode(words)


def test_models_without_such_files_are_as_before(tmp_path: Path) -> None:
    save_model(zoo.create("eva_mim_tiny"), tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.yaml", "model.safetensors"]
