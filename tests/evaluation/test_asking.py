"""Words around questions as published, what of answers counts, dialogues and yes-or-no questions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from safetensors.torch import load_file
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.data.benchmark_set import AbsentDataError
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.evaluation.asking import Asking, is_known, written_as
from multimodal_zoo.evaluation.clean_ups import short_answer, short_caption, vizwiz_answer
from multimodal_zoo.evaluation.dialogue_ranking import DialogueRanking, ndcg, option_scores
from multimodal_zoo.evaluation.question_records import QuestionRecords
from multimodal_zoo.evaluation.vqa import VisualQuestions
from multimodal_zoo.evaluation.yes_no_auc import YesNoAuc, area_under_curve
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.added_tokens import AddedTokens
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer

CPU = torch.device("cpu")
CASE = Path(__file__).parents[1] / "goldens/emu/prompts_emu1_instruct"
BLANK = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(scope="module")
def eve() -> Any:
    return zoo.create("eve_v2_tiny", overrides=["model.decoder.blocks.depth=1"]).eval()


@pytest.fixture(scope="module")
def instruct() -> EmuProcessor:
    """Emu-I's processor with the small tokenizer of its cases."""
    config = json.loads((CASE / "case.json").read_text())["config"]
    own = LlamaTokenizer(str(CASE / "tokenizer.model"))
    words = [word for word, _ in sorted(config["special_ids"].items(), key=lambda item: item[1])]
    tokens = AddedTokens(own, [word for word in words if config["special_ids"][word] >= own.vocab_size], "[PAD]")
    images = ImageTransform(28, mean=[0.5] * 3, std=[0.5] * 3)
    return EmuProcessor(images, tokens, config["n_image_tokens"], template="emu_instruct", closing=True)


def published(name: str) -> list[int]:
    return load_file(CASE / "io.safetensors")[f"ids.eval.{name}"].flatten().tolist()


@pytest.mark.parametrize("name", ["coco", "vqav2", "vizwiz", "mmvet", "vizwiz_answerable"])
def test_the_benchmark_asks_as_published(name: str, instruct: EmuProcessor) -> None:
    config = zoo.compose("base/eval", ["model=emu_tiny", "benchmark=emu_instruct", "benchmark_root=none"]).benchmark
    node = config[name.partition("_")[0]]
    asking: Asking = build(node.asking)
    words = node.questions.text if name == "coco" else "what is the man doing?"
    asked = Document([Image(BLANK), Text(words, role="user")])
    document = asking._formed(asked, asking.known, "") if name == "vizwiz_answerable" else asking.document(asked)
    assert instruct.prompt(document, special=False).ids.tolist() == published(name)


def test_dialogues_are_asked_as_published(instruct: EmuProcessor, tmp_path: Path) -> None:
    node = zoo.compose("base/eval", ["model=emu_tiny", "benchmark=emu_instruct", f"benchmark_root={tmp_path}"])
    part: DialogueRanking = build(node.benchmark.visdial)
    part.images = "{image_id}.png"
    Pil.new("RGB", (4, 4)).save(tmp_path / "7.png")
    visdial(tmp_path, [["is it sunny", "yes"], ["how many dogs", "2"], ["what is the man doing", "no"]])
    part.file, part.dense = "d.json", None
    assert instruct.prompt(part.document(part.rounds()[2]), special=False).ids.tolist() == published("visdial")


def visdial(root: Path, told: list[list[str]]) -> None:
    """VisDial's layout with one dialogue; the right answer is the second option."""
    questions, answers = [one for one, _ in told], ["a", "b", *(said for _, said in told)]
    dialog = [
        {"question": n, "answer": n + 2, "answer_options": [0, n + 2, 1], "gt_index": 1} for n in range(len(told))
    ]
    data = {"questions": questions, "answers": answers, "dialogs": [{"image_id": 7, "caption": "c", "dialog": dialog}]}
    (root / "d.json").write_text(json.dumps({"data": data}))


def test_what_of_an_answer_counts() -> None:
    assert short_answer('It\'s the red one, I think. "Yes"\nno') == "red one"
    assert short_answer("An apple.") == "apple"
    assert short_caption("A dog. It runs.\nx") == "a dog"
    assert (vizwiz_answer("A cup.", "no."), vizwiz_answer("A cup.", "no")) == ("unanswerable", "cup")
    with pytest.raises(ValueError, match=r"asking\.clean_up is 'short'"):
        Asking(clean_up="short")
    with pytest.raises(ValueError, match=r"asking\.form is 'What\?'"):
        Asking(form="What?")


@pytest.mark.parametrize("role", [None, "assistant"])
def test_words_go_around_the_question_and_around_no_example(role: str | None) -> None:
    """Behind an example without a role stands a picture about which nothing is asked."""
    shown = [Image(BLANK), Text("a cat.", role), Image(BLANK)]
    asked = Asking(form="describe it {question}").document(Document(shown))
    assert [one.text for one in asked.segments if isinstance(one, Text)] == ["a cat.", "describe it"]
    asked = Asking(form="describe it {question}").document(Document([*shown, Text("now")]))
    assert [one.text for one in asked.segments if isinstance(one, Text)] == ["a cat.", "describe it now"]


def test_answers_and_clean_up(eve: nn.Module) -> None:
    asked = [Document([Image(BLANK), Text("what?", role="user")], {"key": str(n)}) for n in range(2)]
    formed = Document([Image(BLANK), Text("please: what? now", role="user")])
    (plain,) = answer(eve, formed, max_new_tokens=4, special=False)
    way = Asking(form="please: {question} now", clean_up="short_answer")
    assert way.answers(eve, asked, 4) == [short_answer(plain)] * 2
    known = is_known(eve, Document([Image(BLANK), Text("what? known?", role="user")]))
    way = Asking(form="please: {question} now", clean_up="short_answer", known="{question} known?")
    assert way.answers(eve, asked[:1], 4) == [vizwiz_answer(plain, known)]
    with pytest.raises(TypeError, match=r"asking\.template is 'emu2_chat', but the model's processor"):
        Asking(template="emu2_chat").answers(eve, asked, 4)


def test_a_template_holds_for_the_while() -> None:
    model = zoo.create("emu2_tiny", overrides=["model.decoder.blocks.depth=1"])
    own = model.processor
    with written_as(model, "emu2_few_shot"):
        assert model.processor is not own
        assert model.processor.template is not own.template
    assert model.processor is own


def test_ndcg_is_that_of_its_formula() -> None:
    relevance = torch.tensor([0.0, 1.0, 0.4, 0.0])
    for order in itertools.permutations(range(4)):
        gain = sum(float(relevance[place]) / np.log2(n + 2) for n, place in enumerate(order[:2]))
        assert ndcg(torch.tensor(order), relevance) == pytest.approx(gain / (1 + 0.4 / np.log2(3)))
    with pytest.raises(ValueError, match="no option is relevant"):
        ndcg(torch.arange(2), torch.zeros(2))


def test_dialogue_ranking(eve: nn.Module, tmp_path: Path) -> None:
    Pil.new("RGB", (20, 20), "red").save(tmp_path / "7.png")
    visdial(tmp_path, [["is it red", "yes it is"], ["how many", "2"]])
    dense = [{"image_id": 7, "round_id": 2, "gt_relevance": [0.0, 1.0, 0.5]}]
    (tmp_path / "dense.json").write_text(json.dumps(dense))
    whole = DialogueRanking(str(tmp_path), "d.json", "{image_id}.png")
    found = whole(eve, None, CPU).metrics
    places = []
    writer = writer_of(eve, "test")
    for one in whole.rounds():
        document = whole.document(one)
        prompt = writer.prompts([document], False, CPU)
        losses = []
        for option in one.options:  # each row from the beginning, as the published program has it
            ids = torch.tensor(writer.continuation(document.segments[-1].text, option, end=False))
            inputs = torch.cat([prompt.inputs, eve.decoder.embed(ids[None])], dim=1)
            with torch.no_grad():
                vision = nn.functional.pad(prompt.vision, (0, len(ids)))
                logits = eve.decoder.head(eve.decoder(inputs, vision=vision))[0, -len(ids) - 1 : -1]
            losses.append(nn.functional.cross_entropy(logits, ids, reduction="sum") / (inputs.shape[1] - 1))
        torch.testing.assert_close(
            option_scores(writer, document, one.options, CPU), -torch.stack(losses), atol=1e-4, rtol=1e-4
        )
        places.append(int((torch.stack(losses) < losses[1]).sum()))
    assert found["mrr"] == pytest.approx(np.mean([1 / (place + 1) for place in places]))
    judged = DialogueRanking(str(tmp_path), "d.json", "{image_id}.png", dense="dense.json")(eve, None, CPU)
    assert judged.details["judged"] == judged.details["rounds"] == 1
    assert 0 < judged.metrics["ndcg"] <= 1
    (tmp_path / "d.json").write_text('{"data": {"dialogs": [{}]}}')
    with pytest.raises(ValueError, match="dialogues in VisDial's layout"):
        whole.rounds()


def test_area_under_the_curve(eve: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randint(0, 6, (40,)).float(), torch.rand(40) > 0.6
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels].tolist() for b in scores[~labels].tolist()]
    assert area_under_curve(scores, labels) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="got 0 and 40"):
        area_under_curve(scores, torch.zeros(40, dtype=torch.bool))
    Pil.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    rows = [{"id": n, "img": "a.png", "text": f"word {n}", "label": n % 2} for n in range(4)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    memes = QuestionRecords(str(tmp_path), "m.jsonl", ".", "{img}", "{text}", "{id}")
    found = YesNoAuc(memes, "memes", Asking(form="{question} bad?"))(eve, None, CPU)
    assert found.details["asking"]["form"] == "{question} bad?"
    assert 0 <= found.metrics["auc"] <= 1
    with pytest.raises(ValueError, match="question 0 has no 'bad'"):
        YesNoAuc(memes, "memes", label="bad")(eve, None, CPU)
    with pytest.raises(ValueError, match=r"yes_no_auc.label: question 0 has 'word 0' as its 'text'; expected 0 or 1"):
        YesNoAuc(memes, "memes", label="text")(eve, None, CPU)


def test_settings_of_asking_are_noted(eve: nn.Module, tmp_path: Path) -> None:
    Pil.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    (tmp_path / "q.json").write_text(json.dumps([{"id": 1, "image": "a.png", "question": "What?", "answer": "x"}]))
    asked = QuestionRecords(str(tmp_path), "q.json", ".", "{image}", key="{id}")
    score = build({"type": "exact_score", "name": "clips"})

    def run(**changes: Any) -> Any:
        folder = str(tmp_path / "out")
        return VisualQuestions(asked, score, max_new_tokens=2, folder=folder, examples=0, **changes)(eve, None, CPU)

    assert run(asking=Asking(clean_up="short_answer")).details["asking"]["clean_up"] == "short_answer"
    with pytest.raises(ValueError, match="answers of another asking"):
        run(asking=Asking(clean_up="caption"))
    with pytest.raises(ValueError, match="answers of another asking"):
        run()  # without any, the earlier answers do not fit either


@pytest.mark.parametrize(
    "name", ["emu", "emu_instruct", "emu2", "emu2_chat", "emu_drawings", "emu_autoencoding", "dreambench"]
)
def test_every_benchmark_of_emu_is_built(name: str, tmp_path: Path) -> None:
    config = zoo.compose("base/eval", ["model=emu_tiny", f"benchmark={name}", f"benchmark_root={tmp_path}"])
    kinds = set()
    for key, node in config.benchmark.items():
        try:
            kinds.add(type(build(node, path=f"evaluation.{key}")).__name__)
        except AbsentDataError:  # examples are counted when they are chosen from
            assert "shots" in node or "shots" in node.evaluation
    assert kinds <= {"VisualQuestions", "DialogueRanking", "DrawnSuite", "PictureScores"}
    assert bool(kinds) == (name != "emu2")
