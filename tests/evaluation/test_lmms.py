"""lmms-eval runs local tasks on a small model, and finds what the library itself finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PilImage

from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.zoo import create

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install 'multimodal_zoo[lmms]'")

QUESTIONS = ["What is it?", "<image>\nWhich colour?", "How many <image 1> are there?"]
PLAIN = ["What is it?", "Which colour?", "How many  are there?"]
CHOICES = ["red", "blue bowl", "cat"]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function utils.pictures
doc_to_text: !function utils.question
doc_to_target: target
{extra}
"""
UTILS = """
from PIL import Image
def pictures(doc):
    return [Image.open(doc["picture"]).convert("RGB")] if doc["picture"] else []
def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""
GENERATE = """generation_kwargs: {max_new_tokens: 6, until: ["\\n\\n"]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]"""
CHOOSE = """doc_to_choice: choices
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"""


@pytest.fixture(scope="module", params=["emu3_tiny", "eve_tiny"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and two tasks with their data."""
    place = tmp_path_factory.mktemp("lmms")
    model = create(request.param, seed=3)
    with torch.no_grad():  # far from uniform, so that rounding does not decide
        model.decoder.output.weight.mul_(8)
    save_model(model, place / "model")
    rows = []
    for number, text in enumerate(QUESTIONS):
        file = place / f"{number}.png"
        PilImage.new("RGB", (48, 48), (80 * number, 90, 200)).save(file)
        picture = "" if number == 2 else str(file)
        rows.append({"question": text, "picture": picture, "choices": CHOICES, "target": number})
    data = place / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "tasks").mkdir()
    (place / "tasks" / "utils.py").write_text(UTILS)
    for name, kind, extra in (("tiny_vqa", "generate_until", GENERATE), ("tiny_choice", "multiple_choice", CHOOSE)):
        task = TASK.format(name=name, kind=kind, data=data, extra=extra)
        (place / "tasks" / f"{name}.yaml").write_text(task)
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from multimodal_zoo.evaluation.lmms import ChatModel

    model = ChatModel(str(folder / "model"), batch_size=2)
    manager = TaskManager(include_path=str(folder / "tasks"))
    tasks = ["tiny_vqa", "tiny_choice"]
    return simple_evaluate(model=model, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0)


def documents(folder: Path) -> list[Document]:
    pictures = [[Image(PilImage.open(folder / f"{n}.png"))] if n < 2 else [] for n in range(3)]
    return [Document([*pictures[n], Text(text)]) for n, text in enumerate(PLAIN)]


def test_answers_are_those_of_the_library(folder: Path, found: dict[str, Any]) -> None:
    from multimodal_zoo.zoo import from_pretrained

    model = from_pretrained(folder / "model")
    expected = answer(model, documents(folder), max_new_tokens=6)
    samples = sorted(found["samples"]["tiny_vqa"], key=lambda sample: sample["doc_id"])
    assert [sample["filtered_resps"][0] for sample in samples] == [text.split("\n\n")[0].strip() for text in expected]
    assert any(expected)


@torch.no_grad()
def test_choices_are_the_likeliest(folder: Path, found: dict[str, Any]) -> None:
    from multimodal_zoo.zoo import from_pretrained

    model, hits = from_pretrained(folder / "model"), 0
    writer = writer_of(model, "a test")
    for number, document in enumerate(documents(folder)):
        prompt = writer.prompts([document], False, torch.device("cpu"))
        scores = []
        for choice in CHOICES:
            ids = torch.tensor([writer.continuation(PLAIN[number], f" {choice}", end=False)])
            inputs = prompt.inputs if prompt.inputs.dim() == 3 else model.decoder.embed(prompt.inputs)
            whole = torch.cat([inputs, model.decoder.embed(ids)], 1)
            logits = model.decoder.head(model.decoder(whole))[0, inputs.shape[1] - 1 : -1].log_softmax(-1)
            scores.append(logits.gather(1, ids[0, :, None]).sum().item())
        hits += int(max(range(3), key=scores.__getitem__) == number)
    assert found["results"]["tiny_choice"]["acc,none"] == pytest.approx(hits / 3)


def test_lmms_eval_knows_the_model() -> None:
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    from multimodal_zoo.evaluation.lmms import MANIFEST, ChatModel

    registry = ModelRegistryV2()
    registry.register_manifest(MANIFEST)
    assert registry.get_model_class("multimodal_zoo") is ChatModel


def test_what_is_not_offered_is_refused(folder: Path) -> None:
    from multimodal_zoo.evaluation.lmms import ChatModel, _cut, _sampling

    with pytest.raises(ValueError, match=r"num_beams is 4"):
        _sampling({"num_beams": 4})
    assert _sampling({"temperature": 0, "do_sample": False}).greedy
    assert _sampling({"temperature": 0.7, "top_p": 0.9}).top_p == 0.9
    assert _cut("a\nb stop c", ["stop", "\n", ""]) == "a"
    with pytest.raises(ValueError, match="batch_size is auto"):
        ChatModel(str(folder / "model"), batch_size="auto")
    model = ChatModel(str(folder / "model"))
    with pytest.raises(ValueError, match="the task shows a str; this adapter takes pictures"):
        model._document("?", lambda sample: ["clip.mp4"], "mme", {})
    with pytest.raises(ValueError, match="prompts is 'llava'; expected one of eve"):
        ChatModel(str(folder / "model"), prompts="llava")


def test_published_ways_replace_those_of_the_tasks(folder: Path) -> None:
    from multimodal_zoo.evaluation.lmms import ChatModel

    model = ChatModel(str(folder / "model"), prompts="eve")
    document = model._document("Which?\nA. x\nWhatever", None, "seedbench_lite", {})
    assert document.text == "Which?\nA. x\nWhatever\nAnswer with the option's letter from the given choices directly."
    wanted = {"max_new_tokens": 16, "temperature": 0.2, "until": ["x"]}
    assert model._options(wanted, "mme") == {**wanted, "max_new_tokens": 128, "temperature": 0, "do_sample": False}
    assert model._options(wanted, "chartqa") == wanted
    assert model._document("Which?", None, "chartqa", {}).text == "Which?"


def test_rounds_go_on_until_the_task_says_so(folder: Path) -> None:
    from lmms_eval.api.instance import Instance

    from multimodal_zoo.evaluation.lmms import ChatModel

    model = ChatModel(str(folder / "model"))
    model.task_dict = {"chat": {"test": [{"picture": ""}]}}
    asked: list[tuple[int, int]] = []

    def again(sample: Any, previous_output: list[str], round_idx: int, previous_round_info: Any) -> Any:
        """A second question, then the end."""
        asked.append((round_idx, len(previous_output)))
        return None, "And now?", round_idx == 2, previous_output, previous_round_info

    arguments = ("First?", {"max_new_tokens": 2}, lambda sample: None, again, 0, "chat", "test")
    metadata = {"task": "chat", "doc_id": 0, "repeats": 1}
    (said,) = model.generate_until_multi_round([Instance("generate_until_multi_round", arguments, 0, metadata)])
    assert asked == [(1, 1), (2, 2)]
    assert said == answer(model.model, ["First?", "And now?"], max_new_tokens=2)
