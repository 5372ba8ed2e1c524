"""One cell of the table: a CLIP, or a captioner behind its image tower, trained on one set of captions of one size."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from fusion_parts.scores import caption_scores, retrieval_scores
from fusion_parts.sets import STYLE, Captions
from multimodal_zoo.commands.train import train_recipe
from multimodal_zoo.config import compose

#: The quickstart's image tower with two thirds of its channels: half of a step's cost.
CHANNELS, WIDTH = "[32,64,128]", 128
#: Pairs of a step; the captioner's are fewer, as its texts are read token by token.
PAIRS = {"clip": 128, "emu": 64}


@dataclass(frozen=True)
class Budget:
    """How much is trained, the same for every set: passes over the pairs, so that more pairs cost more, as published.

    Attributes:
        clip: passes of CLIP.
        emu: passes of the captioner.
        gallery: pictures of each kind that are searched.
        described: pictures of each kind that are described.
    """

    clip: float
    emu: float
    gallery: int = 500
    described: int = 300

    def steps(self, cell: Cell, pictures: int) -> int:
        """Steps of a cell."""
        return max(2, round(getattr(self, cell.model) * pictures / PAIRS[cell.model]))


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        captions: name of the set.
        share: of the training concepts.
        model: `clip` or `emu`.
        seed: of weights, order and augmentation.
    """

    captions: str
    share: float
    model: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its folder and file."""
        return f"{self.captions}_{round(100 * self.share)}_{self.model}_seed{self.seed}"

    @property
    def tower(self) -> Cell:
        """The CLIP whose image tower the captioner begins with."""
        return Cell(self.captions, self.share, "clip", self.seed)


def pictures_of(share: float) -> int:
    """Pictures of a share of the training concepts, one of each in the style of training."""
    from multimodal_zoo.data.emoji_pairs import EmojiPairs

    return len(EmojiPairs([STYLE], ["train"], 72, share=share))


def shared_words(cell: Cell, place: Path, steps: int) -> list[str]:
    """Overrides that both models have in common."""
    return [
        f"run.dir='{place}'",
        "threads=1",
        "logger=csv",
        f"seed={cell.seed}",
        f"data.train.styles=[{STYLE}]",
        f"++data.train.share={cell.share}",
        f"data.batch_size={PAIRS[cell.model]}",
        f"trainer.max_steps={steps}",
        "trainer.limit_val_batches=0",
        "callbacks.checkpoint=null",
        "callbacks.samples=null",
    ]


def clip_recipe(cell: Cell, captions: Captions, place: Path, steps: int) -> DictConfig:
    """The quickstart with captions of the set, longer texts, the pieces of all sets, and no evaluation of its own."""
    pieces = captions.pieces()
    known = len(pieces.read_text().split())
    config = compose(
        "quickstart",
        [
            *shared_words(cell, place, steps),
            f"model.image.channels={CHANNELS}",
            f"model.image.width={WIDTH}",
            "model.text.context_length=40",  # 2 of 1,000 captions are longer
            f"model.text.vocab_size={known + 4}",
        ],
    )
    with open_dict(config):
        config.data.captions = captions.policy(cell.captions)
        config.model.processor.texts.texts = []
        config.model.processor.texts.pieces = str(pieces)
        config.evaluation = {}
    return config


def emu_recipe(cell: Cell, captions: Captions, place: Path, steps: int, tower: Path) -> DictConfig:
    """The captioner's recipe with captions of the set, behind the image tower of the set's CLIP, which stays frozen."""
    config = compose(
        "capsfusion/captioner",
        [
            *shared_words(cell, place, steps),
            f"model.image_encoder.channels={CHANNELS}",
            f"model.image_encoder.width={WIDTH}",
            "model.decoder.blocks.depth=2",
            "optim.groups.frozen=[image_encoder.*]",
            "optim.groups.towers.adamw.patterns=[decoder.token_embedding.weight,decoder.output.weight,connector.tokens,"
            "connector.positions.weight,regression_head.*]",
            f"+initial_weights.image='{tower}'",
        ],
    )
    with open_dict(config):
        config.data.layout.captions = captions.policy(cell.captions)
    return config


def finish(cell: Cell, captions: Captions, folder: Path, budget: Budget) -> None:
    """Train and examine a cell unless its file is there; the captioner's CLIP comes first.

    Raises:
        ValueError: its file was written with another budget.
    """
    result, place = folder / f"{cell.name}.json", folder / "runs" / cell.name
    pictures = pictures_of(cell.share)
    steps = budget.steps(cell, pictures)
    if result.exists():
        known = json.loads(result.read_text())["steps"]
        if known != steps:
            raise ValueError(f"{result} comes from {known} steps, not {steps}: choose another --folder")
        return
    if cell.model == "emu":
        finish(cell.tower, captions, folder, budget)
    shutil.rmtree(place, ignore_errors=True)  # of a run that was cut off
    print(time.strftime("%H:%M:%S"), cell.name, f"{pictures} pictures, {steps} steps", flush=True)
    start = time.process_time()
    if cell.model == "clip":
        train_recipe(clip_recipe(cell, captions, place, steps))
        found = retrieval_scores(place / "model", budget.gallery)
    else:
        tower = folder / "runs" / cell.tower.name / "model"
        train_recipe(emu_recipe(cell, captions, place, steps, tower))
        found = caption_scores(place / "model", budget.described)
    found |= {"steps": steps, "cpu_seconds": time.process_time() - start, "pictures": pictures}
    result.write_text(json.dumps({"cell": cell.name, **found}, indent=1, ensure_ascii=False))
    gc.collect()


def results(folder: Path, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
    """What is finished of some cells."""
    paths = {cell: folder / f"{cell.name}.json" for cell in cells}
    return {cell: json.loads(path.read_text()) for cell, path in paths.items() if path.exists()}
