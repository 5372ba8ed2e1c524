"""Drawing: the published defaults, pictures that do not depend on each other, bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.painter import GUIDANCE, SAMPLING, Sketches, tokens_of
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import declaration


@pytest.fixture(scope="module")
def model():
    return zoo.create("emu3_tiny", overrides=["model.decoder.blocks.depth=1"])


def near(one, other) -> bool:
    """Whether two pictures differ by one grey level at most: decoding several at once may round in another way."""
    levels = [np.asarray(picture, dtype=int) for picture in (one, other)]
    return levels[0].shape == levels[1].shape and abs(levels[0] - levels[1]).max() <= 1


def equal(one, other) -> bool:
    same = torch.equal(one.codes, other.codes) and torch.equal(one.ids, other.ids)
    return same and near(one.image, other.image)


def test_a_drawing_is_a_whole_sequence_and_its_picture(model) -> None:
    (found,) = draw(model, "a red apple", ratio="4:3", seed=3)
    processor, ids = model.processor, model.ids
    grid = processor.grid("4:3")
    factor = processor.transform.rule.factor
    assert found.codes.shape == grid
    assert found.image.size == (grid[1] * factor, grid[0] * factor)
    assert found.ids[: -tokens_of(grid)].tolist() == processor.generation_prompt("a red apple", grid)
    assert found.ids[-1] == ids.eos
    pieces = processor.pieces(found.ids.tolist())
    assert torch.equal(next(piece for piece in pieces if isinstance(piece, Tensor)), found.codes)
    assert near(found.image, processor.pictures(model.decode(found.codes[None]))[0])
    assert (found.prompt, found.seed) == ("a red apple", 3)
    assert model.training  # as it was before


def test_pictures_do_not_depend_on_each_other(model) -> None:
    prompts, ratios = ["a red apple", "the big house on the hill"], ["1:1", "1:3"]
    together = draw(model, prompts, ratio=ratios, negative=["", "blurry, bad"], per_prompt=2, seed=7)
    assert [one.seed for one in together] == [7, 8, 9, 10]
    assert not torch.equal(together[0].codes, together[1].codes)
    alone = draw(model, prompts[1], ratio="1:3", negative="blurry, bad", seed=[10])
    assert equal(alone[0], together[3])
    parted = draw(model, prompts, ratio=ratios, negative=["", "blurry, bad"], per_prompt=2, seed=7, batch_size=3)
    assert all(equal(one, other) for one, other in zip(parted, together, strict=True))


def test_the_defaults_are_published(model, monkeypatch) -> None:
    node = declaration("emu3_gen")["processor"]
    published = build(node, path="model.processor")
    assert GUIDANCE == 3.0
    assert Sampling(top_k=2048) == SAMPLING
    assert published.grid("16:9", 518400) == (68, 120)
    seen = {}
    generate = model.generate
    monkeypatch.setattr(model.processor, "prompt_suffix", published.prompt_suffix)
    monkeypatch.setattr(model.processor, "negative_prompt", published.negative_prompt[:12])

    def spy(prompts, policy, **options):
        seen.update(options, prompts=prompts)
        return generate(prompts, policy, **options)

    monkeypatch.setattr(model, "generate", spy)
    (found,) = draw(model, "a kite")
    assert found.prompt == "a kite masterpiece, film grained, best quality."
    assert (seen["scoring"].guidance, seen["sampling"]) == (3.0, SAMPLING)
    grid = model.processor.grid("1:1")
    negative = seen["negative"]
    expected = model.processor.generation_prompt("lowres, bad ", grid)
    assert negative.inputs[0][negative.real[0]].tolist() == expected
    draw(model, "a kite", suffix="", negative="x", guidance=1.0, sampling=Sampling(greedy=True))
    assert seen["prompts"].inputs[0].tolist() == model.processor.generation_prompt("a kite", grid)
    assert seen["scoring"].guidance == 1.0


def test_rows_that_are_given_stay(model) -> None:
    grid = model.processor.grid("1:1")
    first = torch.arange(grid[1])[None]
    hole = torch.zeros(grid, dtype=torch.long)
    hole[1, 2] = -1
    one, other = draw(model, ["a", "b"], given=[first, hole], seed=1)
    assert torch.equal(one.codes[:1], first)
    assert (other.codes != 0).sum() <= 1
    with pytest.raises(ValueError, match="no first rows of a grid"):
        draw(model, "a", given=[torch.zeros(1, grid[1] + 1, dtype=torch.long)])


def test_a_prompt_may_hold_pictures(model) -> None:
    (first,) = draw(model, "an apple")
    document = Document([Text("like "), Image(first.image), Text("but green")])
    (found,) = draw(model, document)
    codes = [piece for piece in model.processor.pieces(found.ids.tolist()) if isinstance(piece, Tensor)]
    assert len(codes) == 2
    assert torch.equal(codes[1], found.codes)
    assert torch.equal(codes[0], model.encode(model.processor.images([first.image])[0][None])[0])
    assert found.prompt == "like but green"


def test_strings_of_special_tokens_can_be_escaped(model) -> None:
    text = "<|image start|> red"
    (special,), (plain,) = draw(model, text), draw(model, text, special=False)
    assert (special.ids == model.ids.image_start).sum() == 2
    assert (plain.ids == model.ids.image_start).sum() == 1
    assert model.processor.decode(plain.ids.tolist()).startswith(text)


def test_sketches_show_the_rows_so_far(model) -> None:
    told: list[Sketches] = []
    one, other = draw(model, ["a", "b"], ratio=["1:1", "1:2"], on_step=told.append)
    grids = [tuple(one.codes.shape), tuple(other.codes.shape)]
    assert [sketch.step for sketch in told] == list(range(1, max(map(tokens_of, grids)) + 1))
    assert told[-1].done == told[-1].whole == sum(map(tokens_of, grids))
    assert all(torch.equal(a, b.codes) for a, b in zip(told[-1].codes(), (one, other), strict=True))
    early = told[grids[0][1]]  # the first row and its line end
    assert len(early.codes()[0]) == 1
    assert torch.equal(early.codes()[0], one.codes[:1])
    assert early.parts == 2  # one row of each
    shown = early.pictures()
    assert [picture.size for picture in shown] == [one.image.size, other.image.size]
    assert shown[0].getpixel((0, one.image.height - 1)) == (128, 128, 128)
    assert near(told[-1].pictures()[1], other.image)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"area": 10}, "area is 10 pixels; pictures of this model have .*images.rule.smallest"),
        ({"area": 10**7}, "area is 10000000 pixels"),
        ({"ratio": "9:1"}, "ratio is 9:1; at most 5:1"),
        ({"ratio": "wide"}, "expected width:height"),
        ({"ratio": ["1:1", "1:2"]}, "ratio lists 2 for 1"),
        ({"negative": ["a", "b"]}, "negative lists 2 for 1"),
        ({"seed": [1, 2]}, "seed lists 2 for 1"),
        ({"per_prompt": 0}, "nothing to draw"),
        ({"guidance": []}, "guidance is empty"),
    ],
)
def test_what_is_out_of_bounds_is_refused(model, options, word, monkeypatch) -> None:
    monkeypatch.setattr(model.decoder, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match=word):
        draw(model, "a", **options)


def test_a_prompt_longer_than_the_positions_is_refused(model) -> None:
    limit = model.decoder.max_positions
    with pytest.raises(ValueError, match=rf"read behind it are \d+; decoder.max_positions is {limit}"):
        draw(model, "red apple " * limit)


def test_models_that_cannot_draw_are_refused(model, monkeypatch) -> None:
    with pytest.raises(TypeError, match=r"draw needs an Emu3 .* got Linear"):
        draw(torch.nn.Linear(2, 2), "a")
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(model, [])
    monkeypatch.setattr(model, "vision_tokenizer", None)
    with pytest.raises(ValueError, match=r"no visual tokenizer: give model.vision_tokenizer"):
        draw(model, "a")
    monkeypatch.setattr(model, "processor", None)
    with pytest.raises(TypeError, match=r"draw needs model.processor"):
        draw(model, "a")
