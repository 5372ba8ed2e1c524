"""Scores and uploads of question files, on small copies of the published layouts."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pil

from multimodal_zoo.data.benchmark_set import AbsentDataError, NoRootError
from multimodal_zoo.data.documents import Image, Text
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.evaluation.task_prompts import LETTER, SHORT
from multimodal_zoo.evaluation.vqa_questions import (
    ConversationQuestions,
    MmbenchQuestions,
    Question,
    QuestionLines,
)
from multimodal_zoo.evaluation.vqa_scores import (
    GqaScore,
    MmeScore,
    PopeScore,
    ScienceQaScore,
    SeedScore,
    TextVqaScore,
    binary_figures,
)
from multimodal_zoo.evaluation.vqa_uploads import MmbenchUpload, MmvetUpload, VizWizUpload, Vqav2Upload


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def as_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_question_lines_become_documents(tmp_path: Path) -> None:
    Pil.new("L", (5, 4)).save(tmp_path / "a.png")
    rows = [
        {"question_id": 7, "image": "a.png", "text": "<image>\nWhat?", "category": "x"},
        {"question_id": "8", "text": "Hm"},
    ]
    lines(tmp_path / "q.jsonl", rows)
    one, other = QuestionLines(str(tmp_path), "q.jsonl", ".").read()
    assert (one.key, one.text, one.image, one.facts) == (7, "What?", "a.png", {"category": "x"})
    picture, text = one.document(SHORT).segments
    assert isinstance(picture, Image)
    assert text == Text(f"What?\n{SHORT}", role="user")
    assert [type(segment) for segment in other.document().segments] == [Text]
    assert Question(1, f"What?\n{SHORT}").asked(SHORT) == f"What?\n{SHORT}"
    assert Question(1, f"Who is\nit?\nReference OCR token: x\n{SHORT}").bare == "Who is\nit?"


def test_what_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoRootError, match="benchmark_root=PLACE"):
        QuestionLines(None, "q.jsonl", ".").read()
    with pytest.raises(AbsentDataError, match=r"question_lines\.file: nothing at .*q\.jsonl"):
        QuestionLines(str(tmp_path), "q.jsonl", ".").read()
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "text": "a"}\n\n{"text": "b"}\n')
    with pytest.raises(ValueError, match=r"q\.jsonl, line 3: no 'question_id'"):
        QuestionLines(str(tmp_path), "q.jsonl", ".").read()
    (tmp_path / "q.jsonl").write_text("{")
    with pytest.raises(ValueError, match="line 1: no JSON"):
        QuestionLines(str(tmp_path), "q.jsonl", ".").read()
    lines(tmp_path / "q.jsonl", [{"question_id": 1, "image": "none.png", "text": "a"}])
    (question,) = QuestionLines(str(tmp_path), "q.jsonl", ".").read()
    with pytest.raises(UnusableError, match=r"none\.png"):
        question.document()
    as_json(tmp_path / "c.json", [{"id": 1, "conversations": []}])
    with pytest.raises(ValueError, match=r"c\.json, record 0: expected an object with id and conversations"):
        ConversationQuestions(str(tmp_path), "c.json", ".").read()


def test_textvqa_finds_questions_by_picture(tmp_path: Path) -> None:
    data = [
        {"image_id": "i", "question": "What brand? ", "answers": ["nokia"] * 3 + ["lg"] * 7},
        {"image_id": "i", "question": "How many?", "answers": ["2"] * 10},
    ]
    as_json(tmp_path / "t.json", {"data": data})
    asked = [Question("i", f"what brand?\nReference OCR token: NOKIA\n{SHORT}"), Question("i", f"How many?\n{SHORT}")]
    found = TextVqaScore(str(tmp_path), "t.json")(list(zip(asked, ["Nokia", "two"], strict=True)), tmp_path)
    assert found.metrics["accuracy"] == pytest.approx((0.9 + 1) / 2)
    with pytest.raises(ValueError, match="no answer to question 'i' \\('Why"):
        TextVqaScore(str(tmp_path), "t.json")([(Question("i", "Why?"), "x")], tmp_path)


def test_pope_has_figures_of_each_split(tmp_path: Path) -> None:
    for split, label in (("popular", "yes"), ("random", "no")):
        rows = [{"image": f"{n}.png", "text": "Is there a dog?", "label": label} for n in range(4)]
        lines(tmp_path / f"coco_pope_{split}.json", rows)
    answered = [
        (Question(n, f"Is there a dog?\n{SHORT}", f"{n}.png", facts={"category": split}), said)
        for split, texts in (("popular", ["Yes", "No", "Yes", "yes"]), ("random", ["No", "Yes", "no", "not"]))
        for n, said in enumerate(texts)
    ]
    found = PopeScore(str(tmp_path), ".")(answered, tmp_path).metrics
    assert (found["popular_accuracy"], found["random_accuracy"], found["accuracy"]) == (0.75, 0.75, 0.75)
    assert found["popular_f1"] == pytest.approx(2 * 0.75 / 1.75)
    assert (found["random_precision"], found["random_recall"], found["random_f1"]) == (0.0, 0.0, 0.0)
    assert found["f1"] == pytest.approx(found["popular_f1"] / 2)
    assert binary_figures([])["accuracy"] == 0.0


def test_gqa_by_kind(tmp_path: Path) -> None:
    known = {
        "1": {"answer": "left", "types": {"structural": "query"}},
        "2": {"answer": "yes", "types": {"structural": "verify"}},
    }
    as_json(tmp_path / "g.json", known)
    answered = [(Question(1, "Where?"), "Left."), (Question("2", "Is it?"), "no")]
    found = GqaScore(str(tmp_path), "g.json")(answered, tmp_path)
    assert found.metrics == {"accuracy": 0.5}
    assert list(found.tables[0].rows) == [("query", 1, 1.0), ("verify", 1, 0.0)]


def test_scienceqa_letters(tmp_path: Path) -> None:
    as_json(tmp_path / "p.json", {"1": {"choices": ["x", "y"], "answer": 1}, "2": {"choices": ["x", "y"], "answer": 0}})
    rows = [{"id": "1", "image": "1.png", "conversations": [{"from": "human", "value": "<image>\nWhich?"}]}]
    rows.append({"id": "2", "conversations": [{"from": "human", "value": "Which?"}]})
    as_json(tmp_path / "q.json", rows)
    asked = ConversationQuestions(str(tmp_path), "q.json", ".").read()
    assert [one.text for one in asked] == ["Which?", "Which?"]
    score = ScienceQaScore(str(tmp_path), "p.json")
    found = score(list(zip(asked, ["The answer is B.", "C"], strict=True)), tmp_path)
    assert found.metrics == {"image_accuracy": 1.0, "accuracy": 0.5, "no_letter": 1.0}


def test_seed_letters_exactly(tmp_path: Path) -> None:
    rows = [
        {"question_id": 1, "answer": "A", "data_type": "image"},
        {"question_id": "v2", "answer": "B", "data_type": "video"},
    ]
    as_json(tmp_path / "s.json", {"questions": rows})
    answered = [(Question("1", "?"), "A"), (Question("v2", "?"), "B. dog")]
    found = SeedScore(str(tmp_path), "s.json")(answered, tmp_path)
    assert found.metrics == {"accuracy": 0.5, "image_accuracy": 1.0, "video_accuracy": 0.0}


def test_mme_points(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "text_translation/questions_answers_YN").mkdir(parents=True)
    text = "Are there two? Please answer yes or no.\tYes\nAre there three? Please answer yes or no.\tNo\n"
    for name in ("count/a.txt", "count/b.txt", "text_translation/questions_answers_YN/c.txt"):
        (tmp_path / name).write_text(text)
    said = {"count/a.jpg": ["Yes", "no"], "count/b.jpg": ["yes", "Yes."], "text_translation/c.png": ["no", "maybe"]}
    answered = [
        (Question(key, f"Are there {word}? Please answer yes or no.\n{SHORT}"), text)
        for key, texts in said.items()
        for word, text in zip(["two", "three"], texts, strict=True)
    ]
    answered[0] = (Question("count/a.jpg", f"Are there two?\n{SHORT}"), "Yes")
    found = MmeScore(str(tmp_path), ".")(answered, tmp_path).metrics
    assert found == {"perception": 125.0, "cognition": 0.0, "total": 125.0, "count": 125.0, "text_translation": 0.0}


def test_mmbench_tables(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Pil.new("RGB", (6, 3), "red").save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    columns = ["index", "question", "hint", "A", "B", "C", "D", "image", "answer", "category"]
    rows = [
        ["0", "Which?", "A hint.", "x", "y", "z", "", picture, "B", "k"],
        ["1000", "哪个?", "nan", "x", "y", "", "", "0", "", "k"],
    ]
    with (tmp_path / "m.tsv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([columns, *rows])
    limit = csv.field_size_limit()
    asked = MmbenchQuestions(str(tmp_path), "m.tsv").read()
    assert csv.field_size_limit() == limit
    assert [one.text for one in asked] == ["A hint.\nWhich?\nA. x\nB. y\nC. z", "哪个?\nA. x\nB. y"]
    assert all(one.document(LETTER).image.size == (6, 3) for one in asked)
    found = MmbenchUpload("mmbench_cn")(list(zip(asked, ["B", "A\tx"], strict=True)), tmp_path)
    assert found.metrics == {"answers": 2.0, "letters": 1.0}
    with (tmp_path / "mmbench_cn.tsv").open(newline="", encoding="utf-8") as file:
        sheet = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["index"], row["prediction"], row["answer"]) for row in sheet] == [
        ("0", "B", "B"),
        ("1000", "A\tx", ""),
    ]


def test_uploads(tmp_path: Path) -> None:
    lines(tmp_path / "all.jsonl", [{"question_id": 1}, {"question_id": 2}])
    answered = [(Question(2, "?", "p.jpg"), "A Red one.")]
    assert Vqav2Upload(str(tmp_path), "all.jsonl")(answered, tmp_path).metrics == {"answers": 1.0}
    assert json.loads((tmp_path / "vqav2.json").read_text()) == [
        {"question_id": 1, "answer": ""},
        {"question_id": 2, "answer": "red 1"},
    ]
    VizWizUpload()(answered, tmp_path)
    assert json.loads((tmp_path / "vizwiz.json").read_text()) == [{"image": "p.jpg", "answer": "red 1"}]
    MmvetUpload()(answered, tmp_path)
    assert json.loads((tmp_path / "mmvet.json").read_text()) == {"v1_2": "A Red one."}
