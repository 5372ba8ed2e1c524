"""Masked image modelling: a student predicts a smaller EVA-CLIP's patch features at the masked places."""

from __future__ import annotations

import torch
from harness.cases import Case
from harness.run import Outcome, Request
from harness.words import listed_names, take_known
from torch import nn

from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables import eva_mim
from multimodal_zoo.checkpoints.tables.eva_mim_config import student_node
from multimodal_zoo.objectives.batch import MaskedImageBatch
from multimodal_zoo.objectives.masked_image import MaskedImageObjective
from multimodal_zoo.registry import build
from patch_teachers import TEACHER, teacher_node


def filled(case: Case, side: str, naming: Naming) -> nn.Module:
    """Student or teacher with the case's weights, every tensor accounted for."""
    config = take_known(case.config, {"student", "teacher", "norm_eps"}, "config")
    assert config.get("norm_eps", 1e-6) == 1e-6, f"norm_eps {config['norm_eps']}: every EVA tower has 1e-6"
    node = {"student": student_node, "teacher": teacher_node}[side](config[side])
    model = build({key: value for key, value in node.items() if key not in ("card", "processor")}, path="model")
    prefix = f"{side}."
    state = {key.removeprefix(prefix): value for key, value in case.state.items() if key.startswith(prefix)}
    load_into(model, state, naming)
    return model.eval()


def student_of(case: Case) -> nn.Module:
    """The student; one per case."""
    return case.once("student", lambda: filled(case, "student", eva_mim.STUDENT))


def teacher_of(case: Case) -> nn.Module:
    """The teacher; one per case."""
    strange = [key for key in case.manifest if key.split(".")[0] not in ("student", "teacher")]
    assert not strange, f"neither student nor teacher: {strange}"
    return case.once("teacher", lambda: filled(case, "teacher", TEACHER))


def teacher_tokens(request: Request) -> Outcome:
    """Every patch through the final norm and the projection."""
    (images,), (output,) = request.case.take(request.call), request.call.outputs
    return {output: teacher_of(request.case)(images).tokens}


def prediction(request: Request) -> Outcome:
    """The student's predictions for the masked patches, image by image, row by row."""
    (images, mask), (output,) = request.case.take(request.call), request.call.outputs
    with torch.no_grad():
        return {output: student_of(request.case)(images, mask).tokens}


def loss_and_gradients(request: Request) -> Outcome:
    """The loss, and gradient norms under the student's published names that the note lists."""
    images, mask = request.case.take(request.call)
    names = listed_names(request.call.note, request.case.manifest, prefix="student.")
    student = student_of(request.case)
    batch = MaskedImageBatch(images, mask, [str(i) for i in range(len(images))])
    student.zero_grad()
    loss = MaskedImageObjective(teacher_of(request.case))(student, batch)["loss"]
    loss.backward()
    found = eva_mim.STUDENT.save({name: p.grad for name, p in student.named_parameters() if p.grad is not None})
    norms = torch.stack([found[name.removeprefix("student.")].norm() for name in names])
    return {"loss": loss.detach(), "grad_norms": norms}
