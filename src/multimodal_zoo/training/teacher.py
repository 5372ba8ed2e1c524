"""The frozen teacher of a recipe (`teacher:`): a model node and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import nn

from multimodal_zoo.encoders.dual_encoder import DualEncoder
from multimodal_zoo.encoders.patch_teacher import PatchTeacher
from multimodal_zoo.zoo import build_model, from_pretrained

#: What `teacher.weights` may say beside a place: read by the model itself while it is built, or none at all.
OWN, RANDOM = "own", "random"


def patch_teacher(node: Mapping[str, Any], student: Mapping[str, Any]) -> PatchTeacher:
    """The teacher of masked image modelling; a dual encoder's text tower is let go.

    Args:
        node: `model`, a dual encoder's or image encoder's node; `weights`, what `zoo.from_pretrained` takes, or `own`
            where the model reads a file of its own (`pretrained_file`, `pretrained_folder`), or `random` for a trial;
            `image_size`, in pixels, or None for the student's; `layer`, the block whose output it gives, or None.
        student: the student's model node, whose image transform must suit the teacher.

    Raises:
        ValueError: no weights, an image transform whose mean and deviation are not the teacher's, or a layer or a
            projection that does not fit its tokens.
    """
    model, weights = node["model"], node.get("weights")
    if weights is None:
        raise ValueError(
            f"teacher.weights is null; a teacher is trained: give a path or hf://organisation/repository/file, {OWN!r} "
            f"where teacher.model names its own file, {RANDOM!r} for a trial run"
        )
    _same_transform(model, student)
    with suppress(NotImplementedError):  # other libraries' encoders may need memory to be built
        _seeing(build_model(model, device="meta"), node)  # refused before anything is allocated or read
    return _seeing(build_model(model) if weights in (OWN, RANDOM) else from_pretrained(weights, config=model), node)


def _seeing(found: nn.Module, node: Mapping[str, Any]) -> PatchTeacher:
    encoder, projection = (found.image, found.image_projection) if isinstance(found, DualEncoder) else (found, None)
    assert isinstance(encoder, nn.Module)
    return PatchTeacher(encoder, projection, image_size=node.get("image_size"), layer=node.get("layer"))


def _same_transform(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> None:
    """Student and teacher see the same tensors: the teacher must be used to their normalisation."""
    theirs, ours = ((node.get("processor") or {}).get("images") or {} for node in (teacher, student))
    for key in ("mean", "std"):
        if key in theirs and key in ours and list(theirs[key]) != list(ours[key]):
            raise ValueError(
                f"model.processor.images.{key} is {ours[key]}, the teacher was trained with {theirs[key]}: set the "
                "student's to the teacher's"
            )
