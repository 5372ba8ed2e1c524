"""Question files of the benchmarks' own layouts, and answered ones as examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from multimodal_zoo.data.documents import Image, Text, Video
from multimodal_zoo.data.media import VideoFrames
from multimodal_zoo.evaluation.challenge_scores import ChallengeScore, VizWizScore
from multimodal_zoo.evaluation.exact_scores import ExactScore
from multimodal_zoo.evaluation.question_records import AnsweredQuestions, QuestionRecords, usual
from multimodal_zoo.evaluation.shots import RandomShots
from multimodal_zoo.evaluation.vqa_questions import Question
from multimodal_zoo.evaluation.vqa_uploads import Vqav2Upload


def as_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def vqa(tmp_path: Path) -> QuestionRecords:
    """VQAv2's layout, with three pictures and two questions about each."""
    rows = [{"image_id": n // 2, "question": f"Is it {n}?", "question_id": 10 + n} for n in range(6)]
    as_json(tmp_path / "q.json", {"info": {}, "questions": rows})
    for number in range(3):
        Pil.new("RGB", (8, 8), (80 * number, 0, 0)).save(tmp_path / f"COCO_{number:04d}.png")
    people = [["yes"] * 10, ["no"] * 3 + ["yes"] * 7, ["2"] * 10, ["red"] * 9 + ["a red"], ["no"] * 10, ["no"] * 10]
    known = [
        {"question_id": 10 + n, "question_type": "is it", "answer_type": "other" if n == 3 else "yes/no",
         "answers": [{"answer": one} for one in some]}
        for n, some in enumerate(people)
    ]  # fmt: skip
    as_json(tmp_path / "a.json", {"annotations": known})
    return QuestionRecords(str(tmp_path), "q.json", ".", "COCO_{image_id:04d}.png", records="questions")


def test_records_become_questions(vqa: QuestionRecords, tmp_path: Path) -> None:
    asked = vqa.read()
    assert [(one.key, one.image) for one in asked[:3]] == [
        (10, "COCO_0000.png"), (11, "COCO_0000.png"), (12, "COCO_0001.png"),
    ]  # fmt: skip
    document = asked[2].document()
    assert (document.key, document.meta["image"], document.text) == ("12", "COCO_0001.png", "Is it 2?")
    said = ["yes", "No.", "two", "red", "yes", "no"]
    answered = list(zip(asked, said, strict=True))
    found = ChallengeScore(vqa.root, "a.json", "vqav2", "vqav2")(answered, tmp_path)
    # 3 say no: 7 people see three others with it, 3 see two; 9 red: each sees 3 others at least
    expected = [1, (7 + 3 * 2 / 3) / 10, 1, 1, 0, 1]
    assert found.metrics["accuracy"] == pytest.approx(sum(expected) / 6)
    assert found.tables[0].title == "by kind of answer"
    published = ChallengeScore(vqa.root, "a.json", "okvqa", "okvqa")(answered[:1], tmp_path).metrics
    corrected = ChallengeScore(vqa.root, "a.json", "okvqa", "okvqa_corrected")(answered[:1], tmp_path).metrics
    assert (published, corrected) == ({"accuracy": 0.0}, {"accuracy": 1.0})  # a unanimous yes
    Vqav2Upload(vqa.root, "q.json")(answered[:2], tmp_path)
    rows = json.loads((tmp_path / "vqav2.json").read_text())
    assert rows[:3] == [{"question_id": 10, "answer": "yes"}, {"question_id": 11, "answer": "no"},
                        {"question_id": 12, "answer": ""}]  # fmt: skip
    with pytest.raises(ValueError, match=r"challenge_score\.comparison is 'vqa'"):
        ChallengeScore(vqa.root, "a.json", "x", "vqa")


def test_answered_questions_are_examples(vqa: QuestionRecords, tmp_path: Path) -> None:
    pool = AnsweredQuestions(vqa, vqa.root, "a.json")
    assert len(pool) == 6
    picture, question, answer = pool[1].segments
    assert isinstance(picture, Image)
    assert (question, answer) == (Text("Is it 1?", "user"), Text("yes", "assistant"))
    assert pool.facts(3) == {"key": "13", "image": "COCO_0001.png"} == pool[3].meta
    shots = RandomShots(pool, 4, apart=("image",))
    (found,) = shots.chosen([vqa.read()[0].document()])
    assert {one.meta["image"] for one in found} == {"COCO_0001.png", "COCO_0002.png"}
    assert usual([{"answer": "b"}, {"answer": "a"}, {"answer": "a"}]) == "a"
    assert usual("one") == "one"
    with pytest.raises(ValueError, match="no answer in this field"):
        usual(None)
    as_json(tmp_path / "b.json", {"annotations": [{"question_id": 99, "answers": ["x"]}]})
    with pytest.raises(ValueError, match=r"b\.json answers none of the questions"):
        len(AnsweredQuestions(vqa, vqa.root, "b.json"))


def test_other_layouts(tmp_path: Path) -> None:
    Pil.new("RGB", (4, 4)).save(tmp_path / "7.jpg")
    as_json(tmp_path / "gqa.json", {"201": {"imageId": "7", "question": "Where?", "answer": "left"}})
    (one,) = QuestionRecords(str(tmp_path), "gqa.json", ".", "{imageId}.jpg").read()
    assert (one.key, one.image, one.facts["answer"]) == ("201", "7.jpg", "left")
    (tmp_path / "m.jsonl").write_text('{"id": 5, "img": "7.jpg", "text": "hi", "label": 0}\n')
    (meme,) = QuestionRecords(str(tmp_path), "m.jsonl", ".", "{img}", "It says: {text}.", "{id}").read()
    assert (meme.key, meme.text) == (5, "It says: hi.")
    memes = QuestionRecords(str(tmp_path), "m.jsonl", ".", "{img}", key="{id}", text="{text}")
    answered = AnsweredQuestions(memes, answers="label", words={0: "no", 1: "yes"})
    assert answered[0].segments[-1] == Text("no", "assistant")
    as_json(tmp_path / "c.json", [{"image": "7.jpg", "caption": ["a", "b"]}])
    (shown,) = QuestionRecords(str(tmp_path), "c.json", ".", "{image}", "", "{image}").read()
    assert [type(part) for part in shown.document().segments] == [Image]
    as_json(tmp_path / "v.json", [{"image": "7.jpg", "answers": [{"answer": "cup"}] * 10, "answer_type": "other"}])
    (cup,) = QuestionRecords(str(tmp_path), "v.json", ".", "{image}", "What?", "{image}").read()
    assert VizWizScore(str(tmp_path), "v.json")([(cup, "The cup.")], tmp_path).metrics == {"accuracy": 1.0}
    with pytest.raises(
        ValueError, match=r"c\.json, record 0: question_records\.image is '\{img\}' .* it has caption, "
    ):
        QuestionRecords(str(tmp_path), "c.json", ".", "{img}", "").read()
    with pytest.raises(ValueError, match=r"c\.json: no 'questions'"):
        QuestionRecords(str(tmp_path), "c.json", ".", "{image}", records="questions").read()
    as_json(tmp_path / "d.json", {"a": 1})
    with pytest.raises(ValueError, match="expected a list of objects at the top"):
        QuestionRecords(str(tmp_path), "d.json", ".", "{image}").read()


def test_questions_about_clips(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "video3.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    as_json(tmp_path / "t.json", [{"id": 1, "video_id": 3, "question": "what is it", "answer": "Grey"}])
    (one,) = QuestionRecords(
        str(tmp_path), "t.json", ".", "video{video_id}.mp4", key="{id}", media=VideoFrames(count=4)
    ).read()
    clip, question = one.document().segments
    assert isinstance(clip, Video)
    assert len(clip.frames) == 4
    assert question == Text("what is it", "user")
    found = ExactScore("msrvtt_qa")([(one, "grey "), (Question(2, "who", facts={"answer": "a"}), "b")], tmp_path)
    assert found.metrics == {"accuracy": 0.5}
    with pytest.raises(ValueError, match=r"exact_score\.answer of msrvtt_qa: no answer to question 3"):
        ExactScore("msrvtt_qa")([(Question(3, "who"), "b")], tmp_path)
