"""Doors of results: answers so far, true answers of benchmarks, detections, notes and caches of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fuzz_data import Make, picture
from fuzz_harness import Door
from fuzz_mutations import damaged_lines, damaged_tree
from omegaconf import OmegaConf

import multimodal_zoo as zoo
from multimodal_zoo.captions.run_manifest import settle as settle_fusion
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.captions.unit_checks import verify
from multimodal_zoo.captions.unit_files import record_of, write_unit
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.commands.retrieve import read_queries
from multimodal_zoo.commands.stages import FINISHED, Stage, finished
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.data.tokenized_pairs import TokenizedPairs
from multimodal_zoo.evaluation.answer_file import AnswerFile
from multimodal_zoo.evaluation.caption_questions import CocoCaptions, KarpathyCaptions, TextcapsCaptions
from multimodal_zoo.evaluation.challenge_scores import ChallengeScore, VizWizScore
from multimodal_zoo.evaluation.dialogue_ranking import DialogueRanking
from multimodal_zoo.evaluation.nuscenes_boxes import NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_results import read_submission
from multimodal_zoo.evaluation.question_records import records_at
from multimodal_zoo.evaluation.vqa_questions import Question
from multimodal_zoo.evaluation.vqa_scores import (
    GqaScore,
    MmeScore,
    PopeScore,
    ScienceQaScore,
    SeedScore,
    TextVqaScore,
)
from multimodal_zoo.evaluation.vqa_uploads import Vqav2Upload

ASKED = [Question(key, "what?", "a.png", facts={"category": "random"}) for key in ("1", "2")]


def _json(name: str, content: Any) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_text(json.dumps(content))
        return folder / name

    return make


def _answers(name: str) -> Make:
    def make(folder: Path) -> Path:
        file = AnswerFile(folder, "model", "Be short.")
        file.settle({"model": "m", "weights": "w", "ending": "Be short."})
        file.add(ASKED, ["red", "blue"])
        return folder / name

    return make


def gone_on(path: Path) -> None:
    """What a later run of questions reads of the answers so far."""
    file = AnswerFile(path.parent, "model", "Be short.")
    file.settle({"model": "m", "weights": "w", "ending": "Be short."})
    file.read(ASKED)


def scored(make: Callable[[str, str], Any], *questions: Question) -> Callable[[Path], None]:
    """Scores of two answers by a benchmark's own file of true ones."""

    def read(path: Path) -> None:
        score = make(str(path.parent), path.name)
        found = score([(one, "red") for one in questions or ASKED], path.parent)
        json.dumps(found.metrics)

    return read


PEOPLE = [{"answer": "red"}] * 9 + [{"answer": "blue"}]
TEXTVQA = {"data": [{"image_id": key, "question": "What?", "answers": ["red"] * 10} for key in ("1", "2")]}
KNOWN = {
    key: {"answer": "red", "types": {"structural": "query"}, "choices": ["a", "b"], "data_type": "x"}
    for key in ("1", "2")
}
PROBLEMS = {key: {"answer": 1, "choices": ["a", "b"]} for key in ("1", "2")}
SEED = {"questions": [{"question_id": key, "answer": "A", "data_type": "image"} for key in ("1", "2")]}
CHALLENGE = {"annotations": [{"question_id": key, "answers": PEOPLE, "answer_type": "other"} for key in ("1", "2")]}
POPE = {"image": "a.png", "text": "what?", "label": "yes"}  # a line
UPLOADED = {"questions": [{"question_id": 1}, {"question_id": 2}]}
KARPATHY = {"images": [{"filename": "a.png", "split": "test", "sentences": [{"raw": "words"}], "cocoid": 1}]}
COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "words"}]}
TEXTCAPS = {"data": [{"image_id": "a", "caption_str": "words"}]}
VISDIAL = {
    "data": {
        "questions": ["what?"],
        "answers": ["red", "blue"],
        "dialogs": [
            {"image_id": 1, "dialog": [{"question": 0, "answer": 1, "answer_options": [0, 1], "gt_index": 1}] * 2}
        ],
    }
}
BOX = {
    "sample_token": "first", "translation": [1.0, 2.0, 0.5], "size": [1.9, 4.5, 1.6], "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.5, 0.0], "detection_name": "car", "detection_score": 0.7, "attribute_name": "vehicle.moving",
}  # fmt: skip
META = {"use_camera": True, "use_lidar": False, "use_radar": False, "use_map": False, "use_external": False}
SUBMISSION = {"meta": META, "results": {"first": [BOX, BOX], "second": [{**BOX, "sample_token": "second"}]}}


def mme(path: Path) -> None:
    """Points of one answer."""
    scored(lambda *_: MmeScore(str(path.parents[1]), "."), Question("color/a.png", "what?"))(path)


def _mme(folder: Path) -> Path:
    (folder / "color").mkdir()
    (folder / "color" / "a.txt").write_text("what?\tYes\nIs it red? Please answer yes or no.\tNo\n")
    return folder / "color" / "a.txt"


def _stage(folder: Path) -> Path:
    (folder / FINISHED).write_text(json.dumps({"config": {"optim": {"lr": 0.1}}, "seconds": 2.0, "value": None}))
    return folder / FINISHED


def staged(path: Path) -> None:
    """What a later run finds of a stage that is through."""
    finished(Stage("one", "recipe", (), OmegaConf.create({"optim": {"lr": 0.1}}), path.parent))


class _Pictures:
    """Two numbered documents with a picture each."""

    def __init__(self) -> None:
        self.skips = Skips()

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Document:
        values = np.random.default_rng(index).integers(0, 256, (48, 48, 3)).astype(np.uint8)
        return Document([Image(values), Text("words")], {"key": str(index)})


class _Kept(NamedTuple):
    folder: Path
    transform: Any


@cache
def tokenizer(place: Path) -> _Kept:
    """A saved visual tokenizer."""
    torch.manual_seed(0)
    model = zoo.create("emu3_vision_tiny")
    save_model(model, place)
    return _Kept(place, model.processor.transform)


def encoded(path: Path) -> None:
    """The codes that a file keeps between runs."""
    kept = tokenizer(path.parents[1] / "vision")
    reader = TokenizedPairs(_Pictures(), str(kept.folder), kept.transform, str(path))
    for number in range(2):
        assert reader[number].segments


def _cache(folder: Path) -> Path:
    encoded(folder / "codes.npz")
    return folder / "codes.npz"


def _unit(name: str) -> Make:
    def make(folder: Path) -> Path:
        settle_fusion(folder / "manifest.json", {"prompt": {"name": "short"}, "formats": ["parquet"]})
        write_unit(folder, Unit("part", "rows.jsonl", 0, 0), [])
        return folder / name

    return make


def fused(path: Path) -> None:
    """What a later run of fusion reads of its folder."""
    root = path.parent if path.name == "manifest.json" else path.parents[1]
    settle_fusion(root / "manifest.json", {"prompt": {"name": "short"}, "formats": ["parquet"]})
    record_of(root, "part")
    verify(root)


def _queries(folder: Path) -> Path:
    (folder / "a.png").write_bytes(picture())
    (folder / "queries.txt").write_text("a red dog\na blue cat\n")
    return folder / "queries.txt"


DOORS = (
    Door("answers so far, lines", _answers("answers.jsonl"), gone_on, damaged_lines),
    Door("answers so far, settings", _answers("settings.json"), gone_on, damaged_tree, names=("door",)),
    *(
        Door(f"true answers, {name}", _json(file, content), read, way)
        for name, file, content, read, way in (
            ("VQAv2", "a.json", CHALLENGE, scored(lambda *at: ChallengeScore(*at, "vqa", "vqav2")), damaged_tree),
            ("VizWiz", "a.json", [{"image": "a.png", "answers": PEOPLE}], scored(VizWizScore), damaged_tree),
            ("TextVQA", "a.json", TEXTVQA, scored(TextVqaScore), damaged_tree),
            ("GQA", "a.json", KNOWN, scored(GqaScore), damaged_tree),
            ("ScienceQA", "a.json", PROBLEMS, scored(ScienceQaScore), damaged_tree),
            ("SEED-Bench", "a.json", SEED, scored(SeedScore), damaged_tree),
            ("POPE", "coco_pope_random.json", POPE, scored(lambda root, _: PopeScore(root, ".")), damaged_lines),
        )
    ),
    Door("true answers, MME", _mme, mme),
    Door(
        "questions of a test", _json("a.json", {"questions": [{"question_id": 1}]}), scored(Vqav2Upload), damaged_tree
    ),
    Door("records", _json("a.json", {"x": {"y": [{"a": 1}]}}), lambda path: records_at(path, "x.y"), damaged_tree),
    *(
        Door(f"captions of {name}", _json("a.json", content), read, damaged_tree)
        for name, content, read in (
            ("Karpathy's splits", KARPATHY, lambda path: KarpathyCaptions(str(path.parent), path.name, ".").read()),
            ("COCO", COCO, lambda path: CocoCaptions(str(path.parent), path.name, ".").read()),
            ("TextCaps", TEXTCAPS, lambda path: TextcapsCaptions(str(path.parent), path.name, ".").read()),
        )
    ),
    Door(
        "dialogues",
        _json("a.json", VISDIAL),
        lambda path: DialogueRanking(str(path.parent), path.name, "{image_id}.png").rounds(),
        damaged_tree,
    ),
    Door(
        "detections of a challenge",
        _json("results_nusc.json", SUBMISSION),
        lambda path: read_submission(path, ["first", "second"], NuScenesProtocol()),
        damaged_tree,
    ),
    Door("codes of pairs", _cache, encoded, share=25),
    Door("note of a stage", _stage, staged, damaged_tree, names=("door",)),
    Door("fusion, manifest", _unit("manifest.json"), fused, damaged_tree, names=("door",)),
    Door("fusion, record", _unit("records/part.json"), fused, damaged_tree),
    Door("queries", _queries, lambda path: read_queries([], str(path)), names=("no such picture",)),
)
