"""Suites that judge drawings by programs of their own: what they want drawn, and where they look for the pictures.

The suites' own programs score the folder: GenEval (arXiv 2310.11513) with an object detector, DPG-Bench (arXiv
2403.05135) with mPLUG, T2I-CompBench (arXiv 2307.06350) with BLIP's answers to questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image
from PIL.Image import Image as PilImage

from multimodal_zoo.data.benchmark_set import AbsentDataError, NoRootError
from multimodal_zoo.data.documents import Document, Segment, Text
from multimodal_zoo.data.documents import Image as DocumentImage
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.files import atomic_file, parsed, read_lines, write_text
from multimodal_zoo.registry import EVALUATORS

#: Longest name of a file, in bytes, on usual file systems.
LONGEST_NAME = 255


@dataclass(frozen=True)
class Prompt:
    """One text of a suite.

    Attributes:
        text: what is drawn.
        key: what the suite calls it: its line, or its file.
        facts: the suite's own line about it, as it was; empty where it has none.
        shown: pictures that the model sees in front of the text.
        references: true pictures of it.
    """

    text: str
    key: str
    facts: str = ""
    shown: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()

    def document(self) -> str | Document:
        """What is drawn from: the text, behind the pictures that are shown.

        Raises:
            UnusableError: a picture that is missing or broken.
        """
        if not self.shown:
            return self.text
        segments: list[Segment] = [DocumentImage(load(open_picture(path, str(path)), str(path))) for path in self.shown]
        return Document([*segments, *([Text(self.text)] if self.text else [])], {"key": self.key})


class PromptSuite(Protocol):
    """A suite's prompts and the layout of its folder.

    Attributes:
        name: of the suite; names its folder.
        scored_by: how the folder is judged, for reports.
    """

    name: str
    scored_by: str

    def prompts(self) -> list[Prompt]:
        """The texts, in the suite's order."""
        ...

    def files(self, place: int, prompt: Prompt, count: int) -> list[str]:
        """Paths inside the folder of what `write` writes for `count` pictures of the prompt at a place."""
        ...

    def write(self, folder: Path, place: int, prompt: Prompt, images: Sequence[PilImage]) -> None:
        """Put the pictures of one prompt where the suite looks for them."""
        ...


def _lines(path: Path, suite: str) -> list[str]:
    if not path.is_file():
        raise AbsentDataError(f"{suite}: no file {path}")
    lines = [line for line in read_lines(path, "list of prompts") if line]
    if not lines:
        raise ValueError(f"{suite}: {path} holds no prompt")
    return lines


def _place(place: str | None, key: str) -> Path:
    if place is None:
        raise NoRootError(f"{key} is null: give the suite's own prompts, on the command line benchmark_root=PLACE")
    return Path(place).expanduser()


def save_png(image: PilImage, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with atomic_file(path) as temporary:
        image.save(temporary, "PNG")


def tiled(images: Sequence[PilImage], columns: int) -> PilImage:
    """Pictures of one size side by side, row by row.

    Raises:
        ValueError: different sizes.
    """
    width, height = images[0].size
    if any(image.size != (width, height) for image in images):
        raise ValueError(f"a grid needs pictures of one size, not {sorted({image.size for image in images})}")
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * width, number // columns * height))
    return sheet


@EVALUATORS.register_module(name="geneval_prompts")
class GenEvalPrompts:
    """GenEval: JSON lines with `prompt`, `tag` and what must be seen; folders `00000/samples/0000.png`.

    Each folder has the prompt's line in `metadata.jsonl`, beside `samples`.

    Args:
        file: the suite's `evaluation_metadata.jsonl`.
        grid: whether a sheet of the pictures, `grid.png`, is written too.
    """

    name = "geneval"
    scored_by = "GenEval's evaluation/evaluate_images.py FOLDER"

    def __init__(self, file: str | None, grid: bool = False) -> None:
        self.file, self.grid = file, grid

    def prompts(self) -> list[Prompt]:
        """The texts, in the order of the lines.

        Raises:
            AbsentDataError, NoRootError, ValueError: no file, or a line without a prompt.
        """
        path = _place(self.file, "geneval_prompts.file")
        found = []
        for number, line in enumerate(_lines(path, "geneval_prompts")):
            try:
                text = parsed(line)["prompt"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}: prompt {number + 1} is no JSON object with a `prompt`: {line[:80]}"
                ) from error
            found.append(Prompt(text, str(number), line))
        return found

    def files(self, place: int, prompt: Prompt, count: int) -> list[str]:
        """The pictures, and the sheet."""
        names = [f"{place:05d}/samples/{number:04d}.png" for number in range(count)]
        return [*names, f"{place:05d}/grid.png"] if self.grid else names

    def write(self, folder: Path, place: int, prompt: Prompt, images: Sequence[PilImage]) -> None:
        """The prompt's folder; its line comes first, so that pictures never lie without it."""
        write_text(folder / f"{place:05d}" / "metadata.jsonl", prompt.facts)
        names = self.files(place, prompt, len(images))
        for image, name in zip(images, names, strict=False):
            save_png(image, folder / name)
        if self.grid:
            save_png(tiled(images, columns=min(4, len(images))), folder / names[-1])


@EVALUATORS.register_module(name="dpg_prompts")
class DpgPrompts:
    """DPG-Bench: a text file for each prompt; one PNG named like it, which holds the pictures in rows of two.

    Args:
        folder: the suite's `prompts`.
    """

    name = "dpg"
    scored_by = "DPG-Bench's compute_dpg_bench.py --image-root-path FOLDER --resolution SIDE --pic-num COUNT"

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def prompts(self) -> list[Prompt]:
        """The texts, by name of their file.

        Raises:
            AbsentDataError, NoRootError, ValueError: no folder, no file in it, or an empty one.
        """
        place = _place(self.folder, "dpg_prompts.folder")
        files = sorted(place.glob("*.txt"))
        if not files:
            raise AbsentDataError(f"dpg_prompts.folder: no *.txt in {place}")
        found = [Prompt(file.read_text(encoding="utf-8").strip(), file.stem) for file in files]
        if empty := [prompt.key for prompt in found if not prompt.text]:
            raise ValueError(f"dpg_prompts.folder: {place / empty[0]}.txt is empty")
        return found

    def files(self, place: int, prompt: Prompt, count: int) -> list[str]:
        """The one PNG."""
        return [f"{prompt.key}.png"]

    def write(self, folder: Path, place: int, prompt: Prompt, images: Sequence[PilImage]) -> None:
        """All pictures in one."""
        save_png(tiled(images, columns=1 if len(images) == 1 else 2), folder / f"{prompt.key}.png")


@EVALUATORS.register_module(name="t2i_compbench_prompts")
class T2ICompBenchPrompts:
    """T2I-CompBench: a text file with a prompt on each line; pictures `samples/<prompt>_000000.png`.

    The number behind a prompt counts all pictures. The suite reads the prompt back from the name up to the first
    underscore, so that a prompt can hold none.

    Args:
        root: the folder of the suite's lists.
        list: the name of one, `color_val` say.
    """

    scored_by = "T2I-CompBench's BLIPvqa_eval/BLIP_vqa.py --out_dir=FOLDER"

    def __init__(self, root: str | None, list: str) -> None:
        self.root, self.list = root, list
        self.name = f"t2i_compbench_{list}"

    def prompts(self) -> list[Prompt]:
        """The texts, in the order of the lines.

        Raises:
            AbsentDataError, NoRootError, ValueError: no list, or a line that cannot name a file.
        """
        path = _place(self.root, "t2i_compbench_prompts.root") / f"{self.list}.txt"
        found = [Prompt(line, str(number)) for number, line in enumerate(_lines(path, "t2i_compbench_prompts"))]
        for number, prompt in enumerate(found, start=1):
            too_long = len(f"{prompt.text}_000000.png".encode()) > LONGEST_NAME
            if too_long or set(prompt.text) & set("/_\0") or prompt.text.startswith("."):
                raise ValueError(
                    f"{path}: prompt {number} names a file, so it may hold no / and no _, may not begin with a dot and "
                    f"has at most {LONGEST_NAME - 11} bytes: {prompt.text[:80]!r}"
                )
        return found

    def files(self, place: int, prompt: Prompt, count: int) -> list[str]:
        """The pictures."""
        return [f"samples/{prompt.text}_{place * count + number:06d}.png" for number in range(count)]

    def write(self, folder: Path, place: int, prompt: Prompt, images: Sequence[PilImage]) -> None:
        """The prompt's pictures among those of all others."""
        for image, name in zip(images, self.files(place, prompt, len(images)), strict=True):
            save_png(image, folder / name)
