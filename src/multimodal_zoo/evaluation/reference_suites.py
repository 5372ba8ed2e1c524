"""Prompts whose drawings are compared with true pictures: captions of COCO, subjects of DreamBench."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL.Image import Image as PilImage

from multimodal_zoo.data.benchmark_set import AbsentDataError
from multimodal_zoo.evaluation.prompt_suites import Prompt, save_png
from multimodal_zoo.evaluation.vqa_questions import below, file_and_pictures, json_at
from multimodal_zoo.registry import EVALUATORS

SCORED = "mmzoo eval: picture_scores of the same suite and folder"
#: A prompt in DreamBench's list, with places for a rare word and for the kind of subject.
LISTED = re.compile(r"""^\s*(['"])(.*?)\1\.format\(\s*unique_token\s*,\s*class_token\s*\)""")
#: Kinds of subjects that have the list for living ones.
LIVING = ("cat", "dog")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@EVALUATORS.register_module(name="caption_prompts")
class CaptionPrompts:
    """Captions of COCO's validation pictures, drawn without replacement; files `00000000.png`, or with `_n`.

    Args:
        root: the benchmark's folder.
        file: COCO's `captions_val2014.json` inside.
        images: folder of the pictures inside.
        count: captions; None takes all, in the file's order.
        seed: of the choice.
        shown: `text` draws from the caption, `picture` from the picture alone (autoencoding: nothing is said).
        name: of the suite; names its folder.

    Raises:
        ValueError: another `shown`, or a count below one.
    """

    scored_by = SCORED

    def __init__(
        self,
        root: str | None,
        file: str,
        images: str,
        count: int | None = 30000,
        seed: int = 0,
        shown: str = "text",
        name: str = "coco",
    ) -> None:
        if shown not in ("text", "picture") or (count is not None and count < 1):
            raise ValueError(
                f"caption_prompts.shown is {shown!r} and count {count}; expected text or picture, and at least 1"
            )
        self.root, self.file, self.images, self.count = root, file, images, count
        self.seed, self.shown, self.name = seed, shown, name

    def prompts(self) -> list[Prompt]:
        """The captions, in the file's order.

        Raises:
            AbsentDataError, NoRootError: no file, or no place where it could be.
            ValueError: another layout, or fewer captions than asked for.
        """
        path, images = file_and_pictures(self.root, self.file, self.images, "caption_prompts")
        content = json_at(path)
        try:
            names = {row["id"]: row["file_name"] for row in content["images"]}
            rows = [(str(row["caption"]).strip(), images / names[row["image_id"]]) for row in content["annotations"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: not in COCO's layout of captions ({error!r})") from None
        if self.count is not None and self.count > len(rows):
            raise ValueError(f"caption_prompts.count is {self.count}; {path} has {len(rows)} captions")
        numbers = range(len(rows))
        if self.count is not None:
            numbers = sorted(Random(self.seed).sample(numbers, self.count))  # type: ignore[assignment]
        alone = self.shown == "picture"
        return [
            Prompt("" if alone else rows[n][0], str(n), shown=(rows[n][1],) if alone else (), references=(rows[n][1],))
            for n in numbers
        ]

    def files(self, place: int, prompt: Prompt, count: int) -> list[str]:
        """The pictures."""
        return [f"{int(prompt.key):08d}{f'_{n}' if count > 1 else ''}.png" for n in range(count)]

    def write(self, folder: Path, place: int, prompt: Prompt, images: Sequence[PilImage]) -> None:
        """The prompt's pictures among those of all others."""
        for image, name in zip(images, self.files(place, prompt, len(images)), strict=True):
            save_png(image, folder / name)


@EVALUATORS.register_module(name="dreambench_prompts")
class DreamBenchPrompts:
    """DreamBench (arXiv 2208.12242): 25 texts for each of 30 subjects, of which one picture is shown.

    The rare word that stands for a subject where a model is tuned on it is left out, as for models that see a picture
    (Kosmos-G, arXiv 2310.02992; its exact words are not published in a file). Pictures lie in a folder for each
    subject, `PROMPT_N.png`.

    Args:
        root: the release's folder, with `prompts_and_classes.txt` and a folder of pictures for each subject.
        images: folder of the subjects' folders inside.
    """

    name, scored_by = "dreambench", SCORED

    def __init__(self, root: str | None, images: str = ".") -> None:
        self.root, self.images = root, images

    def prompts(self) -> list[Prompt]:
        """The texts of each subject, in the release's order.

        Raises:
            AbsentDataError, NoRootError: no list, or no pictures of a subject.
            ValueError: a list in another layout.
        """
        path = below(self.root, "prompts_and_classes.txt", "dreambench_prompts.root")
        place = below(self.root, self.images, "dreambench_prompts.images")
        subjects, lists = self._listed(path)
        found = []
        for subject, kind in subjects:
            folder = place / subject
            pictures = tuple(sorted(one for one in folder.glob("*") if one.suffix.lower() in PICTURES))
            if not pictures:
                raise AbsentDataError(f"dreambench_prompts.images: no picture of {subject} in {folder}")
            for number, text in enumerate(lists[kind in LIVING]):
                words = " ".join(text.format("", kind).split())
                found.append(Prompt(words, f"{subject}/{number:02d}", shown=pictures[:1], references=pictures))
        return found

    @staticmethod
    def _listed(path: Path) -> tuple[list[tuple[str, str]], dict[bool, list[str]]]:
        """Subjects with their kinds, and the texts for things (False) and for living beings (True)."""
        subjects: list[tuple[str, str]] = []
        lists: dict[bool, list[str]] = {False: [], True: []}
        living: bool | None = None
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip().lower() in ("object prompts", "live subject prompts"):
                living = line.strip().lower().startswith("live")
            elif living is None and line.count(",") == 1 and line.strip() != "subject_name,class":
                name, _, kind = line.strip().partition(",")
                subjects.append((name, kind))
            elif living is not None and (text := LISTED.match(line)):
                lists[living].append(text[2])
        if not subjects or not all(lists.values()):
            counts = ", ".join(str(len(one)) for one in lists.values())
            raise ValueError(f"{path}: not in DreamBench's layout: {len(subjects)} subjects, lists of {counts} texts")
        return subjects, lists

    def files(self, place: int, prompt: Prompt, count: int) -> list[str]:
        """The pictures."""
        return [f"{prompt.key}_{number}.png" for number in range(count)]

    def write(self, folder: Path, place: int, prompt: Prompt, images: Sequence[PilImage]) -> None:
        """The prompt's pictures in its subject's folder."""
        for image, name in zip(images, self.files(place, prompt, len(images)), strict=True):
            save_png(image, folder / name)
