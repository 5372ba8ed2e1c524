"""Every image encoder in every slot that takes one: a step, and the same outputs when it is read back.

The dual encoder's slot is tested with its objectives, in test_objectives.py.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interchange_cells import (
    coloured,
    lesson,
    node_of,
    objective_of,
    part_of,
    placed,
    round_trip,
    run_cell,
    scenes,
    states,
    step,
)
from interchange_parts import IMAGE_ENCODERS, Part
from interchange_slots import DUAL, EMU, EMU2, EVE, FAST_BEV, STUDENT, TEACHER
from omegaconf import OmegaConf
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.commands import embed
from multimodal_zoo.data.class_folders import ClassFolders
from multimodal_zoo.encoders.patch_teacher import PatchTeacher
from multimodal_zoo.evaluation.linear_probe import LinearProbe
from multimodal_zoo.objectives.batch import MaskedImageBatch
from multimodal_zoo.objectives.masked_image import MaskedImageObjective
from multimodal_zoo.registry import build
from multimodal_zoo.training.agreement import check_agreement
from multimodal_zoo.training.assemble import learnt_from
from multimodal_zoo.zoo import build_model

pytestmark = pytest.mark.usefixtures("pixels")
TITLES = [part.title for part in IMAGE_ENCODERS]
each_encoder = pytest.mark.parametrize("part", IMAGE_ENCODERS, ids=TITLES)


@each_encoder
@pytest.mark.parametrize("slot", [EMU, EMU2, EVE], ids=lambda slot: slot.title)
def test_models_with_words(slot: Any, part: Part, places: dict[str, Path], tmp_path: Path) -> None:
    run_cell(slot, node_of(slot, part, places), tmp_path / "run")


@each_encoder
def test_fast_bev(part: Part, places: dict[str, Path], tmp_path: Path) -> None:
    node = node_of(FAST_BEV, part, places)
    model = build_model(node)
    height, width = node["processor"]["view"]["size"] if part.family == "fixed" else (64, 96)
    batch = scenes(height, width)
    step(model, objective_of("free_anchor"), batch, part_of(model, FAST_BEV))
    round_trip(model, tmp_path / "run", lambda one: one(batch.images, batch.cameras).classes)


@each_encoder
def test_eve_teacher(part: Part, places: dict[str, Path], tmp_path: Path) -> None:
    config = OmegaConf.to_container(zoo.compose(TEACHER.variant, placed(TEACHER.words(part), places)), resolve=True)
    if refusal := TEACHER.refusal(part):
        with pytest.raises(ValueError, match=refusal):
            learnt_from(config)
        return
    model, learnt = build_model(config["model"]), learnt_from(config)
    objective = build(config["objective"], **learnt)
    check_agreement(objective, model, None)
    batch = lesson(model, teacher=True)
    step(model, objective, batch, model.aligner)
    assert not any(weight.requires_grad for weight in learnt["teacher"].parameters())
    again = round_trip(model, tmp_path / "student", states(batch))
    assert again.aligner is None
    config["teacher"]["weights"] = str(save_model(build_model(config["teacher"]["model"]), tmp_path / "teacher"))
    assert torch.equal(learnt_from(config)["teacher"](batch.teacher).tokens, learnt["teacher"](batch.teacher).tokens)


@each_encoder
def test_masked_student(part: Part, places: dict[str, Path], tmp_path: Path) -> None:
    node = node_of(STUDENT, part, places)
    if refusal := STUDENT.refusal(part):
        with pytest.raises(TypeError, match=refusal):
            build_model(node, device="meta")
        return
    model, batch = build_model(node), MaskedImageBatch(torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.5, ["a", "b"])
    step(model, MaskedImageObjective(PatchTeacher(copy.deepcopy(model.image))), batch, model.image)
    round_trip(model, tmp_path / "run", lambda one: one(batch.images, batch.mask).tokens)


@each_encoder
def test_linear_probe_and_embed(part: Part, places: dict[str, Path], tmp_path: Path) -> None:
    model = build_model(node_of(DUAL, part, places)).eval()
    saved = save_model(model, tmp_path / "run")
    again = zoo.from_pretrained(saved)
    data = ClassFolders(str(coloured(tmp_path)), "train")
    probe = LinearProbe(data, data, "label", inverse_penalties=[1.0], validation_share=0.5)
    first, second = (probe(one, one.processor, torch.device("cpu")) for one in (model, again))
    assert first.metrics == second.metrics
    assert first.details["width"] == model.image.width
    words = [
        f"source={saved}",
        f"+data={{type: folder_pictures, folder: {tmp_path / 'train'}, need_caption: false}}",
        f"out={tmp_path / 'out'}",
    ]
    embed.run(zoo.compose("base/embed", [*words, "format=npz", "workers=0", "batch_size=8"]))
    (shard,) = (tmp_path / "out").glob("*.npz")
    with torch.no_grad():
        wanted = model.encode_image(model.processor.images([one.image for one in data]))
    assert_close(torch.from_numpy(np.load(shard)["image_embedding"]), wanted, atol=1e-6, rtol=1e-5)
