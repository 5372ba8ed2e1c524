"""Pages of words and pictures from documents, and on from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Seen, Text
from multimodal_zoo.inference.interleaved import write_pages

PICTURE = np.full((20, 20, 3), 90, dtype=np.uint8)


def eager(*more: str) -> Any:
    """A model that opens a picture before long: random weights, `[IMG]` made likely."""
    torch.manual_seed(0)
    model = zoo.create("emu2_tiny", overrides=["model.decoder.blocks.depth=1", *more])
    with torch.no_grad():
        weight = model.decoder.output.weight
        weight.normal_()
        weight[model.processor.ids.eos] = 0
        weight[model.processor.ids.image_begin] = 2 * weight[3:300].amax(0)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return eager()


def test_pages_hold_words_and_what_was_imagined(model: Any) -> None:
    documents = ["a red apple", Document([Image(PICTURE), Text("and")])]
    pages = write_pages(model, documents, max_new_tokens=60, pictures=2)
    count, width = model.processor.image_tokens, model.visual_width
    assert any(page.visual for page in pages)
    for page in pages:
        seen = [one for one in page.segments if isinstance(one, Seen)]
        assert [tuple(one.shape) for one in page.visual] == [(count, width)] * len(seen)
        assert all(one.role is None for one in page.segments if isinstance(one, Text))
    (alone,) = write_pages(model, documents[1], max_new_tokens=60, pictures=2, batch_size=1)
    assert alone.text == pages[1].text
    for one, other in zip(alone.visual, pages[1].visual, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_page_goes_on(model: Any) -> None:
    (page,) = write_pages(model, "a red apple", max_new_tokens=30, pictures=1)
    sample = model.processor.prompt(Document([Text("a red apple"), *page.read()]))
    assert int(sample.vision.sum()) == len(page.visual) * model.processor.image_tokens
    (more,) = write_pages(model, Document([Text("a red apple"), *page.read(), Text("then")]), max_new_tokens=8)
    assert more.segments


def test_a_page_goes_on_in_other_types() -> None:
    """What a page holds is float32, whatever the model is in."""
    model = eager().to(torch.float64)
    (page,) = write_pages(model, Document([Image(PICTURE), Text("and")]), max_new_tokens=30, pictures=1)
    assert page.visual
    assert page.visual[0].dtype is torch.float32
    (more,) = write_pages(model, Document([*page.read(), Text("then")]), max_new_tokens=4)
    assert more.segments


def test_pictures_are_drawn_where_there_is_a_decoder() -> None:
    unet = "model.visual_decoder.unet.config"
    small = [f"{unet}.block_out_channels=[8,8]", f"{unet}.norm_num_groups=4", f"{unet}.attention_head_dim=2"]
    small += [f"{unet}.down_block_types=[DownBlock2D,CrossAttnDownBlock2D]", "model.visual_decoder.steps=1"]
    small += [f"{unet}.up_block_types=[CrossAttnUpBlock2D,UpBlock2D]"]
    drawing = eager("visual_decoder@model.visual_decoder=tiny", *small)
    (page,) = write_pages(drawing, "a red apple", max_new_tokens=60, pictures=2)
    images = [one for one in page.segments if isinstance(one, Image)]
    assert len(images) == len(page.visual) > 0
    assert images[0].image.size == (32, 32)
    assert len(page.read()) == len(page.segments)


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match="write_pages"):
        write_pages(zoo.create("eve_tiny"), "a")
