"""Generated visual embeddings among those of pictures, with a small random model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.evaluation.imagined_retrieval import ImaginedRetrieval, encoded, imagined
from multimodal_zoo.evaluation.picture_features import OwnFeatures
from multimodal_zoo.evaluation.shots import AsExamples, RandomShots, RicesShots
from multimodal_zoo.nn.counted_images import CountedImages

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["emu_tiny", "emu2_tiny"])
def emu(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return zoo.create(request.param, overrides=["model.decoder.blocks.depth=1"]).eval()


def test_figures_are_those_of_whole_computations(emu: Any, squares: Callable[..., Any]) -> None:
    data = squares(shades=1)
    result = ImaginedRetrieval(data, batch_size=3)(emu, emu.processor, CPU)
    whole = []
    with torch.no_grad():
        for one in data:  # every step from the beginning, one text at a time
            sample = emu.processor.drawing_prompt(Document([Text(one.text)]), special=False)
            states = emu.embed(sample.ids[None])
            for _ in range(emu.processor.image_tokens):
                made = emu.regression_head(emu.decoded(states)[:, -1:])
                states = torch.cat([states, emu.project(made)], dim=1)
                whole.append(made[0, 0])
        pixels = emu.processor.images([one.image for one in data])
        true = emu.encode(CountedImages(pixels, (emu.processor.image_tokens,) * len(data))).unflatten(
            0, (len(data), -1)
        )
    found = torch.stack(whole).unflatten(0, (len(data), -1)).flatten(1)
    true = true.flatten(1)
    cosines = torch.nn.functional.cosine_similarity(found[:, None], true[None], dim=-1)
    better = (cosines > cosines.diagonal()[:, None]).sum(1)
    assert result.metrics["cosine_mean_rank"] == pytest.approx(better.float().mean().item() + 1)
    assert result.metrics["cosine_R@1"] == pytest.approx((better == 0).float().mean().item())
    assert result.metrics["cosine_similarity"] == pytest.approx(cosines.diagonal().mean().item(), abs=1e-5)
    assert result.metrics["embedding_error"] == pytest.approx((found - true).square().mean().item(), rel=1e-4)
    assert result.headline == ("centred_R@1", "centred_R@5")


def test_a_model_that_knows_the_pictures_finds_them(
    emu: Any, squares: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = squares(shades=1)

    def known(model: Any, processor: Any, documents: Any) -> torch.Tensor:
        by_text = {one.text: one.image for one in data}
        pixels = processor.images([by_text[one.text] for one in documents])
        counts = (processor.image_tokens,) * len(documents)
        return 0.1 + 3 * encoded(model, CountedImages(pixels, counts)).unflatten(0, (len(documents), -1))

    monkeypatch.setattr("multimodal_zoo.evaluation.imagined_retrieval.imagined", known)
    result = ImaginedRetrieval(data)(emu, emu.processor, CPU)
    assert result.metrics["centred_R@1"] == 1.0
    assert result.metrics["centred_similarity"] == pytest.approx(1.0, abs=1e-4)


def test_examples_stand_in_front_as_text_and_picture(emu: Any, squares: Callable[..., Any]) -> None:
    pool, data = AsExamples(squares(shades=2), ending=" "), squares(shades=1)
    shots = RandomShots(pool, 2, apart=("concept",))
    asked = ImaginedRetrieval(data, shots=shots)._asked([data[0]])[0]
    assert [type(one).__name__ for one in asked.segments] == ["Text", "Image", "Text", "Image", "Text"]
    with torch.no_grad():
        alone = imagined(emu, emu.processor, [asked])
        beside = imagined(emu, emu.processor, [Document([Text("a long text beside it")]), asked])
    assert alone.shape == (1, emu.processor.image_tokens, emu.visual_width)
    torch.testing.assert_close(beside[1:], alone, atol=1e-4, rtol=1e-4)
    likest = RicesShots(pool, 1, OwnFeatures())
    assert ImaginedRetrieval(data, shots=likest)(emu, emu.processor, CPU).details["shots"].startswith("1, most similar")


def test_bad_input(emu: Any, model: nn.Module, processor: Any) -> None:
    with pytest.raises(TypeError, match="needs an Emu and its processor, got TinyModel"):
        ImaginedRetrieval([])(model, processor, CPU)
    with pytest.raises(ValueError, match="list has no usable document: nothing was skipped, so the source is empty"):
        ImaginedRetrieval([])(emu, emu.processor, CPU)
    with pytest.raises(ValueError, match="batch_size is 0"):
        ImaginedRetrieval([], batch_size=0)
