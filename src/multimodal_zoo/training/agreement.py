"""Whether the parts of a recipe suit each other, asked before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from multimodal_zoo.data.text_views import AugmentedText, PlainText
from multimodal_zoo.objectives.views import require_views

#: The views of data that give plain pairs.
PLAIN = ("plain",)


def check_agreement(objective: nn.Module, model: nn.Module, data: Any) -> None:
    """Refuse a recipe whose data do not suit its objective or its model.

    What the model lacks for an objective is told by `objective.check(model)`.

    Args:
        objective: may name the views that it needs (`image_views`, `text_views`), and parts of it may refuse a batch
            size (`check_batch`).
        model: may have a processor with a tokenizer.
        data: the data module.

    Raises:
        ValueError: missing views, views for an objective of plain pairs, a batch size that a part refuses, a tokenizer
            of another vocabulary than the text tower's, or a teacher whose patches are not those of the view that it
            gets; each with the configuration keys.
    """
    check_views(objective, data)
    check_batch_size(objective, data)
    check_vocabulary(model)
    check_teacher_grid(objective, model)


def check_views(objective: nn.Module, data: Any) -> None:
    """The data must give the views that the objective needs, with masked words where it asks for them.

    Raises:
        ValueError: they do not, or the data give views to an objective of plain pairs.
    """
    given = {side: _views(data, side) for side in ("image", "text")}
    if not hasattr(objective, "image_views"):
        if any(given.values()):
            names = ", ".join((*(given["image"] or ()), *(given["text"] or ())))
            raise ValueError(
                f"the data give views ({names}) and {type(objective).__name__} takes plain pairs: choose an objective "
                "of supervisions (objective=clip, ...) or data of pairs (data=emoji, ...)"
            )
        return
    for side, views in given.items():
        require_views(side, getattr(objective, f"{side}_views"), PLAIN if views is None else views)
    texts = getattr(getattr(data, "collate", None), "text_views", None) or {"plain": PlainText()}
    for name in getattr(getattr(objective, "needs", None), "masked_words", ()):
        if isinstance(texts[name], (PlainText, AugmentedText)):
            raise ValueError(
                f"the objective needs masked words in the text view {name}, which masks none; choose "
                f"text_view@data.text_views.{name}=masked or leave that part of the objective out"
            )


def _views(data: Any, side: str) -> tuple[str, ...] | None:
    """Names of a data module's views of one side; None where it gives plain pairs."""
    found = getattr(getattr(data, "collate", None), f"{side}_views", None)
    return None if found is None else tuple(found)


def check_batch_size(objective: nn.Module, data: Any) -> None:
    """Parts of the objective that hold a number of samples must hold those of a batch.

    Raises:
        ValueError: one does not, with its place.
    """
    size = getattr(data, "batch_size", None)
    for name, part in objective.named_modules():
        check = getattr(part, "check_batch", None)
        if callable(check) and size is not None:
            try:
                check(int(size))
            except ValueError as error:
                raise ValueError(f"objective.{name}: {error}".replace("objective.:", "objective:")) from None


def check_vocabulary(model: nn.Module) -> None:
    """The tokenizer must have as many ids as the text tower.

    Raises:
        ValueError: it has others.
    """
    tokenizer = getattr(getattr(model, "processor", None), "tokenizer", None)
    ids, rows = (getattr(part, "vocab_size", None) for part in (tokenizer, getattr(model, "text", None)))
    if ids is not None and rows is not None and ids != rows:
        raise ValueError(
            f"model.processor.texts.vocab_size is {ids}, the text tower has {rows} ids (model.text.vocab_size): choose "
            "tokenizer@model.processor.texts and model.text.vocab_size together"
        )


def check_teacher_grid(objective: nn.Module, model: nn.Module) -> None:
    """A teacher that has a view of its own (EVE's) must cut it into the patches that the processor counts.

    It is asked once, with an empty picture: other libraries' encoders do not say what they will give.

    Raises:
        ValueError: it has another grid.
    """
    images: Any = getattr(getattr(model, "processor", None), "transform", None)
    teacher, size = getattr(objective, "teacher", None), getattr(images, "teacher_size", None)
    if teacher is None or size is None:
        return
    wanted = (size // images.teacher_patch,) * 2
    like = next(teacher.parameters())
    found = tuple(teacher(torch.zeros(1, 3, size, size, device=like.device, dtype=like.dtype)).grid)
    if found != wanted:
        raise ValueError(
            f"the teacher cuts {size} x {size} pixels into {found[0]}x{found[1]} patches, model.processor.images counts"
            f" {wanted[0]}x{wanted[1]}: set teacher_size and teacher_patch there to the teacher's, or "
            f"teacher.image_size to {wanted[0]} of the teacher's patches"
        )
