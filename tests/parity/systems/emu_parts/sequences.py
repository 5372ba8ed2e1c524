"""Emu's cases of inputs: pictures as pixels, which frames of a clip are taken, storyboards as documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known

from multimodal_zoo.data.media import FRAME_CHOICES
from multimodal_zoo.data.storyboards import Sheet, Subtitle, storyboard
from multimodal_zoo.data.transforms import ImageTransform

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"tables": None, "storyboard": None}
CALL_FIELDS: set[str] = set()


def pixels(request: Request) -> Outcome:
    """A picture as the encoder reads it; the note says which parts of it are outputs."""
    case, call = request.case, request.call
    config = take_known(case.config, ("mean", "std", "sizes"), "config")
    (size,) = {int(one) for one in re.findall(r"\[3, (\d+), \d+\]", call.note)}
    assert size in config["sizes"]
    (step,) = map(int, re.findall(r"\[:, ::(\d+), ::\1\]", call.note))
    top, bottom, left, right = map(int, re.findall(r"\[:, (\d+):(\d+), (\d+):(\d+)\]", call.note)[0])
    (image,) = case.take(call)
    ours = ImageTransform(size, config["mean"], config["std"], "squash", "bicubic", None)
    seen = ours([image.numpy()])[0]
    parts = {
        f"every_{step}th": seen[:, ::step, ::step],
        "crop": seen[:, top:bottom, left:right],
        "mean": seen.mean((1, 2)),
    }
    return {name: parts[name.partition(".")[2]] for name in call.outputs}


def frames(request: Request) -> Outcome:
    """Which frames are taken."""
    take_known(request.case.config, (), "config")
    made: dict[str, Any] = {}
    for row in request.case.fields["tables"]:
        take_known(row, ("frames", "wanted", "emu", "emu2_demo"), "row")
        for name in ("emu", "emu2_demo"):
            try:
                found: Any = FRAME_CHOICES[name](row["frames"], row["wanted"])
            except ValueError:
                found = "error: ValueError"
            made[f"{name}, {row['wanted']} of {row['frames']}"] = Pair(found, row[name])
        own = FRAME_CHOICES["middle"](row["frames"], row["wanted"])
        made[f"ours, {row['wanted']} of {row['frames']}"] = Pair(len(own), row["wanted"])
    return made


def boards(request: Request) -> Outcome:
    """Sheets and subtitles as frames with the words between them."""
    case, told = request.case, request.case.fields["storyboard"]
    take_known(told, ("sheets", "duration", "subtitles", "expected_texts", "expected_frames"), "storyboard")
    known = ("width", "height", "columns", "rows", "count")
    facts = [take_known(one, known, "sheet") for one in told["sheets"].values()]
    sheets = [
        Sheet(seen.numpy(), *(one[name] for name in known))
        for seen, one in zip(case.take(request.call), facts, strict=True)
    ]
    said = [take_known(one, ("text", "start", "duration"), "subtitle") for one in told["subtitles"]]
    found = storyboard(sheets, told["duration"], [Subtitle(one["text"], one["start"]) for one in said])
    return {
        "frames": torch.from_numpy(np.stack(found.frames)),
        "texts": Pair({f"{number}.txt": text for number, text in found.texts.items()}, told["expected_texts"]),
        "number of frames": Pair(len(found.frames), told["expected_frames"]),
    }


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"process_img \(Emu, understanding\) and the pipeline's transform \(Emu, generation\): .*")(pixels)
    system.call(r"transform \(Emu2\)")(pixels)
    system.call(r"get_index\(frames, wanted\) -> emu; extract_frames\(video of that length, wanted\) -> emu2_demo")(
        frames
    )
    system.call(r"sampler: sheets and subtitles to an interleaved sample")(boards)
