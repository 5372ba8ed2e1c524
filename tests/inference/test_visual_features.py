"""Visual embeddings computed once: stored, found by pixels, learnt from in place of pictures."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from multimodal_zoo.cli import main
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.data.visual_sequences import restored, shortened
from multimodal_zoo.data.visual_store import VisualStore, VisualStoreWriter, picture_key, stored_sample
from multimodal_zoo.inference.visual_features import store_pictures
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import create


def page(*numbers: int) -> Document:
    """Pictures with words in between."""
    segments: list[Any] = []
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3)).astype(np.uint8)
        segments += [Image(pixels), Text("a heart")]
    return Document(segments, {"key": f"page {numbers}"})


PAGES = [page(1, 2), page(2), page(3), page()]


@pytest.fixture(scope="module")
def model() -> Any:
    """A small Emu2."""
    return create("emu2_tiny", overrides=["model.decoder.blocks.depth=1"], seed=1)


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store of some pages, in parts of two pictures."""
    place = tmp_path_factory.mktemp("store")
    writer = VisualStoreWriter(place, {"width": model.visual_width}, "float32", part_size=2)
    assert store_pictures(model, PAGES, writer, 2, Skips()) == 3  # each picture once
    assert store_pictures(model, PAGES, writer, 2, Skips()) == 0
    return str(place)


def test_stored_embeddings_are_those_of_the_encoder(model: Any, folder: str) -> None:
    store = pickle.loads(pickle.dumps(VisualStore(folder)))
    assert len(store) == 3
    assert store.facts == {"width": model.visual_width, "dtype": "float32"}
    shown = model.processor.counted(PAGES[0])
    with torch.no_grad():
        expected = model.eval().encode(shown).split(list(shown.counts))
    for pixels, count, one in zip(shown.pixels, shown.counts, expected, strict=True):
        torch.testing.assert_close(store.find(pixels, count), one, atol=1e-5, rtol=1e-5)
        assert store.find(pixels, count + 1) is None
        assert store.find(pixels + 1, count) is None


def test_models_of_other_types_store_too(tmp_path: Path) -> None:
    model = create("emu2_tiny", overrides=["model.decoder.blocks.depth=1"], seed=1).to(torch.float64)
    writer = VisualStoreWriter(tmp_path, {}, "float32")
    assert store_pictures(model, PAGES[:1], writer, 2, Skips()) == 2
    shown = model.processor.counted(PAGES[0])
    assert VisualStore(str(tmp_path)).find(shown.pixels[1], shown.counts[1]) is not None


def test_lessons_of_stored_embeddings_have_the_same_loss(model: Any, folder: str) -> None:
    """Loss and gradients of what is behind the frozen encoder."""
    objective = build({"type": "next_element", "objective": {"type": "next_token"}})
    samples = [model.processor.sample(one, Random(0)) for one in PAGES[:3]]
    store, found = VisualStore(folder), []
    model.image_encoder.requires_grad_(False)
    model.eval()
    for rows in ([[one] for one in samples], [[stored_sample(one, store) for one in samples]]):
        model.zero_grad()
        losses = objective(model, visual_rows_batch(rows, model.processor.ids.pad))
        losses["loss"].backward()
        found.append(
            (losses["loss"].detach(), [one.grad.clone() for one in model.parameters() if one.grad is not None])
        )
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-4)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


def test_processors_with_a_store_give_its_embeddings(model: Any, folder: str) -> None:
    ours = model.processor.written_as("plain")
    ours.store = VisualStore(folder)
    sample = ours.sample(PAGES[0], Random(0))
    assert sample.images is None
    assert sample.visual is not None
    assert len(sample.visual) == int(sample.vision.sum()) == sum(sample.sizes)
    again = restored(sample.stored())
    assert torch.equal(again.visual, sample.visual)  # type: ignore[arg-type]
    assert again.sizes == sample.sizes
    short = shortened(sample, len(sample.ids) - 8, ours.ids.image_begin)
    assert short.visual is not None
    assert len(short.visual) == int(short.vision.sum()) == sample.sizes[0]
    assert ours.prompt(PAGES[0]).images is not None  # prompts show pictures
    other = visual_rows_batch([[sample._replace(visual=sample.visual[:, :1])]], 0)
    with pytest.raises(ValueError, match="visual embeddings of width 1; this model's are"):
        model(**other.inputs())
    with pytest.raises(UnusableError, match=r"picture without stored embeddings: page \(7,\), picture 1"):
        ours.sample(page(7), Random(0))


def test_stores_of_other_models_are_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was written with other width"):
        VisualStoreWriter(folder, {"width": 1}, "float32")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        VisualStoreWriter(tmp_path, {}, "int8")
    with pytest.raises(FileNotFoundError, match=r"processor\.store\.folder"):
        VisualStore(str(tmp_path))
    writer = VisualStoreWriter(tmp_path, {}, "float16")
    pixels = torch.rand(3, 4, 4)
    writer.add(picture_key(pixels, 2), torch.full((2, 3), 0.1))
    writer.flush()
    writer.flush()
    torch.testing.assert_close(VisualStore(str(tmp_path)).find(pixels, 2), torch.full((2, 3), 0.1), atol=1e-4, rtol=0)


def test_the_command_stores_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["embed", "emu2_tiny", "emoji", "allow_random=true", f"out={tmp_path / 'store'}"]
    assert main([*arguments, "data.train.styles=[twemoji]", "+data.train.share=0.01", "batch_size=8"]) in (0, None)
    assert "visual_store" in capsys.readouterr().out
    assert len(VisualStore(str(tmp_path / "store"))) > 0
