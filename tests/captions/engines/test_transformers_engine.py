"""The engine around models of transformers: the answers of `generate`, row by row, and what can go wrong."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from tiny_llama import CHARACTERS, alone, tiny, write_folder, write_tokenizer

import multimodal_zoo.captions.parts  # noqa: F401
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.transformers_models import load_transformers
from multimodal_zoo.registry import build

BEGINNING = "two captions describe one image."
WORDS = (
    "a",
    "boats in water",
    "harbour, view",
    "b",
    "a lighthouse stands on a rock",
    "xyz",
    "no: why",
    "boats in rain",
)
#: Behind one beginning of 32 tokens, in unequal lengths.
REQUESTS = [Request(f"{BEGINNING} {word} fused:", word, ()) for word in WORDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("llama"), tiny())


def engine(folder: Path, **options: Any) -> Any:
    return build({"type": "transformers_engine", "model": str(folder), "max_new_tokens": 12, **options})


def said(ids: list[int]) -> str:
    return "".join(CHARACTERS[number] for number in ids if number > 3)


def ids_of(text: str) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_answers_are_those_of_generate_row_by_row(folder: Path, beams: int) -> None:
    ours, model = engine(folder, beams=beams, batch_size=5), tiny()
    answers = ours.answer(REQUESTS)
    expected = [alone(model, ids_of(one.prompt), beams) for one in REQUESTS]
    assert [answer.text for answer in answers] == [said(ids) for ids in expected]
    assert [answer.tokens for answer in answers] == [len(ids) for ids in expected]
    assert [answer.ended for answer in answers] == [len(ids) < 12 for ids in expected]
    if beams == 2:
        assert {answer.ended for answer in answers} == {True, False}
    assert ours.ready().write.beginnings.read == 32  # of three batches' prompts, once
    assert ours.answer(REQUESTS[3:4])[0] == answers[3]
    assert ours.answer([]) == []


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 2.0])
def test_lengths_of_beams_count_as_in_transformers(folder: Path, penalty: float) -> None:
    answers = engine(folder, beams=3, length_penalty=penalty).answer(REQUESTS)
    expected = [alone(tiny(), ids_of(one.prompt), 3, length_penalty=penalty) for one in REQUESTS]
    assert [answer.text for answer in answers] == [said(ids) for ids in expected]


@pytest.mark.parametrize("beams", [1, 3])
def test_models_with_another_cache_go_through_generate(tmp_path: Path, beams: int) -> None:
    model = tiny("Mistral", sliding_window=8)
    ours = engine(write_folder(tmp_path, model), beams=beams, stop=["\n"])
    answers = ours.answer(REQUESTS[:3])
    assert type(ours.ready().write).__name__ == "PlainWriting"
    for one, answer in zip(REQUESTS, answers, strict=False):
        whole = said(alone(model, ids_of(one.prompt), beams))
        if beams == 1:
            assert answer.text == (whole[: whole.index("\n", 1)] if "\n" in whole[1:] else whole)
        assert "\n" not in answer.text.lstrip()


def test_strings_end_answers(folder: Path) -> None:
    whole = engine(folder).answer(REQUESTS)
    number = max(range(len(whole)), key=lambda number: len(whole[number].text))
    text = whole[number].text
    word = text.strip()[2:4]
    cut = engine(folder, stop=[word]).answer(REQUESTS)[number]
    visible = len(text) - len(text.lstrip())
    assert cut == Answer(text[: text.index(word, visible)], True, text.index(word, visible) + 2)
    beams = engine(folder, stop=[word], beams=3).answer(REQUESTS)
    assert all(word not in answer.text.lstrip() for answer in beams)


@pytest.mark.parametrize("beams", [1, 3])
def test_rows_that_are_asked_again_are_drawn(folder: Path, beams: int) -> None:
    ours = engine(folder, beams=beams)
    first = ours.answer(REQUESTS)
    again = [replace(one, attempt=1 + number % 2) for number, one in enumerate(REQUESTS)]
    drawn = ours.answer(again)
    assert [one.text for one in drawn] != [one.text for one in first]
    assert drawn == [ours.answer([one])[0] for one in again]  # by prompt and attempt alone
    assert drawn != ours.answer([replace(one, attempt=3) for one in REQUESTS])
    mixed = [one for pair in zip(REQUESTS, again, strict=True) for one in pair]
    assert ours.answer(mixed) == [one for pair in zip(first, drawn, strict=True) for one in pair]


def test_special_strings_in_captions_are_text(folder: Path, tmp_path: Path) -> None:
    ours = engine(folder)
    texts = ours.ready().texts
    assert texts.ids("a</s>b", special=True) == [6, 0, 7]
    assert 0 not in texts.ids("a</s>b", special=False)
    assert ours.count(["ab", "", "</s>"]) == [2, 0, 4]
    plain, chat = (engine(folder, layout=layout) for layout in ("plain", "chat"))
    model, told = tiny(), [1, *ids_of("user: a fused:\nassistant:")]
    request = Request("a fused:", "a", ())
    assert plain.answer([request])[0].text == said(alone(model, ids_of("a fused:")))
    assert chat.answer([request])[0].text == said(alone(model, told))
    begins = engine(write_folder(tmp_path / "begins", model, begins=True))
    assert begins.answer([request])[0].text == said(alone(model, [1, *ids_of("a fused:")]))
    assert begins.answer([Request("<s>a fused:", "a", ())])[0].text == begins.answer([request])[0].text
    (tmp_path / "begins" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="layout is chat; the model's tokenizer has no chat template"):
        engine(tmp_path / "begins", layout="chat").answer([request])


def test_batches_shrink_where_memory_does_not_suffice(folder: Path) -> None:
    ours, expected = engine(folder, batch_size=8), engine(folder).answer(REQUESTS)
    ready, sizes = ours.ready(), []

    def write(rows: Any, ending: Any, seeds: Any) -> Any:
        """No memory for more than three rows, nor for long ones."""
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("out of memory")
        if max(map(len, rows)) > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return ready.write(rows, ending, seeds)

    ours._ready = ready._replace(write=write)
    answers = ours.answer(REQUESTS)
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[2:]) <= 2
    long = WORDS.index("a lighthouse stands on a rock")
    assert answers[long].error == "no memory for a prompt of 69 tokens"
    assert [one for n, one in enumerate(answers) if n != long] == [one for n, one in enumerate(expected) if n != long]

    def broken(rows: Any, ending: Any, seeds: Any) -> Any:
        """Another error is no lack of memory."""
        raise RuntimeError("no kernel")

    ours._ready = ready._replace(write=broken)
    with pytest.raises(RuntimeError, match="no kernel"):
        ours.answer(REQUESTS)


@pytest.mark.parametrize("beams", [1, 3])
def test_time_is_limited(folder: Path, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = engine(folder, beams=beams, timeout=5.0)
    assert len(ours.answer(REQUESTS)) == 8
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(TimeoutError, match=r"longer than fusion_engine\.timeout"):
        ours.answer(REQUESTS)


def test_what_does_not_fit_has_an_error(folder: Path) -> None:
    ours = engine(folder)
    long, none, fine = Request("a" * 117, "", ()), Request("", "", ()), Request("a" * 116, "", ())
    answers = ours.answer([long, none, fine])
    assert [answer.error for answer in answers] == [
        "a prompt of 117 tokens; expected 1 to 116", "a prompt of 0 tokens; expected 1 to 116", None,
    ]  # fmt: skip
    assert ours.cut("abcdef", 2) == "abcd"
    assert ours.cut("ab", 5) == ""
    assert ours.cut("ab", 0) == "ab"
    ours.close()
    ours.close()
    with pytest.raises(RuntimeError, match="transformers_engine is closed"):
        ours.answer([fine])


def test_what_decides_answers_is_described(folder: Path, tmp_path: Path) -> None:
    ours = engine(folder, beams=3, stop=["\n"])
    told = ours.describe()
    assert json.loads(json.dumps(told)) == told
    assert ours._ready is None
    expected = {"engine": "transformers_engine", "model": str(folder), "dtype": "float32", "beams": 3, "stop": ["\n"]}
    assert expected.items() <= told.items()
    assert engine(folder, beams=3, stop=["\n"], batch_size=2, timeout=9.0).describe() == told
    other = tiny()
    with torch.no_grad():
        other.model.norm.weight[0] += 1
    assert engine(write_folder(tmp_path, other)).describe()["fingerprint"] != told["fingerprint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "talk"}, "layout is 'talk'; expected one of plain, chat"),
        ({"beams": 0}, "beams is 0; it must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"stop": [""]}, "stop is .*none of them empty"),
        ({"stop": "\n"}, "stop is .*a list"),
        ({"timeout": 0.0}, "timeout is 0.0; it must be positive"),
        ({"dtype": "int8"}, "dtype is 'int8'; expected auto, float32, bfloat16, float16"),
        ({"device": "moon"}, "device is 'moon'; expected auto"),
    ],
)
def test_values_that_cannot_be_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        engine(folder, **options)


def test_pickled_shards_become_the_wanted_type_one_after_the_other(tmp_path: Path) -> None:
    model = tiny()
    write_tokenizer(tmp_path)
    model.config.save_pretrained(tmp_path)
    model.generation_config.save_pretrained(tmp_path)
    names, placed = list(model.state_dict()), {}
    for number in range(3):
        shard = {name: model.state_dict()[name].clone() for name in names[number::3]}
        torch.save(shard, tmp_path / f"pytorch_model-0000{number + 1}-of-00003.bin")
        placed |= dict.fromkeys(shard, f"pytorch_model-0000{number + 1}-of-00003.bin")
    index = {"metadata": {}, "weight_map": placed}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    from multimodal_zoo.captions.engines.model_files import find_model

    loaded = load_transformers(find_model(tmp_path), dtype="bfloat16")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor.bfloat16()), name
    assert engine(tmp_path).answer(REQUESTS) == engine(write_folder(tmp_path / "whole", model)).answer(REQUESTS)
    lacking = {name: tensor for name, tensor in shard.items() if "norm" not in name}
    torch.save(lacking, tmp_path / "pytorch_model-00003-of-00003.bin")
    index["weight_map"] = {n: f for n, f in placed.items() if n in lacking or not f.startswith("pytorch_model-00003")}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"weights of LlamaForCausalLM are not in its files.*norm"):
        engine(tmp_path).count(["a"])
