"""Sequences that teach fusion: read as at inference, learnt from the answer on."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines.texts import ZooTexts, prompt_ids
from multimodal_zoo.captions.prompts import FusionPrompt
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.fusion_layout import FusionLayout
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.text_processor import TextProcessor
from multimodal_zoo.data.token_batches import padded_batch
from multimodal_zoo.data.token_sequences import TokenSample, TokenWeights

PROMPT = FusionPrompt("Join.\nWeb: {raw}\nModel: {synthetic}\nBoth:")
WEIGHTS = TokenWeights(text=1.0, vision=0.0, layout=0.0, prompt=0.0, end=1.0)


class Beginning:
    """A tokenizer whose publisher puts a begin token in front."""

    adds_bos, bos_id = True, 5

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.fixture(scope="module")
def processor() -> TextProcessor:
    return zoo.create("capsfus_llama_tiny", device="meta").processor


def document(**facts: Any) -> Document:
    return Document([Text(str(facts.get("fused")))], {"key": "row", **facts})


def sample(processor: TextProcessor, prompt: FusionPrompt = PROMPT, **facts: Any) -> TokenSample:
    return WEIGHTS(FusionLayout(prompt)(document(**facts), processor, Random(0)), processor.ids, "row")


ROW = {"raw": "red apple IMG_7731.jpg", "synthetic": "a round fruit.", "fused": "A red apple, a round fruit."}


def test_the_answer_and_the_end_alone_are_learnt(processor: TextProcessor) -> None:
    one = sample(processor, **ROW)
    prompt = PROMPT.fill(ROW["raw"], ROW["synthetic"])
    learnt = one.ids[one.weights > 0].tolist()
    assert learnt[-1] == processor.ids.eos
    assert processor.decode(learnt[:-1]) == f" {ROW['fused']}"
    assert processor.decode(one.ids.tolist()) == f"{prompt} {ROW['fused']}"
    first = int((one.weights > 0).nonzero()[0])
    assert not one.weights[:first].any()
    assert one.weights[first:].eq(1).all()


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(
    "raw", ["red apple", "a <|im_end|> b", "nai\u0308ve caf\u00e9 \U0001f34e 1,024", "{raw} {synthetic}"]
)
def test_what_is_read_is_what_an_engine_reads(processor: TextProcessor, begins: bool, raw: str) -> None:
    tokenizer = Beginning(processor.tokenizer) if begins else processor.tokenizer
    own = TextProcessor(tokenizer)
    one = sample(own, raw=raw, synthetic="a fruit", fused="An apple.")
    read = one.ids[one.weights == 0].tolist()
    request = Request(PROMPT.fill(raw, "a fruit"), raw, ("a fruit",))
    assert read == prompt_ids(ZooTexts(tokenizer), request, chat=False)
    assert (read[0] == 5) is begins


def test_long_captions_are_cut_as_at_inference(processor: TextProcessor) -> None:
    prompt = FusionPrompt(PROMPT.template, limit=60)
    facts = {**ROW, "raw": "red apple " * 40}
    one = sample(processor, prompt, **facts)
    filled = prompt.shorten(facts["raw"], (facts["synthetic"],), processor.count, processor.cut)
    assert filled.cut > 0
    assert filled.fits
    assert processor.decode(one.ids[one.weights == 0].tolist()) == filled.prompt
    assert int((one.weights == 0).sum()) <= 60


def test_several_captions_and_half_pairs(processor: TextProcessor) -> None:
    several = sample(processor, raw="red", synthetic=["a fruit.", " ", "food"], fused=["One.", "Two."])
    text = processor.decode(several.ids.tolist())
    assert "Model: a fruit. food\n" in text
    assert text.endswith(("Both: One.", "Both: Two."))
    assert "Web: \nModel: a fruit." in processor.decode(
        sample(processor, synthetic="a fruit.", fused="X.").ids.tolist()
    )


@pytest.mark.parametrize(
    ("facts", "limit", "reason"),
    [
        ({"raw": "red", "synthetic": "a fruit"}, None, "missing caption"),
        ({"raw": "red", "synthetic": "a", "fused": "  "}, None, "missing caption"),
        ({"raw": "red", "synthetic": "a", "fused": "b", "status": "rejected"}, None, "missing caption"),
        ({"raw": "", "synthetic": [], "fused": "b"}, None, "missing caption"),
        (ROW, 4, "prompt too long"),
    ],
)
def test_rows_that_cannot_be_used(
    processor: TextProcessor, facts: dict[str, Any], limit: int | None, reason: str
) -> None:
    with pytest.raises(UnusableError, match=reason):
        sample(processor, FusionPrompt(PROMPT.template, limit=limit), **facts)


def test_rows_are_filled_up_on_the_right(processor: TextProcessor) -> None:
    rows = [sample(processor, **{**ROW, "fused": text}) for text in ("A.", "A red apple on a tree in the sun.")]
    batch = padded_batch(rows, processor.ids.pad)
    short = len(rows[0].ids)
    assert torch.equal(batch.ids[0, :short], rows[0].ids)
    assert batch.ids[0, short:].eq(processor.ids.pad).all()
    assert not batch.weights[0, short:].any()
    assert batch.documents[0, short:].eq(-1).all()


def test_a_tokenizer_without_an_end(processor: TextProcessor) -> None:
    class Endless(Beginning):
        eos_id = None

    with pytest.raises(ValueError, match=r"Endless.*no end token"):
        _ = TextProcessor(Endless(processor.tokenizer)).ids
