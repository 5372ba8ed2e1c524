"""`mmzoo tokenize`: from a folder of pictures and a saved tokenizer to shards that training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.cli import main
from multimodal_zoo.data.code_shards import VisualCodes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_model(zoo.create("emu3_vision_tiny"), tmp_path / "vision")
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 256, (60, 48, 3)).astype(np.uint8)
        Image.fromarray(values).save(tmp_path / "pictures" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_become_codes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokenize", "vision", "pictures", "out=codes", "shard_size=2"]
    assert main(words) == 0
    assert "3 documents in 2 parts" in capsys.readouterr().out
    model = zoo.from_pretrained(place / "vision")
    documents = list(VisualCodes(str(place / "codes" / "*.tar")))
    assert len(documents) == 3
    for number, one in enumerate(documents):
        (pixels,) = model.processor.images([place / "pictures" / f"{number}.png"])
        (codes,) = one.segments
        with torch.no_grad():
            assert torch.equal(torch.from_numpy(codes.codes).long(), model.encode(pixels[None])[0])
    written = {path: path.stat().st_mtime_ns for path in (place / "codes").glob("*.tar")}
    assert main(words) == 0  # nothing is left to do
    assert written == {path: path.stat().st_mtime_ns for path in (place / "codes").glob("*.tar")}
    with pytest.raises(SystemExit):
        main([*words, "shard_size=3"])
    assert "with other shard_size" in capsys.readouterr().err


def test_models_without_a_visual_tokenizer_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["clip_tiny", "pictures", "allow_random=true"], "clip_tiny has no visual tokenizer"),
        (["emu3_vision_tiny", "pictures"], "weights are random"),
        (["vision", "pictures", "format=zip"], "format: 'zip'"),
        (["vision"], "data: nothing to"),
    ):
        with pytest.raises(SystemExit):
            main(["tokenize", *words, "out=codes"])
        assert message in capsys.readouterr().err
    assert not (place / "codes").exists()
