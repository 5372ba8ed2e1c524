"""The pictures that runs kept, side by side, within a bound: drawings, retrieval grids, detections."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from multimodal_zoo.evaluation.result import Picture
from multimodal_zoo.evaluation.run_files import DAMAGED
from multimodal_zoo.evaluation.runs import TRAINING, Run

#: Bytes of all pictures of a page together, before they are written as text.
WHOLE = 12 << 20
#: Pixels of the longer side of a picture on a page.
SIDE = 1000
#: Pixels of the largest picture that is opened.
LARGEST = 50_000_000
#: Pictures of one run.
EACH = 12


@dataclass
class Gallery:
    """Pictures by what they show, and what was left out.

    Attributes:
        shown: what a picture shows -> the run's name and the picture, for each run that has it.
        problems: pictures that could not be read, one sentence each.
        left_out: how many did not fit.
    """

    shown: dict[str, list[tuple[str, Picture]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    left_out: int = 0

    def html(self) -> str:
        """Each kind of picture with the runs beside each other."""
        parts = []
        for what, members in self.shown.items():
            drawn = "".join(picture.html() for _, picture in members)
            parts.append(f'<h3>{escape(what.replace("_", " "))}</h3><div class="beside">{drawn}</div>')
        if self.left_out:
            parts.append(f"<p>{self.left_out} more pictures lie in the run folders; a page takes {WHOLE >> 20} MiB</p>")
        return "".join(parts)


def gallery(runs: Sequence[Run]) -> Gallery:
    """The last sample sheet and the pictures of the evaluations of each run; every run has an equal share of the page.

    Args:
        runs: the results that they carry decide whose pictures are shown.
    """
    found = Gallery()
    share = WHOLE // max(1, len(runs))
    for run in runs:
        spent = count = 0
        for what, path, caption in kept(run, found.problems):
            if count == EACH:
                found.left_out += 1
                continue
            try:
                png = shrunk(path)
            except (*DAMAGED, SyntaxError) as error:  # Pillow raises SyntaxError at some broken files
                found.problems.append(f"{run.name}: picture {path.name} is left out ({str(error)[:80] or 'damaged'})")
                continue
            if spent + len(png) > share:
                found.left_out += 1
                continue
            spent, count = spent + len(png), count + 1
            found.shown.setdefault(what, []).append((run.name, Picture(png, f"{run.name}: {caption}")))
    return found


def kept(run: Run, problems: list[str]) -> Iterator[tuple[str, Path, str]]:
    """What, place and caption of the pictures of a run, none of them read."""
    sheets = sorted((run.folder / "samples").glob("*.png"))
    if sheets:
        yield "samples", sheets[-1], sheets[-1].stem.replace("_", " ")
    place = run.folder / "evaluation"
    for name in (name for name in run.results if name != TRAINING):
        try:
            figures = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))["figures"]
            entries = [(f"{name} {key}", str(one["file"]), str(one["caption"])) for key, one in figures.items()]
        except DAMAGED as error:
            problems.append(f"{run.name}: the pictures of {name} are left out ({type(error).__name__})")
            continue
        for what, file, caption in entries:
            if Path(file).name == file:  # a file of the folder itself, not one that a name leads to
                yield what, place / file, caption


def shrunk(path: Path) -> bytes:
    """A picture file as PNG of at most `SIDE` pixels, made anew: nothing but pixels reaches the page.

    Raises:
        OSError, SyntaxError: a broken file.
        ValueError: more pixels than anybody can look at.
    """
    from PIL import Image

    try:
        opened = Image.open(path, formats=("PNG",))
    except Image.DecompressionBombError as error:  # no OSError
        raise ValueError(str(error)) from None
    with opened:
        if opened.width * opened.height > LARGEST:
            raise ValueError(f"{opened.width} x {opened.height} pixels")
        picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.quantize(128).save(buffer, "PNG")
    return buffer.getvalue()
