"""EVE's cases: pictures to pixels, and what becomes of a picture of some size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.data.eve_area import EveAreaTransform
from multimodal_zoo.data.eve_canvas import EveImageTransform
from multimodal_zoo.data.eve_images import Geometry

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"data"}
SIZES = ("image_size", "image_size_clip", "patch_stride", "conv_stride", "patch_stride_clip")
#: What the published geometry was asked with, beside the long side and the area.
PUBLISHED = {"image_size_clip": 336, "patch_stride": 14, "conv_stride": 2, "patch_stride_clip": 14}
PUBLISHED_AREA = {"patch_stride": 16, "dense_stride": 2}


def _colours(config: Mapping[str, Any]) -> list[list[float]]:
    assert not any(config.get(name) for name in ("do_resize", "do_center_crop")), "EVE resizes pictures itself"
    return [config["image_mean"], config["image_std"]]


def canvas_transform(config: Mapping[str, Any], sizes: Mapping[str, int]) -> EveImageTransform:
    """Our transform of version 1."""
    found = take_known(sizes, SIZES, "preprocessor")
    seen = config.get("teacher_processor", {})
    take_known(seen, ("size", "crop_size", "do_resize", "do_center_crop", "resample"), "teacher_processor")
    clip = config["preprocessor"]["image_size_clip"]
    assert {seen.get(name, clip) for name in ("size", "crop_size")} == {clip}, "the teacher's own resize does nothing"
    assert seen.get("resample", "bicubic") == "bicubic"
    return EveImageTransform(*(found[name] for name in ("image_size", "image_size_clip", "patch_stride_clip")),
                             found["patch_stride"], found["conv_stride"], *_colours(config))  # fmt: skip


def area_transform(config: Mapping[str, Any], max_size: int, strides: Mapping[str, int]) -> EveAreaTransform:
    """Our transform of version 2."""
    return EveAreaTransform(max_size, strides["patch_stride"], strides["dense_stride"], *_colours(config))


def _first(case: Case) -> EveImageTransform:
    known = ("preprocessor", "image_mean", "image_std", "do_resize", "do_center_crop", "teacher_processor", "note")
    config = take_known(case.config, known, "config")
    return canvas_transform(config, config["preprocessor"])


def _second(case: Case) -> EveAreaTransform:
    known = (
        "max_size",
        "patch_stride",
        "dense_stride",
        "image_mean",
        "image_std",
        "do_resize",
        "do_center_crop",
        "note",
    )
    config = take_known(case.config, known, "config")
    return area_transform(config, config["max_size"], config)


def canvases(request: Request) -> Outcome:
    """Student's and teacher's canvas of each picture."""
    ours, pictures = _first(request.case), [one.numpy() for one in request.case.take(request.call)]
    names = request.call.outputs
    students, teachers = names[: len(pictures)], names[len(pictures) :]
    assert all(name.startswith("student") for name in students)
    assert all(name.startswith("teacher") for name in teachers)
    found = {name: ours.canvas(picture) for name, picture in zip(students, pictures, strict=True)}
    return {**found, **{name: ours.teacher_canvas(one) for name, one in zip(teachers, pictures, strict=True)}}


def blanks(request: Request) -> Outcome:
    """The canvases of a sample without picture, of which a corner is stored."""
    ours, tensors = _first(request.case), request.case.tensors
    assert all(name.endswith("_corner") for name in request.call.outputs)
    return {name: ours.blank(tensors[name].shape[-1]) for name in request.call.outputs}


def areas(request: Request) -> Outcome:
    """Pixels of each picture by a rule of version 2."""
    ours, training = _second(request.case), request.match["rule"] == "training"
    pictures = [one.numpy() for one in request.case.take(request.call)]
    if not training:
        return dict(zip(request.call.outputs, ours(pictures), strict=True))
    return {name: ours.pixels(one, training) for name, one in zip(request.call.outputs, pictures, strict=True)}


def placeholder(request: Request) -> Outcome:
    """The stand-in for a picture of version 2."""
    (name,) = request.call.outputs
    return {name: _second(request.case).blank()}


def _number(setting: str, prefix: str) -> int:
    assert setting.startswith(prefix), f"unknown setting {setting!r}"
    return int(setting.removeprefix(prefix))


def _on_canvas(row: Mapping[str, Any], case: Case) -> dict[str, Any]:
    side = _number(row["setting"], "anypixel_")
    ours = canvas_transform(case.config, {"image_size": side, **PUBLISHED})
    found = ours.preview(row["height"], row["width"])
    (top, left), (high, wide) = found.place, found.size
    return {
        "canvas": list(found.canvas[::-1]),
        "valid_box_xyxy": [left, top, left + wide, top + high],
        **_cells(found),
    }


def _cells(found: Geometry) -> dict[str, Any]:
    return {"grid_hw": list(found.grid), "image_tokens": found.tokens}


def _by_area(row: Mapping[str, Any], case: Case) -> dict[str, Any]:
    ours = area_transform(case.config, _number(row["setting"], "res"), PUBLISHED_AREA)
    ways = {name: ours.preview(row["height"], row["width"], name == "train") for name in ("train", "infer")}
    return {name: {"size_wh": list(found.size[::-1]), **_cells(found)} for name, found in ways.items()}


def geometry(request: Request) -> Outcome:
    """What becomes of pictures of many sizes, at the published settings."""
    case, made = request.case, {}
    compute = _on_canvas if "preprocessor" in case.config else _by_area
    for number, row in enumerate(request.call.extra["data"]):
        given = {name: row[name] for name in ("setting", "width", "height")}
        made[f"row {number}"] = Pair({**given, **compute(row, case)}, row)
    return made


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"process_images / dataset image")(canvases)
    system.call(r"dataset image of a text-only sample")(blanks)
    system.call(r"(?:dataset image|process_images) \((?P<rule>training|inference) rule\)")(areas)
    system.call(r"placeholder image of a text-only sample")(placeholder)
    system.call(r"geometry")(geometry)
