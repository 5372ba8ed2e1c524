"""Drawing with an Emu: what pictures are drawn from, what guidance leads away from, sizes, bounds."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.grounding import Entity, grounded_prompt
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.inference.visual_drawing import Denoised, VisualPainter, draw_visual, is_lone_picture, size_of
from multimodal_zoo.inference.visual_memory import memory_of
from multimodal_zoo.nn.counted_images import CountedImages

DRAWER = ["visual_decoder@model.visual_decoder=tiny", "model.visual_decoder.steps=2"]
UNET = "model.visual_decoder.unet.config"
SMALL = [f"{UNET}.block_out_channels=[8,8]", f"{UNET}.norm_num_groups=4", f"{UNET}.attention_head_dim=2"]
SMALL += [f"{UNET}.down_block_types=[DownBlock2D,CrossAttnDownBlock2D]"]
SMALL += [f"{UNET}.up_block_types=[CrossAttnUpBlock2D,UpBlock2D]"]
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return zoo.create("emu2_tiny", overrides=DRAWER + SMALL)


def near(one: Any, other: Any) -> bool:
    levels = [np.asarray(getattr(picture, "image", picture), dtype=int) for picture in (one, other)]
    return levels[0].shape == levels[1].shape and abs(levels[0] - levels[1]).max() <= 1


def test_a_drawing_is_decoded_from_what_the_model_imagines(model: Any) -> None:
    (found,) = draw(model, "a red apple", seed=3)
    processor = model.processor
    sample = processor.drawing_prompt(Document([Text("a red apple")]))
    assert torch.equal(found.ids, sample.ids)
    assert int(found.ids[-1]) == processor.ids.image_begin
    model.eval()
    prompts = model.prompts([sample.ids], [sample.vision], None, processor.ids.pad)
    nothing = processor.drawing_prompt(Document([Text("")]))
    empty = model.prompts([nothing.ids], [nothing.vision], None, processor.ids.pad)
    visual, away = (model.imagine(one, processor.image_tokens) for one in (prompts, empty))
    torch.testing.assert_close(found.codes, visual[0], atol=1e-5, rtol=1e-5)
    pixels = model.visual_decoder.decode(visual, away, seeds=[3])[0]
    expected = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    assert abs(np.asarray(found.image, dtype=int) - expected).max() <= 1
    assert (found.prompt, found.seed, found.flagged) == ("a red apple", 3, False)
    model.train()
    draw(model, "a", seed=0)
    assert model.training  # as it was before


def test_pictures_are_seen_as_they_form(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Denoised] = []
    found = draw(model, ["a", "b"], ratio=["1:1", "2:1"], on_step=told.append)
    assert [(one.step, one.limit, one.count, one.parts) for one in told] == [(1, 2, 1, 1), (2, 2, 1, 2)] * 2
    assert near(told[1].pictures()[0], found[0].image)
    assert told[2].pictures()[0].size == found[1].image.size
    assert not near(told[2].pictures()[0], found[1].image)  # half of the noise is left

    class Black(torch.nn.Module):
        def seen(self, pixels: Any) -> Any:
            return pixels

        def forward(self, seen: Any) -> Any:
            return torch.ones(len(seen), dtype=torch.bool)

        def blackened(self, pixels: Any, flags: Any) -> Any:
            return torch.where(flags[:, None, None, None], 0.0, pixels)

    monkeypatch.setattr(model.visual_decoder, "safety_checker", Black())
    assert not np.asarray(told[0].pictures()[0]).any()  # not shown half-way either


def test_pictures_do_not_depend_on_each_other(model: Any) -> None:
    documents = ["a red apple", Document([Image(PICTURE), Text("but green")]), Document([Image(PICTURE)])]
    together = draw(model, documents, seed=7, per_prompt=2, ratio=["1:1", "2:1", "1:2"], negative=["bad", None, None])
    assert [one.seed for one in together] == [7, 8, 9, 10, 11, 12]
    assert [one.image.size for one in together[::2]] == [(32, 32), (46, 22), (22, 46)]
    assert torch.equal(together[0].codes, together[1].codes)
    assert not near(together[0], together[1])  # another seed
    (alone,) = draw(model, documents[0], seed=[8], negative="bad")
    assert near(alone, together[1])
    parted = draw(model, documents, seed=7, per_prompt=2, ratio=["1:1", "2:1", "1:2"], negative=["bad", None, None],
                  batch_size=4)  # fmt: skip
    assert all(near(one, other) for one, other in zip(parted, together, strict=True))


def test_a_lone_picture_is_drawn_from_its_own_embeddings(model: Any) -> None:
    lone, told = Document([Image(PICTURE)]), Document([Image(PICTURE), Text("")])
    assert is_lone_picture(lone)
    assert not is_lone_picture(told)
    again, went_on = draw_visual(model, [lone, told], seed=0)
    count = model.processor.image_tokens
    model.eval()
    with torch.no_grad():
        own = model.encode(CountedImages(model.processor.images([PICTURE]), (count,)))
    torch.testing.assert_close(again.codes, own, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(went_on.codes, own, atol=1e-3)
    painter = VisualPainter(model, model.processor)
    side = model.image_size
    with torch.no_grad():
        zeros = model.encode(CountedImages(torch.zeros(1, 3, side, side), (count,)))
        torch.testing.assert_close(painter.blank(), zeros, atol=1e-6, rtol=1e-6)


def test_what_nothing_gives_is_made_once_and_again_for_other_weights(model: Any, monkeypatch: Any) -> None:
    painter, calls = VisualPainter(model.eval(), model.processor), []
    imagine = type(model).imagine
    monkeypatch.setattr(type(model), "imagine", lambda *given, **named: calls.append(1) or imagine(*given, **named))
    with torch.no_grad():
        model.regression_head.weight.mul_(1.0)  # another state
    first = painter.nothing()
    assert torch.equal(VisualPainter(model, model.processor).nothing(), first)
    assert len(calls) == 1
    with torch.no_grad():
        model.regression_head.weight.mul_(2.0)
    assert not torch.equal(painter.nothing(), first)
    with torch.no_grad():
        model.regression_head.weight.mul_(0.5)
    torch.testing.assert_close(painter.nothing(), first)


def test_a_picture_in_several_prompts_is_encoded_once(model: Any) -> None:
    memory = memory_of(model)
    before, shown = memory.encoded, Random(1).choices(range(256), k=16 * 16 * 3)
    picture = np.array(shown, dtype=np.uint8).reshape(16, 16, 3)
    draw(model, [Document([Image(picture), Text(word)]) for word in ("a", "b", "c")], guidance=1.0)
    draw(model, Document([Image(picture), Text("d")]), guidance=1.0)
    assert memory.encoded == before + 1


def test_boxes_and_subjects_are_documents(model: Any) -> None:
    things = [Entity("dog", (0.1, 0.2, 0.5, 0.9), PICTURE), Entity("tree", (0.6, 0.0, 0.9, 0.9)), Entity("cat")]
    document = Document(grounded_prompt("a dog and a cat under a tree", things, 32))
    (found,) = draw(model, document, guidance=1.0)
    assert int((found.ids == model.processor.ids.image).sum()) == 3 * model.processor.image_tokens
    for word, count in (("<grounding>", 1), ("<phrase>", 3), ("</object>", 2)):
        assert int((found.ids == model.processor.tokenizer.special_id(word)).sum()) == count
    (other,) = draw(model, Document(grounded_prompt("a dog and a cat under a tree", things[1:], 32)), guidance=1.0)
    assert not torch.allclose(found.codes, other.codes)


def test_without_guidance_nothing_else_is_imagined(model: Any) -> None:
    painter = VisualPainter(model, model.processor, guidance=1.0)
    assert painter.against([Document([Text("a")])], [None]) is None


def test_sizes_are_tiles_near_what_is_asked(model: Any) -> None:
    decoder = model.visual_decoder
    assert decoder.tile == 2
    assert size_of(decoder, "1:1", None) == (32, 32)
    assert size_of(decoder, "4:3", 32 * 24) == (24, 32)
    with pytest.raises(ValueError, match="area is 0"):
        size_of(decoder, "1:1", 0)
    with pytest.raises(ValueError, match="too few pixels for tiles"):
        size_of(decoder, "9:1", 3)
    with pytest.raises(ValueError, match="width:height"):
        draw(model, "a", ratio="wide")


def test_what_cannot_be_drawn_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match="sampling is for models that draw token by token"):
        draw(model, "a", sampling=Sampling(greedy=True))
    with pytest.raises(TypeError, match="one number"):
        draw(model, "a", guidance=[1.0, 2.0])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(model, [])
    with pytest.raises(TypeError, match="needs an Emu with a visual decoder"):
        draw(zoo.create("emu_tiny", device="meta"), "a")
    with pytest.raises(ValueError, match="context has 512"):
        draw(model, "apple " * 600)
    model.processor, own = None, model.processor
    with pytest.raises(TypeError, match=r"draw needs model\.processor with a tokenizer \(drawing_prompt\)"):
        draw(model, "a")
    model.processor = own


def test_a_safety_checker_makes_pictures_black(model: Any) -> None:
    class Strict(torch.nn.Module):
        """Flags every second picture."""

        def seen(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.arange(len(pixels)) % 2 == 1

        def blackened(self, pixels: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
            return pixels.masked_fill(flags.view(-1, 1, 1, 1), 0)

    model.visual_decoder.safety_checker = Strict()
    one, other = draw(model, "a", per_prompt=2)
    model.visual_decoder.safety_checker = None
    assert (one.flagged, other.flagged) == (False, True)
    assert not np.asarray(other.image).any()
    assert np.asarray(one.image).any()
