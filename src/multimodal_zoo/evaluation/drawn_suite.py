"""Drawing a suite's prompts into the folder that the suite's own program judges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from multimodal_zoo.evaluation.drawing_sheet import drawing_sheet
from multimodal_zoo.evaluation.environment import fingerprint
from multimodal_zoo.evaluation.features import Counter
from multimodal_zoo.evaluation.prompt_suites import Prompt, PromptSuite
from multimodal_zoo.evaluation.result import Picture, Result
from multimodal_zoo.evaluation.samples import evenly
from multimodal_zoo.evaluation.settings_file import settle
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.files import write_text
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.registry import EVALUATORS

#: Which picture has which seed.
SEEDS = "seeds.jsonl"
#: Pictures of a prompt on the sheet of the report.
COLUMNS = 4


@EVALUATORS.register_module(name="drawn_suite")
class DrawnSuite:
    """Draw every prompt of a suite; what an earlier run finished is not drawn again.

    Picture n of prompt p has the seed `seed + p * per_prompt + n`, whichever run draws it.

    Args:
        suite: prompts and layout: `geneval_prompts`, `dpg_prompts`, `t2i_compbench_prompts`.
        per_prompt: pictures of each prompt.
        guidance: scale of classifier-free guidance; None takes the published one.
        sampling: arguments of `Sampling`; None takes the published ones.
        ratio: width to height.
        area: pixels of a picture; None takes the processor's.
        seed: of the first picture.
        batch_size: pictures drawn at a time.
        folder: where pictures go; None for a folder named like the suite in that of the evaluated model.
        examples: prompts on the report's sheet; 0 draws none.
    """

    def __init__(
        self,
        suite: PromptSuite,
        per_prompt: int,
        guidance: float | None = None,
        sampling: Mapping[str, Any] | None = None,
        ratio: str = "1:1",
        area: int | None = None,
        seed: int = 0,
        batch_size: int = 4,
        folder: str | None = None,
        examples: int = 6,
    ) -> None:
        if per_prompt < 1 or batch_size < 1:
            raise ValueError(f"per_prompt {per_prompt}, batch_size {batch_size}: expected 1 or more of both")
        self.suite, self.per_prompt, self.guidance = suite, per_prompt, guidance
        self.sampling = None if sampling is None else Sampling(**sampling)
        self.ratio, self.area, self.seed, self.batch_size = ratio, area, seed, batch_size
        self.folder = self.place = None if folder is None else Path(folder)
        self.examples = examples

    def share(self, workspace: Workspace) -> None:
        """Take the evaluated model's folder, where none was given."""
        if self.folder is None and workspace.folder is not None:
            self.place = workspace.folder.parent / self.suite.name

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Draw what is missing.

        Raises:
            ValueError: no folder, or one with pictures of another model or of other settings.
            FileNotFoundError: no prompts.
        """
        del processor, device  # `draw` finds both at the model
        if self.place is None:
            raise ValueError("drawn_suite.folder: say where the pictures go")
        prompts = self.suite.prompts()
        settle(self.place, self._settings(model), "pictures", "drawn_suite.folder")
        waiting = [place for place in range(len(prompts)) if not self._finished(self.place, place, prompts[place])]
        at_once = max(1, self.batch_size // self.per_prompt)
        with Counter(f"prompts of {self.suite.name}", len(prompts)) as counter:
            counter.advance(len(prompts) - len(waiting))
            for start in range(0, len(waiting), at_once):
                self._draw(self.place, model, prompts, waiting[start : start + at_once])
                counter.advance(len(waiting[start : start + at_once]))
        self._note_seeds(self.place, prompts)
        metrics: dict[str, float] = {
            "prompts": len(prompts),
            "pictures": len(prompts) * self.per_prompt,
            "drawn_now": len(waiting),
        }
        details = {**self._settings(model), "folder": str(self.place), "scored_by": self.suite.scored_by}
        figures = self._sheet(self.place, prompts)
        return Result(self.suite.name, metrics, [], figures, details, ("prompts", "pictures"))

    def seeds(self, place: int) -> list[int]:
        """The seeds of the pictures of one prompt."""
        return [self.seed + place * self.per_prompt + number for number in range(self.per_prompt)]

    def _draw(self, folder: Path, model: nn.Module, prompts: Sequence[Prompt], places: Sequence[int]) -> None:
        drawings = draw(
            model,
            [prompts[place].document() for place in places],
            guidance=self.guidance,
            sampling=self.sampling,
            ratio=self.ratio,
            area=self.area,
            seed=[seed for place in places for seed in self.seeds(place)],
            per_prompt=self.per_prompt,
            batch_size=self.batch_size,
        )
        images = [drawing.image for drawing in drawings]
        for number, place in enumerate(places):
            own = images[number * self.per_prompt : (number + 1) * self.per_prompt]
            self.suite.write(folder, place, prompts[place], own)

    def _finished(self, folder: Path, place: int, prompt: Prompt) -> bool:
        return all((folder / name).is_file() for name in self.suite.files(place, prompt, self.per_prompt))

    def _settings(self, model: nn.Module) -> dict[str, Any]:
        return {
            "suite": self.suite.name,
            "weights": fingerprint(model),
            "per_prompt": self.per_prompt,
            "guidance": "published" if self.guidance is None else self.guidance,
            "sampling": "published" if self.sampling is None else str(self.sampling),
            "ratio": self.ratio,
            "area": "the model's" if self.area is None else self.area,
            "seed": self.seed,
        }

    def _note_seeds(self, folder: Path, prompts: Sequence[Prompt]) -> None:
        rows = (
            {"key": one.key, "prompt": one.text, "seeds": self.seeds(place),
             "files": self.suite.files(place, one, self.per_prompt)}
            for place, one in enumerate(prompts)
        )  # fmt: skip
        write_text(folder / SEEDS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _sheet(self, folder: Path, prompts: Sequence[Prompt]) -> dict[str, Picture]:
        if not self.examples:
            return {}
        places = evenly(len(prompts), self.examples)
        names = {place: self.suite.files(place, prompts[place], self.per_prompt)[:COLUMNS] for place in places}
        columns = {}
        for column in range(max(len(files) for files in names.values())):
            cells = []
            for place in places:
                with Image.open(folder / names[place][column]) as image:
                    cells.append((image.convert("RGB"), ""))
            columns[f"{column + 1}"] = cells
        png = drawing_sheet([prompts[place].text for place in places], columns)
        return {"drawings": Picture(png, f"Drawings for some prompts of {self.suite.name}")}
