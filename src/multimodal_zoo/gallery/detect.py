"""The tab that finds objects around a car, in the pictures of its cameras and from above."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.camera_reader import KeyFrame
from multimodal_zoo.data.camera_rig import read_rig
from multimodal_zoo.data.synthetic_scenes import synthetic_scenes
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.uploads import check_file, read_picture
from multimodal_zoo.inference.box_pictures import legend
from multimodal_zoo.inference.detection import ROWS, detect

#: Bytes of a calibration file, and what its name ends in.
CALIBRATION, SUFFIX = 2**20, ".json"
#: Sizes of a drawn scene's pictures, and of its numbers.
WIDTH, HEIGHT, SEEDS = 400, 225, 100
#: Columns of the table of boxes.
COLUMNS = ("class", "score", "x", "y", "z", "length", "width", "height", "yaw")


class Seen(NamedTuple):
    """What was found in a scene.

    Attributes:
        cameras: each picture with its boxes, and the camera's name.
        above: the map seen from above, forward upwards.
        rows: the boxes as a table of `COLUMNS`, the highest score first; metres and radians.
        said: in words.
    """

    cameras: list[tuple[Image.Image, str]]
    above: Image.Image
    rows: list[list[Any]]
    said: str


def drawn_scene(room: Showroom, seed: float, width: int = WIDTH, height: int = HEIGHT) -> KeyFrame:
    """A driving scene that is drawn here, with its true boxes.

    Args:
        room: in whose folder it is kept.
        seed: another number draws another scene, 0 to 99.
        width: of the pictures, pixels.
        height: the same.
    """
    number = int(seed) % SEEDS
    folder = room.scratch / "scenes" / f"{number}-{width}x{height}"
    return synthetic_scenes(str(folder), "val", scenes=2, frames=1, width=width, height=height, seed=number)[0]


def uploaded_scene(room: Showroom, paths: Sequence[str] | None) -> KeyFrame:
    """A scene of uploaded pictures and one calibration file, copied into a folder of its own.

    Args:
        room: whose limits hold, and in whose folder it lies.
        paths: of the pictures, and of one JSON file as `mmzoo detect` reads it; it names no other file than these.

    Raises:
        ValueError: none or too many files, no calibration or several, one that names other files, broken pictures.
        FileNotFoundError: a camera without its picture.
    """
    files = [check_file(room, path) for path in paths or ()]
    named = {path.name: path for path in files}
    calibrations = [path for path in files if path.suffix.lower() == SUFFIX]
    if len(files) > room.limits.files or len(named) < len(files):
        raise ValueError(f"{len(files)} files; at most {room.limits.files} are taken, each with a name of its own")
    if len(calibrations) != 1:
        raise ValueError(
            f"{len(calibrations)} calibration files; upload one with the pictures, as mmzoo detect takes it"
        )
    pictures = {name: path for name, path in named.items() if path != calibrations[0]}
    _check_names(calibrations[0], pictures)
    folder = room.scratch / "scenes" / secrets.token_hex(8)
    folder.mkdir(parents=True)
    for name, path in pictures.items():
        read_picture(room, path)
        shutil.copyfile(path, folder / name)
    shutil.copyfile(calibrations[0], folder / calibrations[0].name)
    return KeyFrame(read_rig(folder / calibrations[0].name), folder)


def _check_names(calibration: Path, pictures: Mapping[str, Path]) -> None:
    """Refuse a calibration that names files which were not uploaded with it.

    Raises:
        ValueError: such a file, or one that is too large or no object.
    """
    if calibration.stat().st_size > CALIBRATION:
        raise ValueError(f"{calibration.name} is larger than 1 MB; expected a calibration")
    try:
        given = json.loads(calibration.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{calibration.name} is not JSON: {error}") from None
    for name in _files(given):
        if name not in pictures:
            raise ValueError(f"{calibration.name} names {name}, which was not uploaded with it")


def _files(given: Any) -> list[str]:
    """The names of pictures in a calibration."""
    if not isinstance(given, dict):
        return []
    cameras, history = given.get("cameras"), given.get("history", [])
    found = [one.get("image") for one in cameras.values() if isinstance(one, dict)] if isinstance(cameras, dict) else []
    for one in history if isinstance(history, list) else []:
        images = one.get("images") if isinstance(one, dict) else None
        found += list(images.values()) if isinstance(images, dict) else []
        cameras_named = list(images) if isinstance(images, dict) else []
        found += [name for name in cameras_named if "/" in name]
    found += [name for name in (cameras if isinstance(cameras, dict) else ()) if "/" in name or ".." in name]
    return [str(name) for name in found if name is not None]


def find(room: Showroom, model: str | None, files: Sequence[str] | None, seed: float | None, score: float) -> Seen:
    """What a detector finds in uploaded pictures, or without any in a drawn scene; see `look`.

    Args:
        room: what is shown.
        model: name of a detector.
        files: see `uploaded_scene`; they are copied, and the copies are deleted at the end.
        seed: see `drawn_scene`.
        score: least score of a box that is shown.
    """
    if not files:
        return look(room, model, drawn_scene(room, seed or 0), score)
    frame = uploaded_scene(room, files)
    try:
        return look(room, model, frame, score)
    finally:
        shutil.rmtree(frame.root, ignore_errors=True)


def look(room: Showroom, model: str | None, frame: KeyFrame, score: float) -> Seen:
    """What a detector finds in a scene.

    Args:
        room: what is shown.
        model: name of a detector.
        frame: the scene; its true boxes are drawn in green where they are known.
        score: least score of a box that is shown.

    Raises:
        LookupError, ValueError: no such model, or a scene that it cannot read.
    """
    with room.shelf.lent(model, "detect") as detector:
        seen = detect(detector, frame.info, frame.root)
    truth = _truth(frame.info)
    kept = seen.found.scores >= score
    said = f"{int(kept.sum())} boxes of score {score:g} or more: {legend(seen.found.labels[kept])}."
    if truth is not None:
        said += f" {len(truth)} objects are there; green on the map."
    rows = [
        [
            one["class"],
            *(round(value, 2) for value in (one["score"], *one["centre"], *one["length_width_height"], one["yaw"])),
        ]
        for one in seen.rows()
        if one["score"] >= score
    ]
    pictures = seen.pictures(score)
    order = [name for row in ROWS for name in row if name in pictures]  # as they look around the car
    cameras = [(pictures[name], name) for name in (*order, *(one for one in pictures if one not in order))]
    return Seen(cameras, seen.above(score, truth), rows, said)


def _truth(info: SceneInfo) -> Tensor | None:
    return None if info.objects is None else torch.from_numpy(info.objects.boxes[info.objects.valid]).float()


def tab(room: Showroom) -> None:
    """The components, inside of a Gradio tab."""
    import gradio as gr

    from multimodal_zoo.gallery.wiring import connect, model_choice, picture_shown, pictures_shown

    with gr.Row():
        with gr.Column(scale=1):
            model = model_choice(room, "detect")
            files = gr.File(
                file_count="multiple",
                file_types=["image", SUFFIX],
                label="Pictures of the cameras, and their calibration (JSON)",
                elem_id="detect-files",
            )
            seed = gr.Number(0, precision=0, minimum=0, label="Without files a scene is drawn: its number")
            score = gr.Slider(0, 1, 0.5, step=0.05, label="Least score of a box")
            button = gr.Button("Detect", variant="primary", elem_id="detect-go")
            said = gr.Markdown(elem_id="detect-said")
        with gr.Column(scale=2):
            cameras = pictures_shown("Cameras", 3, 420, "detect-cameras")
            above = picture_shown("From above, forward is up", 420, "detect-above")
    table = gr.Dataframe(headers=list(COLUMNS), label="Boxes", interactive=False, elem_id="detect-table")

    connect(room, [button.click], partial(find, room), [model, files, seed, score], [cameras, above, table, said])
