"""Emu3's published recipes: what they say, and two steps of each with the small model on a few codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from multimodal_zoo.cli import main
from multimodal_zoo.config import compose
from multimodal_zoo.data.code_shards import write_codes
from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_features import FEATURES, LIST
from multimodal_zoo.data.preference_pairs import write_preferences
from multimodal_zoo.training.schedule import WarmupLinear

VISION = {"type": "token_weights", "text": 0.0, "vision": 1.0, "layout": 0.0, "prompt": 0.0, "end": 0.0}
#: What the paper and the released script say: (rate, context, positions, weight of visual tokens).
PUBLISHED = {
    "stage1": (5e-5, 5120, 5120, 0.5),
    "stage2": (5e-5, 131072, 131072, 0.5),
    "qft": (1e-5, 9216, 9216, 1.0),
    "sft_generation": (1e-5, 10240, 10240, 1.0),
    "sft_chat": (1e-5, 5120, 131072, 0.0),
    "sft_chat_stage2": (1e-5, 20480, 131072, 0.0),
    "dpo": (5e-7, 9216, 9216, 1.0),
}
SMALL = [
    "model.decoder.blocks.depth=1",
    *("trainer=cpu", "trainer.max_steps=2", "trainer.num_nodes=1", "trainer.accumulate_grad_batches=1"),
    *("schedule.warmup=0", "data.workers=0", "callbacks.checkpoint=null", "logger=csv"),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_was_published(name: str) -> None:
    recipe = compose(f"emu3/{name}", [])
    rate, context, positions, vision = PUBLISHED[name]
    assert recipe.optim.lr == rate
    assert recipe.data.batching.context_length == context
    assert recipe.model.decoder.max_positions == positions
    assert recipe.data.weights.vision == vision
    assert recipe.model.vision_tokenizer is None
    assert recipe.model.decoder.blocks.checkpoint == "block"
    assert recipe.model.decoder.blocks.block.attention.dropout == 0.1


def test_the_released_fine_tuning_is_the_script() -> None:
    recipe = compose("emu3/sft_generation", [])
    optim, trainer = recipe.optim, recipe.trainer
    assert (list(optim.betas), optim.eps, optim.weight_decay) == ([0.9, 0.95], 1e-6, 0.1)
    assert (trainer.max_epochs, trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (4, 4, 5.0)
    assert (recipe.schedule.warmup, recipe.schedule.final * optim.lr) == (30, pytest.approx(1e-6))
    assert (recipe.data.batch_size, recipe.data.layout.null_prompt_probability, recipe.data.layout.end) == (
        2,
        0.05,
        False,
    )
    assert OmegaConf.to_container(recipe.data.weights) == VISION
    assert (recipe.callbacks.checkpoint.every_n_steps, recipe.callbacks.checkpoint.keep) == (500, 10)


def test_a_straight_line_falls_to_its_end() -> None:
    line = WarmupLinear(warmup=2, final=0.1)
    assert [line(step, 12) for step in (0, 1, 2, 7, 12)] == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])
    with pytest.raises(ValueError, match="warmup"):
        WarmupLinear(warmup=-1)


def codes(seed: int) -> np.ndarray:
    """A small picture of the small model's codebook."""
    return np.random.default_rng(seed).integers(0, 512, (3, 4)).astype(np.int32)


def features(folder: Path) -> str:
    """Fine-tuning data as the published preparation writes them."""
    (folder / FEATURES).mkdir(parents=True)
    names = [f"{number}.pth" for number in range(6)]
    for number, name in enumerate(names):
        torch.save({"name": name, "images": codes(number), "texts": f"picture {number}"}, folder / FEATURES / name)
    (folder / LIST).parent.mkdir()
    (folder / LIST).write_text(json.dumps({"prefix": str(folder / FEATURES), "path_list": names}))
    return f"data.train.table={folder / LIST}"


def pairs(folder: Path) -> str:
    """Preferences of random drawings."""
    table = write_preferences(folder, [(f"picture {n}", codes(n), codes(100 + n)) for n in range(4)])
    return f"data.train.table={table}"


def shards(folder: Path) -> str:
    """Encoded documents: a question, a picture and an answer each."""
    documents = [
        Document([Codes(codes(n)), Text(f"what is {n}?", "user"), Text(f"a number {n}", "assistant")], {"key": str(n)})
        for n in range(8)
    ]
    folder.mkdir(parents=True)
    write_codes(folder / "codes.tar", documents, 0)
    return str(folder / "codes.tar")


def small(name: str, folder: Path) -> list[str]:
    """Overrides that train a recipe on a few codes."""
    if name == "dpo":
        return [pairs(folder), "reference.weights=null"]
    if name == "sft_generation":
        return [features(folder)]
    place = shards(folder)
    sources = {"stage1": ("texts", "pictures"), "stage2": ("texts", "pictures", "clips")}.get(name, ())
    words = [f"data.train.sources.{source}.{key}" for source in sources for key in (f"sources={place}", "streams=1")]
    words = words or [f"data.train.sources={place}", "data.train.streams=1"]
    return [*words, "data.batching.batches_per_epoch=4"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_steps_of_a_recipe(name: str, tmp_path: Path) -> None:
    base = ["model=emu3_tiny", "model.decoder.max_positions=256", "data.batching.context_length=256", *SMALL]
    words = [
        *small(name, tmp_path / "data"),
        "initial_weights=null",
        "data.batch_size=1",
        f"run.dir={tmp_path / 'run'}",
    ]
    assert main(["train", f"emu3/{name}", *base, *words]) == 0
    assert (tmp_path / "run" / "model" / "config.yaml").is_file()
