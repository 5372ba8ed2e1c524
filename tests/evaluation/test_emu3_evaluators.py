"""Naming and drawing evaluated on a small random Emu3, against figures computed another way."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data.documents import Codes, Document, Image, Text
from multimodal_zoo.evaluation.captioning import Captioning, word_f1, words
from multimodal_zoo.evaluation.drawing_sheet import drawing_sheet
from multimodal_zoo.evaluation.drawn_pictures import DrawnPictures
from multimodal_zoo.evaluation.likelihood import continuation_scores, picture_scores
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.registry import build

SMALL = ["model.decoder.width=32", "model.decoder.blocks.depth=1", "model.decoder.blocks.block.mlp.hidden=48"]
SMALL += ["model.decoder.blocks.block.attention.qkv.head_dim=8", "model.vision_tokenizer.encoder.multipliers=[1,1,1]"]


def squares(count: int, first: int = 0) -> list[Document]:
    colours = np.random.default_rng(0).integers(256, size=(50, 3), dtype=np.uint8)
    names = ["red square", "green square", "blue box", "red box", "grey square", "dark box", "pale thing", "red thing"]
    return [
        Document(
            [Image(np.tile(colours[number], (20, 20, 1))), Text(names[number % 8])],
            {"key": str(number), "style_name": "flat"},
        )
        for number in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    made = zoo.create("emu3_tiny", overrides=SMALL).eval()
    with torch.no_grad():
        made.decoder.head_weight.mul_(20.0)  # else all continuations are equally likely
        made.vision_tokenizer.quantizer.codebook.copy_(torch.randn(512, 4))
    return made


def test_words_in_common() -> None:
    assert words("Red-hot: Chili's!") == ["red", "hot", "chili", "s"]
    assert word_f1("a red car", "the red car") == pytest.approx(2 / 3)
    assert (word_f1("", "x"), word_f1("b a", "a b"), word_f1("a a", "a")) == (0.0, 1.0, pytest.approx(2 / 3))


def test_naming_equals_one_by_one(model) -> None:
    documents = squares(6)
    result = Captioning(documents, batch_size=4, max_new_tokens=5)(model, model.processor, torch.device("cpu"))
    processor, decoder = model.processor, model.decoder
    names = [document.text for document in documents]
    ends = [[*processor.text_ids(name), processor.ids.eos] for name in names]
    likely, plain = [], continuation_scores(decoder, [processor.ids.bos], ends)
    said = []
    for document in documents:
        codes = model.encode(processor.images([document.image])[0][None])[0]
        prompt = processor.understanding_prompt("", [codes])
        likely.append(continuation_scores(decoder, prompt, ends))
        said += answer(model, Document([Image(document.image)]), max_new_tokens=5)
    table = torch.stack(likely)
    places = torch.arange(6)
    ranks = {"choice": (table > table[places, places, None]).sum(1)}
    gain = table - plain
    ranks["gain"] = (gain > gain[places, places, None]).sum(1)
    for kind, found in ranks.items():
        assert result.metrics[f"{kind}_R@1"] == pytest.approx((found < 1).float().mean().item())
        assert result.metrics[f"{kind}_R@5"] == pytest.approx((found < 5).float().mean().item())
    assert result.metrics["name_nats"] == pytest.approx(-table[places, places].mean().item(), abs=1e-3)
    assert result.metrics["word_f1"] == pytest.approx(
        np.mean([word_f1(*pair) for pair in zip(said, names, strict=True)])
    )
    assert result.details["choices"] == 6
    assert result.figures["answers"].png


def test_choice_among_a_few(model) -> None:
    made = Captioning(squares(6), batch_size=6, max_new_tokens=1, examples=0, choices=(1, 3, 6))
    result = made(model, model.processor, torch.device("cpu"))
    assert (result.metrics["choice_of_1"], result.metrics["gain_of_1"]) == (1.0, 1.0)
    assert result.metrics["choice_of_6"] == pytest.approx(result.metrics["choice_R@1"])
    assert result.metrics["choice_of_6"] <= result.metrics["choice_of_3"] <= 1.0
    assert result.details["intervals"]["gain_of_3"][0] < result.metrics["gain_of_3"]
    assert [row[0] for row in result.tables[2].rows][-1] == "chance"
    with pytest.raises(ValueError, match="choices lists 7; expected 1 to 6"):
        Captioning(squares(6), choices=(7,))(model, model.processor, torch.device("cpu"))


def test_a_question_stands_in_the_prompt(model) -> None:
    one, other = (Captioning(squares(3), question=q, examples=0)._asked([squares(1)[0]])[0] for q in ("", "what?"))
    assert [type(segment) for segment in one.segments] == [Image]
    assert [type(segment) for segment in other.segments] == [Image, Text]


def evaluator(**changes: Any) -> DrawnPictures:
    prompt = build({"type": "template_caption", "templates": ["{style_name}: {text}"]})
    arguments: dict[str, Any] = {"prompt": prompt, "guidance": 2.0, "sampling": {"top_k": 8}, "seed": 3}
    return DrawnPictures(**{"dataset": squares(5), "training": squares(7, first=5), **arguments, **changes})


def test_drawing_equals_one_by_one(model) -> None:
    result = evaluator(batch_size=2)(model, model.processor, torch.device("cpu"))
    processor = model.processor
    training = torch.stack(processor.images([document.image for document in squares(7, first=5)]))
    codes = model.encode(training)
    overlaps, differences = [], []
    for number, document in enumerate(squares(5)):
        prompt = f"flat: {document.text}"
        (one,) = draw(model, prompt, guidance=2.0, sampling=Sampling(top_k=8), seed=3 + number)
        overlaps.append((codes == one.codes).float().mean(dim=(1, 2)).max().item())
        shown = np.asarray(one.image, dtype=np.float32)
        others = [np.asarray(picture, dtype=np.float32) for picture in processor.pictures(training)]
        differences.append(min(np.sqrt(np.mean(((shown - other) / 255) ** 2)) for other in others))
    assert result.metrics["code_overlap"] == pytest.approx(np.mean(overlaps), abs=1e-6)
    assert result.metrics["to_training"] == pytest.approx(np.mean(differences), abs=2e-3)
    assert result.metrics["copied"] == np.mean(np.array(overlaps) >= 0.9)
    assert "not given" in result.details["clip"]
    assert not any(key.startswith("clip") for key in result.metrics)
    assert result.figures["drawings"].png


def test_training_pictures_themselves_are_copies(model) -> None:
    result = evaluator(dataset=squares(3), training=squares(7))(model, model.processor, torch.device("cpu"))
    assert (result.metrics["true_copied"], result.metrics["true_to_training"]) == (1.0, pytest.approx(0.0, abs=2e-3))


def test_a_dual_encoder_that_is_not_there_is_missed_before_anything_is_drawn(model, monkeypatch) -> None:
    from multimodal_zoo.evaluation import drawn_pictures

    drawn: list[Any] = []
    monkeypatch.setattr(drawn_pictures, "draw", lambda *words, **settings: drawn.append(words))
    with pytest.raises(RuntimeError, match="runs/none"):
        evaluator(clip="runs/none")(model, model.processor, torch.device("cpu"))
    assert not drawn


def test_agreement_by_a_dual_encoder(model, tmp_path: Path) -> None:
    clip = zoo.create("clip_tiny", overrides=["encoder@model.image=clip_vit_tiny", "model.text.blocks.depth=1"])
    save_model(clip, tmp_path / "clip")
    result = evaluator(clip=str(tmp_path / "clip"), examples=0)(model, model.processor, torch.device("cpu"))
    again = zoo.from_pretrained(tmp_path / "clip")
    with torch.no_grad():
        texts = again.encode_text(again.processor.texts([document.text for document in squares(5)]))
        shown = model.processor.pictures(torch.stack(model.processor.images([d.image for d in squares(5)])))
        scores = again.encode_image(again.processor.images([Pil.fromarray(np.asarray(one)) for one in shown])) @ texts.T
    ranks = (scores > scores.diagonal()[:, None]).sum(1)
    assert result.metrics["true_R@1"] == pytest.approx((ranks < 1).float().mean().item())
    assert result.metrics["true_cosine"] == pytest.approx(scores.diagonal().mean().item(), abs=1e-4)
    assert {"clip_R@1", "tokenizer_R@5"} <= set(result.metrics)
    assert result.headline[0] == "clip_R@1"


def test_likelihood_of_pictures_is_that_of_whole_sequences(model) -> None:
    processor, codes = model.processor, torch.randint(512, (2, 3, 2))
    found = picture_scores(model, processor, ["red", ""], codes)
    for prompt, picture, score in zip(["red", ""], codes, found, strict=True):
        before = processor.generation_prompt(prompt, (3, 2))
        whole = [processor.ids.bos, *processor.text_ids(prompt), *processor.image_ids(picture)]
        with torch.no_grad():
            logits = model.decoder.head(model.decoder(torch.tensor([whole])))[0].log_softmax(-1)
        wanted = torch.tensor(whole[len(before) :])
        expected = logits[len(before) - 1 : -1].gather(1, wanted[:, None]).sum() / 6
        torch.testing.assert_close(score, expected, atol=1e-4, rtol=1e-4)


def test_pictures_of_different_sizes_are_refused(model) -> None:
    wide = Document([Image(np.zeros((20, 60, 3), np.uint8)), Text("wide")], {"style_name": "flat"})
    with pytest.raises(ValueError, match="different sizes"):
        evaluator(training=[*squares(2), wide])(model, model.processor, torch.device("cpu"))
    with pytest.raises(ValueError, match="no picture"):
        evaluator(training=[])(model, model.processor, torch.device("cpu"))


def test_a_sheet_has_a_row_for_each_prompt() -> None:
    cell = (np.zeros((4, 4, 3), np.uint8), "0.1")
    sizes = [Pil.open(BytesIO(drawing_sheet(["a"] * n, {"drawn": [cell] * n}))).size for n in (1, 3)]
    assert sizes[1][1] > 2 * sizes[0][1] - 60


def test_codes_are_taken_as_they_are(model) -> None:
    codes = Document([Codes(np.zeros((8, 8), np.int64))])
    assert len(answer(model, [codes], max_new_tokens=2)) == 1
