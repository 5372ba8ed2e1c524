"""EVE's cases: conversations as prompts, ids and labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.data.conversation_templates import MARKER, template_named
from multimodal_zoo.data.conversation_turns import turns_of
from multimodal_zoo.data.conversations import segments_of, turns_of_record
from multimodal_zoo.data.documents import Document, Image
from multimodal_zoo.data.eve_area import EveAreaTransform
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.data.picture_batches import picture_rows_batch
from multimodal_zoo.data.picture_sequences import PictureSample, row_of, shortened
from multimodal_zoo.data.processor import pad_ids
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.tokenizers.json_tokenizer import JsonTokenizer
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer
from multimodal_zoo.tokenizers.qwen2_tokenizer import Qwen2Tokenizer
from multimodal_zoo.tokenizers.vocabularies import TiktokenFile, packaged_ranks
from multimodal_zoo.tokenizers.words import WordTokenizer

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"data"}
KNOWN = ("tokenizer", "real", "model_max_length", "image_token_index", "ignore_index")
#: Where the published vocabulary of LLaMA is, which travels with no package.
VARIABLE = "MMZOO_LLAMA_TOKENIZER"
#: Tokens of the small pictures that stand for any here: a class token, one cell, a split token.
TOKENS = 3


def _config(case: Case) -> dict[str, Any]:
    found = take_known(case.config, KNOWN, "config")
    assert (found["image_token_index"], found["ignore_index"]) == (-200, -100)
    return found


def _is_llama(case: Case) -> bool:
    kind = _config(case)["tokenizer"].split()[0]
    assert kind in ("tokenizer.model", "tokenizer.json"), f"unknown tokenizer file {kind!r}"
    return kind == "tokenizer.model"


def _tokenizers(case: Case) -> dict[str, WordTokenizer]:
    """Each tokenizer of the case that is here, by the name of its results."""
    if _is_llama(case):
        found: dict[str, WordTokenizer] = {"tiny": LlamaTokenizer(str(case.folder / "tokenizer.model"))}
        if file := os.environ.get(VARIABLE):
            found |= {f"real_legacy_{str(old).lower()}": LlamaTokenizer(file, old) for old in (True, False)}
        return found
    found = {"tiny": JsonTokenizer(str(case.folder / "tokenizer.json"), "<|im_end|>", "<|endoftext|>")}
    try:
        packaged_ranks()
    except FileNotFoundError:
        return found
    return {**found, "real": Qwen2Tokenizer(TiktokenFile(None, 151643))}


def tokenizers(case: Case) -> dict[str, WordTokenizer]:
    """See `_tokenizers`; made once."""
    return case.once("tokenizers", lambda: _tokenizers(case))


def _results(row: Mapping[str, Any], given: tuple[str, ...], case: Case) -> Iterator[tuple[str, WordTokenizer, Any]]:
    """The results of a row whose tokenizer is here; all of them must be known."""
    real = ("real_legacy_true", "real_legacy_false") if _is_llama(case) else ("real",)
    take_known(row, (*given, "tiny", *real), "row")
    for name, tokenizer in tokenizers(case).items():
        if name in row:
            yield name, tokenizer, row[name]


def processor(case: Case, version: str, tokenizer: WordTokenizer) -> EveProcessor:
    """Our processor with pictures of one cell."""
    name = "plain_stripped" if version == "plain" and not _is_llama(case) else version
    return EveProcessor(EveAreaTransform(4, 2, 2, [0.5] * 3, [0.5] * 3), tokenizer, name)


def prompts(request: Request) -> Outcome:
    """Conversations as the published code prints them."""
    made = {}
    for number, row in enumerate(request.call.extra["data"]):
        take_known(row, ("template", "messages", "prompt", "stop"), "row")
        template = template_named(row["template"])
        found = {"prompt": template.written(row["messages"]), "stop": template.stop}
        made[f"row {number}"] = Pair(found, {name: row[name] for name in found})
    return made


def chunks(request: Request) -> Outcome:
    """Texts with markers as ids."""
    made = {}
    for number, row in enumerate(request.call.extra["data"]):
        for name, tokenizer, expected in _results(row, ("text",), request.case):
            ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
            for place, part in enumerate(row["text"].split(MARKER)):
                ids += ([-200] if place else []) + tokenizer.encode([part])[0]
            made[f"row {number}, {name}"] = Pair(ids, expected)
    return made


def document(row: Mapping[str, Any]) -> Document:
    """A row's conversation, with a picture in each turn that has markers: published code makes one of several."""
    turns = turns_of_record({"conversations": row["conversation"]}, "row")
    count = sum(MARKER in words for _, words in turns)
    assert bool(count) == row["has_image"]
    blank = [Image(np.zeros((4, 4, 3), np.uint8)) for _ in range(count)]
    return Document(segments_of(turns, blank, "row"), {"key": "row"})


def _published(ids: Tensor, weights: Tensor, vision: Tensor) -> tuple[list[int], list[int]]:
    """Ids with one placeholder for each picture, and labels; nothing predicts the first, so it has none."""
    kept = ~vision
    kept[vision.nonzero().flatten()[::TOKENS]] = True
    labels = ids.masked_fill(weights == 0, -100)
    return ids.masked_fill(vision, -200)[kept].tolist(), labels[kept].tolist()


def _row(row: Mapping[str, Any], case: Case, tokenizer: WordTokenizer) -> tuple[list[int], list[int]]:
    """Published ids and labels of a conversation, whether it can be learnt from or not."""
    ours, (turns, pictures) = processor(case, row["version"], tokenizer), turns_of(document(row))
    found = row_of(ours.template.pieces(turns), tokenizer, [TOKENS] * len(pictures), special=True)
    weights = torch.tensor(found.learnt).float()
    weights[:1] = 0
    return _published(torch.tensor(found.ids), weights, torch.tensor(found.picture) >= 0)


def _first_unseen(labels: list[int]) -> list[int]:
    return [-100, *labels[1:]]


def samples(request: Request) -> Outcome:
    """Conversations to learn from."""
    case, made, limit = request.case, {}, _config(request.case)["model_max_length"]
    for number, row in enumerate(request.call.extra["data"]):
        for name, tokenizer, wanted in _results(row, ("version", "has_image", "conversation"), case):
            take_known(wanted, ("input_ids", "labels", "mismatch"), "result")
            # texts alone are cut by the published tokenizer, others later
            cut = slice(None if row["has_image"] or row["version"] == "plain" else limit)
            ids, labels = (values[cut] for values in _row(row, case, tokenizer))
            place = f"row {number}, {name}"
            made[f"{place}, ids"] = Pair(ids, wanted["input_ids"])
            # ours leaves out what has an empty answer or one of spaces, and says so
            made[f"{place}, usable"] = Pair(_usable(row, case, tokenizer), _answered(row))
            if wanted["mismatch"]:  # the published code discards all labels; ours are right
                assert set(wanted["labels"]) == {-100}
                assert any(label != -100 for label in labels) or not _answered(row)
            else:
                made[f"{place}, labels"] = Pair(labels, _first_unseen(wanted["labels"]))
    return made


def _sample(row: Mapping[str, Any], case: Case, tokenizer: WordTokenizer) -> PictureSample:
    return processor(case, row["version"], tokenizer).sample(document(row), Random(0))


def _answered(row: Mapping[str, Any]) -> bool:
    """Whether every answer of a conversation says something."""
    turns = turns_of_record({"conversations": row["conversation"]}, "row")
    return all(words.strip() for role, words in turns if role == "assistant")


def _usable(row: Mapping[str, Any], case: Case, tokenizer: WordTokenizer) -> bool:
    try:
        _sample(row, case, tokenizer)
    except UnusableError as error:
        if error.reason != "empty answer":
            raise
        return False
    return True


def collated(request: Request) -> Outcome:
    """Conversations as a batch of rows cut off at a number of ids."""
    case, asked = request.case, request.call.extra["data"]
    take_known(asked, ("rows", "model_max_length", "input_ids", "labels", "attention_mask"), "data")
    (before,) = [call.extra["data"] for call in case.calls if call.method.startswith("preprocess_multimodal")]
    tiny, found = tokenizers(case)["tiny"], []
    for number in asked["rows"]:
        try:
            cut = shortened(_sample(before[number], case, tiny), asked["model_max_length"], "ids")
            batch = picture_rows_batch([[cut]], tiny.pad_id)
            ids, labels = _published(batch.ids[0], batch.weights[0], batch.vision[0])
        except UnusableError:  # the published row has lost a picture or has no answer; ours is left out
            ids, labels = (values[: asked["model_max_length"]] for values in _row(before[number], case, tiny))
        labels = [-100] * len(ids) if before[number]["tiny"]["mismatch"] else labels
        found.append((ids, labels))
    expected = [_first_unseen(row) for row in asked["labels"]]
    # published masks also hide a text's own token of padding; our rows show it
    mask = pad_ids([[int(one != tiny.pad_id) for one in ids] for ids, _ in found], 0)
    return {
        "input_ids": Pair(pad_ids([ids for ids, _ in found], tiny.pad_id).tolist(), asked["input_ids"]),
        "labels": Pair(pad_ids([labels for _, labels in found], -100).tolist(), expected),
        "attention_mask": Pair(mask.tolist(), asked["attention_mask"]),
    }


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"Conversation\.get_prompt")(prompts)
    system.call(r"tokenizer_image_token")(chunks)
    system.call(r"preprocess_multimodal \+ preprocess")(samples)
    system.call(r"DataCollatorForSupervisedDataset")(collated)
