"""Eve behind the interface of all models that answer: batches of unequal pictures, turns, likelihoods, naming."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.evaluation.captioning import Captioning
from multimodal_zoo.evaluation.likelihood import continuation_scores, likelihoods
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.writers import EveWriter, writer_of
from multimodal_zoo.registry import build

WIDTH, LETTERS = 32, 280
PROMPT = ["a cat a dog the dogs which what why is it picture asked answer"] * 3
ATTENTION = {
    "type": "self_attention", "width": WIDTH,
    "qkv": {"type": "separate_qkv", "width": WIDTH, "heads": 4, "head_dim": 8, "kv_heads": 2, "biased": []},
}  # fmt: skip
BLOCK = {
    "type": "pre_norm_block", "norm": {"type": "rms_norm", "width": WIDTH, "eps": 1e-5}, "layer_scale": None,
    "attention": ATTENTION, "mlp": {"type": "swiglu", "width": WIDTH, "hidden": 48, "bias": False},
}  # fmt: skip
EMBEDDINGS = {
    "v1": {"type": "eve_patch_embedding", "width": WIDTH, "hidden": 16, "patch": 2, "window": 2},
    "v2": {"type": "eve_direct_embedding", "width": WIDTH, "hidden": 16, "patch": 2, "window": 2},
}


CELLS = {"patch": 2, "window": 2, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
RULES = {
    "v1": {"type": "eve_image_transform", "image_size": 24, "teacher_size": 12, "teacher_patch": 2, **CELLS},
    "v2": {"type": "eve_area_transform", "max_size": 12, "inference_rule": "training", **CELLS},
}
WORDS = {"type": "trained_vocabulary", "size": LETTERS, "texts": PROMPT}


@pytest.fixture(scope="module", params=["v1", "v2"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    block = {"type": "decoupled_block", "block": BLOCK} if request.param == "v2" else BLOCK
    decoder = {
        "type": "causal_decoder", "width": WIDTH, "vocab_size": LETTERS + 22, "max_positions": 400, "pad_id": LETTERS,
        "rotary": {"type": "rotary_1d", "head_dim": 8, "base": 1e4},
        "blocks": {"type": "transformer", "depth": 2, "block": block, "init": {"type": "normal_init", "std": 0.2}},
        "norm": {"type": "rms_norm", "width": WIDTH, "eps": 1e-5}, "tied": False, "std": 0.3,
    }  # fmt: skip
    made = build({"type": "eve", "decoder": decoder, "vision_embedding": EMBEDDINGS[request.param]})
    with torch.no_grad():  # far from uniform, so that rounding does not decide
        made.decoder.output.weight.mul_(20)
        for name, parameter in made.named_parameters():
            if ".vision." in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)  # else both branches begin alike
    texts = {"type": "qwen2_tokenizer", "vocabulary": WORDS}
    made.processor = build(
        {"type": "eve_processor", "images": RULES[request.param], "texts": texts, "template": "qwen2"}
    )
    return made.eval()


def picture(seed: int, height: int, width: int) -> Image:
    return Image(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


QUESTIONS = [
    Document([picture(0, 9, 14), Text("what is it", role="user")]),
    Document([picture(1, 4, 4), picture(2, 12, 5), Text("which", role="user")]),
    Document([Text("no picture at all", role="user")]),
    Document([picture(3, 5, 24), Text("hm", role="user"), Text("a dog", role="assistant"), Text("why", role="user")]),
]


def whole(model: nn.Module, sample: Any, drawn: Sequence[int]) -> Tensor:
    """Logits behind a sample and some ids, without cache or batch."""
    ids = torch.cat([sample.ids, torch.tensor(list(drawn), dtype=torch.long)])[None]
    vision = torch.cat([sample.vision, torch.zeros(len(drawn), dtype=torch.bool)])[None]
    with torch.no_grad():
        return model.decoder.head(model(ids, vision=vision, pictures=sample.cells))[0]


def by_hand(model: nn.Module, document: Document, steps: int) -> str:
    drawn: list[int] = []
    sample = model.processor.prompt(document)
    while len(drawn) < steps and (not drawn or drawn[-1] != model.processor.ids.eos):
        drawn.append(int(whole(model, sample, drawn)[-1].argmax()))
    return model.processor.decode(drawn).strip()


def test_answers_do_not_depend_on_their_batch(model: nn.Module) -> None:
    found = answer(model, QUESTIONS, max_new_tokens=12)
    assert found == [by_hand(model, one, 12) for one in QUESTIONS]
    assert len(set(found)) == 4
    assert answer(model, QUESTIONS, max_new_tokens=12, batch_size=3) == found
    assert [answer(model, one, max_new_tokens=12)[0] for one in QUESTIONS] == found


def test_sampled_answers_have_seeds_of_their_own(model: nn.Module) -> None:
    sampling = Sampling(temperature=3.0)
    found = answer(model, QUESTIONS, sampling=sampling, max_new_tokens=8, seed=4)
    assert answer(model, QUESTIONS[1:2], sampling=sampling, max_new_tokens=8, seed=5) == found[1:2]
    assert answer(model, QUESTIONS, sampling=sampling, max_new_tokens=8, seed=9) != found


def test_answers_are_as_long_as_positions_allow(model: nn.Module) -> None:
    told: list[int] = []
    answer(model, QUESTIONS[0], on_token=lambda progress: told.append(progress.limit))
    assert told[0] == 400 - len(model.processor.prompt(QUESTIONS[0]).ids) + 1
    with pytest.raises(ValueError, match=r"decoder\.max_positions is 400"):
        answer(model, QUESTIONS[0], max_new_tokens=400)


def test_likelihoods_behind_pictures(model: nn.Module) -> None:
    writer = writer_of(model, "a test")
    ends = [writer.continuation("which", text, end=True) for text in ("a", "dogs", "a ")]
    assert ends[0] == ends[2]
    assert ends[1][-1] == model.processor.ids.eos
    assert writer.continuation("which", "dogs", end=False) == ends[1][:-1]
    prompt = writer.prompts(QUESTIONS[1:2], False, torch.device("cpu"))
    found = continuation_scores(model.decoder, prompt, ends)
    sample = model.processor.prompt(QUESTIONS[1])
    for tokens, score in zip(ends, found, strict=True):
        logits = whole(model, sample, tokens).log_softmax(-1)[len(sample.ids) - 1 : -1]
        torch.testing.assert_close(score, logits.gather(1, torch.tensor(tokens)[:, None]).sum(), atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="2 prompts"):
        likelihoods(model.decoder, writer.prompts(QUESTIONS[:2], False, torch.device("cpu")), ends)


def test_blank_prompts_have_no_picture(model: nn.Module) -> None:
    writer = writer_of(model, "a test")
    assert writer.blank("why", torch.device("cpu")).inputs.tolist() == [
        model.processor.prompt(Document([Text("why", role="user")])).ids.tolist()
    ]


def test_naming_reads_pictures(model: nn.Module) -> None:
    names = ["a cat", "a dog", "a cow", "a hen"]
    documents = [
        Document([picture(number, 8, 8), Text(names[number % 4])], {"key": str(number)}) for number in range(6)
    ]
    evaluator = Captioning(documents, question="what", max_new_tokens=4, batch_size=4, examples=2, choices=(2, 4))
    result = evaluator(model, model.processor, torch.device("cpu"))
    writer, hits = writer_of(model, "a test"), []
    ends = [writer.continuation("what", name, end=True) for name in names]
    for number, document in enumerate(documents):
        asked = Document([document.segments[0], Text("what")])
        scores = continuation_scores(model.decoder, writer.prompts([asked], False, torch.device("cpu")), ends)
        hits.append(int(scores.argmax()) == number % 4)
    assert result.metrics["choice_of_4"] == pytest.approx(np.mean(hits))
    assert result.metrics["choice_of_2"] >= result.metrics["choice_of_4"]


def test_one_table_says_who_writes(model: nn.Module) -> None:
    assert isinstance(writer_of(model, "a test"), EveWriter)
    assert type(writer_of(zoo.create("emu3_tiny"), "a test")).__name__ == "Emu3Writer"
    with pytest.raises(TypeError, match="a test needs an Emu3 or an Eve"):
        writer_of(nn.Identity(), "a test")
    bare = zoo.create("emu3_tiny", device="meta")
    with pytest.raises(ValueError, match="meta device"):
        writer_of(bare, "a test")
    bare.processor = None
    with pytest.raises(TypeError, match=r"model\.processor with a tokenizer"):
        writer_of(bare, "a test")


@pytest.mark.parametrize("template", ["plain", "plain_stripped", "qwen2"])
def test_naming_without_a_question(model: nn.Module, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"images": model.processor.transform, "texts": model.processor.tokenizer}
    processor = EveProcessor(**node, template=template)
    monkeypatch.setattr(model, "processor", processor)
    writer = writer_of(model, "a test")
    names, shown = ["a cat", "which dog"], picture(5, 6, 9)
    found = continuation_scores(
        model.decoder,
        writer.prompts([Document([shown])], False, torch.device("cpu")),
        [writer.continuation("", name, end=True) for name in names],
    )
    for name, score in zip(names, found, strict=True):  # as in training
        sample = processor.sample(Document([shown, Text(name, role="assistant")]), Random(0))
        learnt = (sample.weights > 0).nonzero()[:, 0]
        with torch.no_grad():
            states = model(sample.ids[None], vision=sample.vision[None], pictures=sample.cells)
        logits = model.decoder.head(states)[0].log_softmax(-1)[learnt - 1]
        torch.testing.assert_close(score, logits.gather(1, sample.ids[learnt][:, None]).sum(), atol=1e-3, rtol=1e-4)
    documents = [Document([picture(n, 8, 8), Text(names[n % 2])], {"key": str(n)}) for n in range(4)]
    result = Captioning(documents, max_new_tokens=3, examples=0, choices=(2,))(model, processor, torch.device("cpu"))
    assert 0 <= result.metrics["choice_of_2"] <= 1
