"""Pairs encoded when reading begins: the codes of each picture, the file that keeps them, and other tokenizers."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

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


class Cut(Pictures):
    """The first picture breaks off behind its header, and the last document has none."""

    def __getitem__(self, index: int) -> Document:
        document = super().__getitem__(index)
        if index == 4:
            return Document([Text("words")], {"key": "4"})
        if index:
            return document
        buffer = io.BytesIO()
        Pillow.fromarray(document.image).save(buffer, "PNG")  # type: ignore[arg-type]
        half = Pillow.open(io.BytesIO(buffer.getvalue()[: buffer.tell() // 2]))
        return Document([Image(half), Text("half")], {"key": "0"})


def test_pictures_that_break_off_and_documents_without_any_are_passed_over(trained: tuple[Any, str]) -> None:
    model, folder = trained
    reader = TokenizedPairs(Cut(), folder, model.processor.transform)
    assert [document.key for document in reader] == ["1"]
    assert reader.skips.counts == {"broken image": 1, "picture that cannot be encoded": 3}


def test_damaged_caches_are_named_and_give_no_other_codes(trained: tuple[Any, str], tmp_path: Path) -> None:
    model, folder = trained
    cache = tmp_path / "codes.npz"
    reader = TokenizedPairs(Pictures(), folder, model.processor.transform, str(cache))
    whole, facts, random = cache.read_bytes(), reader._facts(model), Random(0)
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            del damaged[random.randrange(len(damaged)) :]
        elif number % 3 == 1:
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        else:
            place = random.randrange(len(damaged))
            damaged[place : place + 40] = random.randbytes(40)
        cache.write_bytes(damaged)
        try:
            found = reader._kept(cache, facts, int(model.codebook_size))
        except ValueError as error:
            assert str(cache) in str(error)  # noqa: PT017
            continue
        assert found is None or all(np.array_equal(found[one], reader.codes[one]) for one in found)
    for strange, message in (
        ({"facts": facts, "0": np.full((2, 2), 1 << 20)}, r"codes \[0\] of 1 do not fit 5 documents"),
        ({"facts": facts, "9": np.zeros((2, 2), int)}, r"codes \[\] of 1 do not fit 5 documents"),
        ({"facts": facts, "0": np.zeros((2, 2))}, r"codes of float64 \(2, 2\)"),
        ({"other": np.zeros(3)}, "is damaged or no file of codes"),
    ):
        np.savez(cache, **strange)
        with pytest.raises(ValueError, match=message):
            TokenizedPairs(Pictures(), folder, model.processor.transform, str(cache))
