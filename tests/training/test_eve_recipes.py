"""EVE's published stages: what they say, what trains in each, and all of them one after the other with small models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from eve_stages import SMALL, TEACHER, V1, V2, V2_DECODER, V2_PLAIN, captions, conversations, table
from omegaconf import OmegaConf
from safetensors.torch import load_file

from multimodal_zoo import zoo
from multimodal_zoo.cli import main
from multimodal_zoo.config import compose

#: Of each stage: rate, samples a step, warm-up, context, samples seen, pixels of the long side or root of the area.
PUBLISHED = {
    "prealign": (4e-4, 512, 0.03, 2048, 16_000_000, 672),
    "pretrain": (4e-5, 512, 0.01, 2048, 33_000_000, 672),
    "sft": (2e-5, 128, 0.01, 2048, 665_000, 672),
    "sft_hd": (2e-5, 128, 0.01, 4096, 1_800_000, 1344),
    "v2_stage0": (2e-4, 1024, 0.03, 2048, 10_000_000, 800),
    "v2_stage1_0": (1e-4, 1024, 0.03, 2048, 29_000_000, 800),
    "v2_stage1_1": (5e-5, 1024, 0.03, 4096, 48_000_000, 1600),
    "v2_stage2": (2e-5, 512, 0.03, 4096, 15_000_000, 1600),
    "v2_stage3": (1e-5, 512, 0.03, 5000, 7_300_000, 1600),
}
#: Stage -> the one whose weights it starts from.
BEFORE = {
    "prealign": None, "pretrain": "prealign", "sft": "pretrain", "sft_hd": "pretrain",
    "v2_stage0": None, "v2_stage1_0": "v2_stage0", "v2_stage1_1": "v2_stage1_0", "v2_stage2": "v2_stage1_1",
    "v2_stage3": "v2_stage2",
}  # fmt: skip
TEXT = ("decoder.token_embedding.", "decoder.norm.", "decoder.output.")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_was_published(name: str) -> None:
    recipe = compose(f"eve/{name}", [])
    rate, batch, warmup, context, samples, pixels = PUBLISHED[name]
    optim, trainer, data, images = recipe.optim, recipe.trainer, recipe.data, recipe.model.processor.images
    assert (optim.lr, list(optim.betas), optim.eps, optim.weight_decay) == (rate, [0.9, 0.999], 1e-8, 0.0)
    accumulated = trainer.accumulate_grad_batches
    assert data.batch_size * trainer.devices * trainer.num_nodes * accumulated == batch
    assert abs(trainer.max_steps - samples / batch) < 1
    assert (recipe.schedule.warmup, recipe.schedule.final, trainer.gradient_clip_val) == (warmup, 0.0, None)
    assert (data.batching.context_length, data.batching.too_long) == (context, "cut_ids")
    assert images.get("image_size", images.get("max_size")) == pixels
    assert recipe.model.decoder.blocks.checkpoint == "block"
    assert trainer.precision == "bf16-mixed"
    grouped = name in ("sft", "sft_hd", "v2_stage3")
    assert data.order.type == ("modality_length_order" if grouped else "shuffled_order")
    if grouped:
        order = OmegaConf.to_container(data.order, resolve=True)
        assert order["batch_size"] * order["ranks"] * order["accumulation"] == batch
    assert data.train.get("samples_per_epoch", samples) == samples
    if not name.startswith("v2"):
        assert (recipe.objective.weight, recipe.objective.distance, recipe.teacher.layer) == (1.0, "cosine", -2)
        assert (data.teacher, recipe.model.aligner.depth, recipe.model.aligner.teacher_width) == (True, 32, 1024)
    assert recipe.model.processor.template == {
        "prealign": "plain", "pretrain": "plain", "sft": "vicuna_v1", "sft_hd": "vicuna_v1",
        "v2_stage2": "qwen2", "v2_stage3": "qwen2",
    }.get(name, "plain_stripped")  # fmt: skip


def small(name: str, folder: Path) -> list[str]:
    """Overrides that train a stage on a few samples."""
    if BEFORE[name] == "prealign" or BEFORE[name] is None or "stage1" in name:
        data = [f"data.train.sources={captions(folder)}", "data.train.streams=1"]
    else:
        data = table(folder, conversations(folder, text_share=0.5))
    if not name.startswith("v2"):
        return [*SMALL, *V1, *TEACHER, *data]
    return [*SMALL, *V2, *(V2_PLAIN if name == "v2_stage0" else V2_DECODER), *data]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two steps of each stage, from the weights of the one before it."""
    folder, runs = tmp_path_factory.mktemp("stages"), {}
    for name, before in BEFORE.items():
        start = "initial_weights=null" if before is None else f"initial_weights={runs[before]}"
        if name == "v2_stage1_0":
            start = f"initial_weights.model={runs['v2_stage0']}"
        runs[name] = folder / name
        runs[name].mkdir()
        assert main(["train", f"eve/{name}", *small(name, runs[name]), start, f"run.dir={runs[name]}"]) == 0
    return runs


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a run left."""
    return load_file(run / "model" / "model.safetensors")


def moved(now: dict[str, torch.Tensor], before: dict[str, torch.Tensor], names: list[str]) -> float:
    """The largest change of any value of these tensors."""
    return max(float((now[name] - before[name]).abs().max()) for name in names)


@pytest.mark.parametrize("name", [name for name, before in BEFORE.items() if before])
def test_a_stage_starts_from_the_one_before(name: str, stages: dict[str, Path]) -> None:
    """Two steps of AdamW move a value by about two rates at most; what is frozen does not move at all."""
    now, before, rate = weights(stages[name]), weights(stages[BEFORE[name] or ""]), PUBLISHED[name][0]
    if name == "v2_stage1_0":  # whose pictures begin with the text's weights
        before = {one: before[one.replace(".text.", ".").replace(".vision.", ".")] for one in now}
    assert now.keys() == before.keys()
    assert 0 < moved(now, before, list(now)) <= 2.1 * rate
    frozen = [one for one in now if ".text." in one or one.startswith(TEXT)] if "stage1" in name else []
    assert not frozen or moved(now, before, frozen) == 0
    pictures = [one for one in now if one.startswith("vision_embedding.") or ".vision." in one]
    assert moved(now, before, pictures) > 0


def test_pre_alignment_leaves_the_language_model(stages: dict[str, Path]) -> None:
    for name in ("prealign", "v2_stage0"):
        config = OmegaConf.load(stages[name] / "config.yaml")
        start = zoo.build_model(OmegaConf.to_container(config.model), seed=config.seed).state_dict()
        now = weights(stages[name])
        decoder = [one for one in now if one.startswith("decoder.")]
        assert moved(now, start, decoder) == 0
        rest = [one for one in now if one not in decoder]
        assert all(moved(now, start, [one]) > 0 for one in rest if not one.endswith("key_norm.bias"))


def test_what_only_training_needs_stays_there(stages: dict[str, Path]) -> None:
    saved = weights(stages["sft"])
    assert {one.split(".")[0] for one in saved} == {"decoder", "vision_embedding", "aligner"}
    model = zoo.from_pretrained(stages["sft"])
    assert model.aligner is None
    assert model.config["aligner"] is None
    expected = {one for one in saved if not one.startswith("aligner.")}
    assert model.state_dict().keys() == expected


def test_any_pairs_serve(tmp_path: Path) -> None:
    """A list of lines in place of shards."""
    records = conversations(tmp_path, count=4, text_share=0.0)
    lines = [json.dumps({"filename": one["image"], "caption": one["conversations"][1]["value"]}) for one in records]
    (tmp_path / "pairs.json").write_text("\n".join(lines))
    reader = ["reader@data.train=line_pairs", "~data.train.samples_per_epoch"]
    reader += [f"data.train.table={tmp_path / 'pairs.json'}", f"data.train.folder={tmp_path / 'pictures'}"]
    words = [*SMALL, *V1, *TEACHER, *reader, "initial_weights=null", f"run.dir={tmp_path / 'run'}"]
    assert main(["train", "eve/prealign", *words]) == 0
    assert "aligner.input_layer.weight" in weights(tmp_path / "run")


def test_samples_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Broken records, lost places and pictures without any area: training goes on and the report says what was left."""
    records = conversations(tmp_path, count=8, text_share=0.0)
    long, answer = "cat " * 300, {"from": "gpt", "value": "a cat"}
    (tmp_path / "pictures" / "empty.png").write_bytes(b"")
    records += [
        {"id": "no turns", "image": "0.png"},
        {"id": "no place", "image": "0.png", "conversations": [{"from": "human", "value": "what?"}, answer]},
        {
            "id": "two places",
            "image": ["0.png", "1.png", "2.png"],
            "conversations": [{"from": "human", "value": "<image><image>"}, answer],
        },
        {"id": "lost", "image": "gone.png", "conversations": [{"from": "human", "value": "<image>"}, answer]},
        {"id": "no area", "image": "empty.png", "conversations": [{"from": "human", "value": "<image>"}, answer]},
        {
            "id": "late",
            "image": "0.png",
            "conversations": [{"from": "human", "value": f"{long}<image>"}, answer],
        },
        {"id": "long", "conversations": [{"from": "human", "value": long}, answer]},
    ]
    words = [*SMALL, *V2, *V2_DECODER, *table(tmp_path, records), "initial_weights=null", "data.batch_size=5"]
    words += ["data.batching.context_length=200", "trainer.max_steps=3", f"run.dir={tmp_path / 'run'}"]
    assert main(["train", "eve/v2_stage3", *words]) == 0
    told = json.loads((tmp_path / "run" / "report.json").read_text())["left_out"]["data.train"]
    named = " ".join(example for _, examples in told.values() for example in examples)
    assert sum(count for count, _ in told.values()) >= 7
    for name in ("no turns", "no place", "two places", "gone.png", "empty.png", "late", "long"):
        assert name in named, (name, told)
    assert "Samples left out" in (tmp_path / "run" / "report.html").read_text()
