"""Pairs encoded when reading begins: the codes of each picture, the file that keeps them, and other tokenizers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data import tokenized_pairs
from multimodal_zoo.data.documents import Codes, Document, Image, Text
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.tokenized_pairs import TokenizedPairs, open_vision_tokenizer


class Pictures:
    """Noise with a name; number 2 is broken and number 3 too wide."""

    concepts = (5, 6, 7, 8, 9)

    def __init__(self) -> None:
        self.skips = Skips()

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Document:
        if index == 2:
            raise UnusableError("broken image", "2")
        wide = 400 if index == 3 else 48
        values = np.random.default_rng(index).integers(0, 256, (48, wide, 3)).astype(np.uint8)
        return Document([Text("before"), Image(values), Text(f"name {index}")], {"key": str(index)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    model = zoo.create("emu3_vision_tiny").eval()
    folder = tmp_path_factory.mktemp("vision") / "model"
    save_model(model, folder)
    return model, str(folder)


def test_documents_have_the_codes_of_their_pictures(trained: tuple[Any, str]) -> None:
    model, folder = trained
    reader = TokenizedPairs(Pictures(), folder, model.processor.transform)
    assert (len(reader), reader.concepts) == (5, Pictures.concepts)
    for number in (0, 1, 4):
        before, picture, name = reader[number].segments
        assert (before, name) == (Text("before"), Text(f"name {number}"))
        assert isinstance(picture, Codes)
        (pixels,) = model.processor.images([Pictures()[number].image])
        with torch.no_grad():
            assert torch.equal(torch.from_numpy(picture.codes).long(), model.encode(pixels[None])[0])
    for number, reason in ((2, "broken image"), (3, "cannot be encoded")):
        with pytest.raises(UnusableError, match=reason):
            reader[number]
    assert len(pickle.loads(pickle.dumps(reader))) == 5
    with pytest.raises(AttributeError, match="styles"):
        reader.styles  # noqa: B018


def test_codes_are_kept_for_the_same_tokenizer_only(
    trained: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = trained
    calls: list[int] = []
    encode = tokenized_pairs.encode_pictures
    monkeypatch.setattr(tokenized_pairs, "encode_pictures", lambda *a, **k: calls.append(1) or encode(*a, **k))
    cache = str(tmp_path / "codes" / "emoji.npz")
    first = TokenizedPairs(Pictures(), folder, model.processor.transform, cache)
    again = TokenizedPairs(Pictures(), folder, model.processor.transform, cache)
    assert len(calls) == 1
    assert first.codes.keys() == again.codes.keys() == {0, 1, 4}
    assert all(np.array_equal(first.codes[number], again.codes[number]) for number in first.codes)
    other = zoo.create("emu3_vision_tiny", seed=1)
    save_model(other, tmp_path / "other")
    found = TokenizedPairs(Pictures(), str(tmp_path / "other"), model.processor.transform, cache)
    assert len(calls) == 2
    assert "encoded again" in caplog.text
    assert any(not np.array_equal(first.codes[number], found.codes[number]) for number in first.codes)


def test_only_visual_tokenizers_and_numbered_readers(trained: tuple[Any, str], tmp_path: Path) -> None:
    model, folder = trained
    assert open_vision_tokenizer(folder).training is False
    save_model(zoo.create("clip_tiny"), tmp_path / "clip")
    with pytest.raises(ValueError, match="dual_encoder without a visual tokenizer"):
        open_vision_tokenizer(tmp_path / "clip")
    with pytest.raises(TypeError, match="list_iterator has no numbered documents"):
        TokenizedPairs(iter([1]), folder, model.processor.transform)
