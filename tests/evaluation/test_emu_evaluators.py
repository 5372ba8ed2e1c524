"""Emu's evaluations on a small random model: examples in front of questions, beams, the benchmarks' own files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pil

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.evaluation.asking import written_as
from multimodal_zoo.evaluation.captioning import Captioning
from multimodal_zoo.evaluation.clean_ups import short_answer
from multimodal_zoo.evaluation.few_shot import FewShot
from multimodal_zoo.evaluation.picture_features import OwnFeatures
from multimodal_zoo.evaluation.shots import AsExamples, RandomShots, RicesShots
from multimodal_zoo.evaluation.suite import run_suite
from multimodal_zoo.generation.beams import Beams
from multimodal_zoo.inference.chat import answer

CPU = torch.device("cpu")
Pool = Callable[..., Any]


@pytest.fixture(scope="module")
def emu() -> Any:
    torch.manual_seed(0)
    model = zoo.create("emu2_tiny", overrides=["model.decoder.blocks.depth=1"]).eval()
    with torch.no_grad():  # far from uniform, so that rounding does not decide
        model.decoder.output.weight.mul_(8)
    return model


def captions(squares: Pool, count: int, batch_size: int, rices: bool = False) -> Captioning:
    pool = AsExamples(squares(shades=3), ending=" ")
    shots: Any = RandomShots(pool, count, apart=("concept",))
    if rices:
        shots = RicesShots(pool, count, OwnFeatures(), apart=("concept",))
    return Captioning(squares(shades=1), batch_size=batch_size, max_new_tokens=4, examples=0, shots=shots)


@pytest.mark.parametrize("rices", [False, True])
def test_captions_behind_examples_do_not_depend_on_the_batch(emu: Any, squares: Pool, rices: bool) -> None:
    found = FewShot(captions(squares, 2, 8, rices), counts=(0, 2))(emu, emu.processor, CPU)
    alone = FewShot(captions(squares, 2, 3, rices), counts=(0, 2))(emu, emu.processor, CPU)
    assert found.metrics == pytest.approx(alone.metrics, abs=1e-4)
    without = Captioning(squares(shades=1), max_new_tokens=4, examples=0)(emu, emu.processor, CPU)
    assert found.metrics["name_nats_0_shots"] == pytest.approx(without.metrics["name_nats"], abs=1e-4)
    assert found.metrics["name_nats_2_shots"] != pytest.approx(without.metrics["name_nats"], abs=1e-3)


def test_what_is_asked_behind_examples(emu: Any, squares: Pool) -> None:
    part = captions(squares, 2, 8)
    query = squares(shades=1)[3]
    (asked,) = part._asked([query])
    (some,) = part.shots.chosen([query])  # type: ignore[union-attr]
    expected = [type(one) for one in (*some[0].segments, *some[1].segments)] + [Image]
    assert [type(one) for one in asked.segments] == expected
    sample = emu.processor.prompt(asked, special=False)
    assert int(sample.vision.sum()) == 3 * emu.processor.image_tokens


@pytest.fixture
def okvqa(tmp_path: Path) -> Path:
    """OKVQA's files with four questions for training and two to be asked."""
    place = tmp_path / "okvqa"
    for split, count in (("train", 4), ("val", 2)):
        (place / f"{split}2014").mkdir(parents=True)
        rows = [{"image_id": n, "question": f"what {n}?", "question_id": n} for n in range(count)]
        people = [{"question_id": n, "answers": [{"answer": f"word {n}"}] * 10} for n in range(count)]
        (place / f"OpenEnded_mscoco_{split}2014_questions.json").write_text(json.dumps({"questions": rows}))
        (place / f"mscoco_{split}2014_annotations.json").write_text(json.dumps({"annotations": people}))
        for number in range(count):
            name = f"COCO_{split}2014_{number:012d}.jpg"
            Pil.new("RGB", (20, 20), (60 * number, 90, 0)).save(place / f"{split}2014" / name)
    return tmp_path


def test_the_few_shot_benchmark_runs(emu: Any, okvqa: Path, tmp_path: Path) -> None:
    changes = ["benchmark.okvqa.counts=[0,2]", "benchmark.okvqa.evaluation.shots.count=2"]
    changes += ["benchmark.okvqa.evaluation.max_new_tokens=3"]
    config = zoo.compose("base/eval", ["model=emu2_tiny", "benchmark=emu2", f"benchmark_root={okvqa}", *changes])
    found = run_suite(emu, emu.processor, config.benchmark, tmp_path / "run", CPU)
    assert set(found) == {"okvqa"}  # the data of the others is not there
    assert {"accuracy_0_shots", "accuracy_2_shots"} <= set(found["okvqa"].metrics)
    lines = (tmp_path / "run/okvqa_0_shots/answers.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["question_id"] for row in rows] == [0, 1]
    assert (tmp_path / "run/okvqa_2_shots/answers.jsonl").is_file()
    picture = Pil.open(okvqa / "okvqa/val2014" / f"COCO_val2014_{1:012d}.jpg")
    asked = Document([Image(picture), Text("what 1?", role="user")])
    beams = Beams(5, length_penalty=-1.0, min_length=1, counts_start=True)
    with written_as(emu, "emu2_few_shot"):
        (said,) = answer(emu, asked, max_new_tokens=3, special=False, beams=beams)
    assert rows[1]["text"] == short_answer(said)


def test_drawings_are_drawn_and_scored(squares: Pool, tmp_path: Path) -> None:
    changes = ["visual_decoder@model.visual_decoder=tiny", "model.visual_decoder.steps=2"]
    model = zoo.create("emu2_tiny", overrides=changes)
    (tmp_path / "real").mkdir()
    for number, one in enumerate(squares(shades=1)):
        Pil.fromarray(one.image).resize((48, 48)).save(tmp_path / "real" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(8)]
    texts = [{"image_id": n, "caption": f"square {n}"} for n in range(8)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": texts}))
    for shown in ("text", "picture"):
        node = {"type": "caption_prompts", "root": str(tmp_path), "file": "captions.json", "images": "real", "count": 3}
        node |= {"shown": shown, "name": f"coco_{shown}"}
        drawn = {"type": "drawn_suite", "suite": node, "per_prompt": 1, "guidance": 2.0, "examples": 0}
        scores = {"type": "picture_scores", "suite": node, "clip_image": {"type": "own_features"}}
        config = {"coco": drawn, "coco_scores": scores}
        found = run_suite(model, model.processor, config, tmp_path / "run" / shown, CPU)
        assert found["coco"].metrics["drawn_now"] == 3
        assert -1 <= found["coco_scores"].metrics["clip_image"] <= 1
