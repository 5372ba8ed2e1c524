"""Answering question files with a small random model: the answer file, going on, the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pil
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.evaluation.suite import run_suite
from multimodal_zoo.evaluation.vqa import VisualQuestions
from multimodal_zoo.evaluation.vqa_questions import QuestionLines
from multimodal_zoo.evaluation.vqa_scores import GqaScore
from multimodal_zoo.inference.chat import answer

SMALL = ["model.decoder.width=32", "model.decoder.blocks.depth=1", "model.decoder.blocks.block.mlp.hidden=48"]
SMALL += ["model.decoder.blocks.block.attention.qkv.head_dim=8", "model.vision_tokenizer.encoder.multipliers=[1,1,1]"]


@pytest.fixture(scope="module", params=["emu3_tiny", "eve_v2_tiny"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    overrides = SMALL if request.param == "emu3_tiny" else ["model.decoder.blocks.depth=1"]
    return zoo.create(request.param, overrides=overrides).eval()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [{"question_id": n, "image": f"{n}.png", "text": f"Is <eos> it {n}?"} for n in range(5)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(5):
        Pil.new("RGB", (20, 20 + 8 * number), (50 * number, 9, 99)).save(tmp_path / f"{number}.png")
    (tmp_path / "truth.json").write_text(json.dumps({str(n): {"answer": "x"} for n in range(5)}))
    return tmp_path


def benchmark(root: Path, **changes: Any) -> VisualQuestions:
    questions = QuestionLines(str(root), "q.jsonl", ".")
    arguments = {"ending": "Be short.", "max_new_tokens": 3, "batch_size": 2, "folder": str(root / "answers")}
    return VisualQuestions(questions, GqaScore(str(root), "truth.json"), **{**arguments, **changes})


def test_answers_are_those_of_the_library(model: nn.Module, root: Path) -> None:
    result = benchmark(root)(model, model.processor, torch.device("cpu"))
    rows = [json.loads(line) for line in (root / "answers/answers.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}] * 5
    for number, row in enumerate(rows):
        prompt = f"Is <eos> it {number}?\nBe short."
        asked = Document([Image(Pil.open(root / f"{number}.png")), Text(prompt)])
        assert (row["question_id"], row["prompt"]) == (number, prompt)
        assert [row["text"]] == answer(model, asked, max_new_tokens=3, special=False)
    assert len({row["answer_id"] for row in rows}) == 5
    assert (result.metrics["questions"], result.metrics["asked_now"], result.metrics["accuracy"]) == (5, 5, 0)
    assert result.figures["answers"].png


def test_an_interrupted_run_goes_on(model: nn.Module, root: Path) -> None:
    benchmark(root)(model, model.processor, torch.device("cpu"))
    file = root / "answers/answers.jsonl"
    whole = file.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == 10]
    file.write_bytes(whole[: ends[2] + 9])  # three lines and the beginning of one
    result = benchmark(root, batch_size=1, examples=0)(model, model.processor, torch.device("cpu"))
    assert result.metrics["asked_now"] == 2
    assert file.read_bytes() == whole


def test_line_ends_of_unicode_in_an_answer_are_no_ends_of_its_line(
    model: nn.Module, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VisualQuestions, "_answers", lambda self, model, documents: ["a\u2028b\x85c"] * len(documents))
    for asked, first in ((2, 2), (3, 5)):
        result = benchmark(root, first=first, examples=0)(model, model.processor, torch.device("cpu"))
        assert result.metrics["asked_now"] == asked


def test_one_evaluator_serves_several_models(model: nn.Module, root: Path) -> None:
    evaluator, device = benchmark(root, folder=None, first=1, examples=0), torch.device("cpu")
    for name in ("one", "two"):
        found = run_suite(model, model.processor, {"gqa": evaluator}, root / name, device)["gqa"]
        assert found.details["folder"] == str(root / name / "gqa")
        assert (root / name / "gqa" / "answers.jsonl").is_file()


def test_a_damaged_answer_file_is_named(model: nn.Module, root: Path) -> None:
    (root / "answers").mkdir()
    (root / "answers/answers.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"answers.jsonl, line 1: no 'question_id'"):
        benchmark(root)(model, model.processor, torch.device("cpu"))
    (root / "answers/settings.json").write_text("[")
    with pytest.raises(ValueError, match=r"settings.json is damaged"):
        benchmark(root)(model, model.processor, torch.device("cpu"))


def test_other_settings_and_questions_are_refused(model: nn.Module, root: Path) -> None:
    benchmark(root, first=2)(model, model.processor, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"answers of another ending \('Be short.', now ''\)"):
        benchmark(root, ending="")(model, model.processor, torch.device("cpu"))
    lines = (root / "q.jsonl").read_text().splitlines()
    (root / "q.jsonl").write_text("\n".join(reversed(lines)))
    with pytest.raises(ValueError, match="line 1: no answer to question 4; delete it"):
        benchmark(root)(model, model.processor, torch.device("cpu"))
    (root / "q.jsonl").write_text(lines[0])
    with pytest.raises(ValueError, match="2 answers to 1 questions"):
        benchmark(root)(model, model.processor, torch.device("cpu"))
    (root / "q.jsonl").write_text("")
    with pytest.raises(ValueError, match="no question for gqa"):
        benchmark(root)(model, model.processor, torch.device("cpu"))
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        benchmark(root, max_new_tokens=0)
    with pytest.raises(ValueError, match=r"vqa\.folder"):
        benchmark(root, folder=None)(model, model.processor, torch.device("cpu"))


@pytest.mark.parametrize("name", ["eve", "eve_quick"])
def test_published_benchmarks_compose(name: str, model: nn.Module, tmp_path: Path, root: Path) -> None:
    config = zoo.compose("base/eval", ["model=emu3_tiny", f"benchmark={name}", f"benchmark_root={root}"])
    assert {"gqa", "textvqa", "pope", "scienceqa", "mme"} <= set(config.benchmark)
    gqa = root / "gqa"
    (gqa / "data/questions1.2").mkdir(parents=True)
    (gqa / "data/images").mkdir()
    Pil.new("RGB", (20, 20)).save(gqa / "data/images/1.png")
    (gqa / "data/questions1.2/testdev_balanced_questions.json").write_text('{"1": {"answer": "x"}}')
    (gqa / "llava_gqa_testdev_balanced.jsonl").write_text('{"question_id": "1", "image": "1.png", "text": "What?"}\n')
    found = run_suite(model, model.processor, config.benchmark, tmp_path / "run", torch.device("cpu"))
    assert set(found) == {"gqa"}  # the data of the others is not there
    assert found["gqa"].metrics["questions"] == 1
    assert (tmp_path / "run/gqa/answers.jsonl").is_file()
