"""Emu's and Emu2's published stages: what they say, and all of them one after the other with small models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from emu_stages import EMU, EMU2, SMALL, conversations, source, table, talk
from omegaconf import OmegaConf
from safetensors.torch import load_file

from multimodal_zoo import zoo
from multimodal_zoo.cli import main
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import panels, read_history, read_metrics
from multimodal_zoo.nn.low_rank import merge_adapters

#: Of each stage of Emu2 (arXiv 2312.13286, tables 6 to 8): documents of a step by source, steps, peak rate, warm-up,
#: moments, clipping.
PUBLISHED = {
    "emu2_stage1": ({"pairs": 6144, "clips": 768}, 35_200, 3e-5, 0.02, (0.9, 0.95), 5.0),
    "emu2_stage1_448": ({"pairs": 6144, "clips": 768}, 4_000, 3e-5, 0, (0.9, 0.95), 5.0),
    "emu2_stage2": ({"pictures": 12_800, "clips": 6_400, "interleaved": 3_200, "texts": 800}, 20_350, 1e-5, 0.1,
                    (0.9, 0.95), 5.0),
    "emu2_chat": (768, 8_000, 1e-5, 100, (0.9, 0.98), 5.0),
    "emu2_gen": ({"pairs": 4096, "grounded": 3584, "edits": 2048}, 3_000, 5e-5, 100, (0.9, 0.95), 1.0),
    "emu2_gen_quality": ({"pairs": 2048, "grounded": 1024, "edits": 2048}, 900, 1e-5, 0, (0.9, 0.95), 1.0),
}  # fmt: skip
#: Published sums of several of our sources.
TOGETHER = {"pictures": ("pairs", "grounded"), "interleaved": ("pages", "storyboards")}
#: What is learnt: words, pictures.
LEARNT = {
    "emu2_stage1": (True, "none"), "emu2_stage1_448": (True, "none"), "emu2_stage2": (True, "said"),
    "emu2_chat": (True, "none"), "emu2_gen": (False, "last"), "emu2_gen_quality": (False, "last"),
    "pretrain": (True, "said"), "instruct": (True, "none"),
}  # fmt: skip
#: Stage -> the one whose weights it starts from.
BEFORE = {
    "emu2_stage1": None, "emu2_stage1_448": "emu2_stage1", "emu2_stage2": "emu2_stage1_448",
    "emu2_chat": "emu2_stage2", "emu2_gen": "emu2_stage2", "emu2_gen_quality": "emu2_gen",
    "pretrain": None, "instruct": "pretrain", "finetune": "emu2_chat",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_was_published(name: str) -> None:
    recipe = compose(f"emu/{name}", [])
    batch, steps, rate, warmup, betas, clipping = PUBLISHED[name]
    optim, trainer, data = recipe.optim, recipe.trainer, recipe.data
    assert (optim.lr, tuple(optim.betas), optim.eps, optim.weight_decay) == (rate, betas, 1e-6, 0.0)
    seen = data.batch_size * trainer.devices * trainer.num_nodes * trainer.accumulate_grad_batches
    assert seen == (batch if isinstance(batch, int) else sum(batch.values()))
    if not isinstance(batch, int):
        weights = OmegaConf.to_container(data.train.weights)
        assert {key: sum(weights[one] for one in TOGETHER.get(key, (key,))) for key in batch} == batch
    assert (trainer.max_steps, trainer.gradient_clip_val, trainer.precision) == (steps, clipping, "bf16-mixed")
    assert (recipe.schedule.warmup, recipe.schedule.final) == (warmup, 0.0)
    assert "WarmupCosine" in recipe.schedule._target_
    assert recipe.model.decoder.blocks.checkpoint == "block"


def test_emu_is_said_as_remembered() -> None:
    recipe = compose("emu/pretrain", [])
    assert dict(recipe.data.train.weights) == {"pairs": 128, "pages": 64, "clips": 8, "storyboards": 8}
    assert recipe.data.batch_size * recipe.trainer.accumulate_grad_batches == 128 + 64 + 16
    assert (recipe.trainer.devices * recipe.trainer.num_nodes, recipe.trainer.max_steps) == (128, 10_000)
    optim = recipe.optim
    assert (optim.lr, list(optim.betas), optim.weight_decay, recipe.schedule.warmup) == (3e-5, [0.9, 0.98], 0.05, 2000)
    assert {key: tower.lr for key, tower in optim.groups.towers.items()} == {"connector": 1e-4, "image_encoder": 5e-5}
    assert (recipe.data.layout.pages.pictures, recipe.data.batching.context_length) == (5, 1024)
    tuning = compose("emu/instruct", [])
    assert tuning.data.batch_size * tuning.trainer.devices * tuning.trainer.accumulate_grad_batches == 128
    assert tuning.trainer.max_steps == 10_000


def test_visual_decoders_are_said_as_published() -> None:
    """Emu2's: arXiv 2312.13286, table 9; Emu's as remembered."""
    second, first = compose("emu/emu2_visual_decoder", []), compose("emu/visual_decoder", [])
    for recipe in (first, second):
        assert (recipe.objective.drop, list(recipe.optim.groups.only)) == (0.1, ["visual_decoder.unet.*"])
        assert (recipe.optim.lr, recipe.optim.weight_decay) == (1e-4, 0.01)
    trainer, optim = second.trainer, second.optim
    assert (list(optim.betas), optim.eps, trainer.gradient_clip_val) == ([0.9, 0.999], 1e-8, 1.0)
    assert second.data.batch_size * trainer.devices * trainer.num_nodes * trainer.accumulate_grad_batches == 2048
    assert (trainer.max_steps, second.schedule.warmup, second.objective.noise_offset) == (8000, 2000, 0.1)
    assert "LogWarmupLinear" in second.schedule._target_
    assert (second.data.size, second.data.smallest, second.model.processor.images.size) == (1024, 512, 448)
    assert second.objective.drawn_from.type == "encoded_pictures"
    assert (first.trainer.max_steps, first.schedule.warmup, first.data.size) == (15_000, 5000, 512)
    assert first.objective.drawn_from.type == "imagined_pictures"
    assert first.data.captions.type == "text_caption"


@pytest.mark.parametrize("name", LEARNT)
def test_each_stage_learns_what_was_published(name: str) -> None:
    recipe = compose(f"emu/{name}", [])
    learn = recipe.data.learn
    assert (learn.words, learn.pictures, learn.openings) == (*LEARNT[name], False)
    assert recipe.objective.type == "next_element"
    frozen = list(recipe.optim.groups.frozen)
    assert ("image_encoder.*" in frozen) == (name in ("emu2_stage2", "emu2_chat", "emu2_gen", "emu2_gen_quality"))


def test_published_sizes_of_pictures_clips_and_rows() -> None:
    first, second, chat = (compose(f"emu/emu2_{name}", []) for name in ("stage1", "stage2", "chat"))
    assert (first.model.processor.images.size, first.model.image_encoder.image_size) == (224, 224)
    assert (second.model.processor.images.size, second.model.processor.image_tokens) == (448, 64)
    assert (chat.model.processor.image_tokens, chat.model.processor.frame_tokens) == (256, 64)
    rates = {key: tower.lr for key, tower in first.optim.groups.towers.items()}
    assert rates == {"projections": 1e-4, "image_encoder": 5e-5}
    assert (second.data.layout.pages.pictures, second.data.batching.context_length) == (8, 1024)
    assert (second.data.layout.pairs.first, second.data.layout.grounded.phrase_first) == (0.5, 0.7)
    assert list(second.data.layout.clips.layouts[0].counts) == [8]
    assert second.data.layout.clips.layouts[0].drawn
    assert (chat.data.batching.context_length, chat.data.batching.too_long) == (2048, "cut")
    assert (list(chat.data.layout.clips.counts), chat.data.layout.clips.drawn) == ([8, 12, 16], False)


#: Of each stage: sources of its mixture.
SOURCES = {
    "emu2_stage1": ("pairs", "clips"), "emu2_stage1_448": ("pairs", "clips"),
    "emu2_stage2": ("pairs", "grounded", "clips", "pages", "storyboards", "texts"),
    "emu2_chat": ("tasks", "pictures", "texts", "clips"),
    "emu2_gen": ("pairs", "grounded", "edits"), "emu2_gen_quality": ("pairs", "grounded", "edits"),
    "pretrain": ("pairs", "pages", "clips", "storyboards"), "instruct": ("texts", "pictures", "clips"), "finetune": (),
}  # fmt: skip


ADAPTER = "{type:low_rank,rank:16,alpha:16,dropout:0.05,layers:[attention.qkv.query,attention.out]}"


def small(name: str, folder: Path) -> list[str]:
    """Overrides that train a stage on a few samples."""
    give = talk if name in ("emu2_chat", "instruct") else source
    data = [word for one in SOURCES[name] for word in give(one, folder)]
    if name == "finetune":
        data = table(folder, conversations(folder))
    model = EMU if name in ("pretrain", "instruct") else EMU2
    if name == "instruct":  # the small model has no adapters by itself
        model = [*model, f"+model.decoder.blocks.adapter={ADAPTER}", "model.processor.template=emu_instruct"]
    smaller = ["model.image_encoder.image_size=24", "model.processor.images.size=24"] if name == "emu2_stage1" else []
    return [*SMALL, *model, *smaller, "data.batch_size=8", *data]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two steps of each stage, from the weights of the one before it."""
    folder, runs = tmp_path_factory.mktemp("stages"), {}
    for name, before in BEFORE.items():
        start = "initial_weights=null" if before is None else f"initial_weights={runs[before]}"
        if name in ("emu2_stage1_448", "instruct", "finetune"):
            start = f"initial_weights.model={runs[before]}"
        runs[name] = folder / name
        runs[name].mkdir()
        assert main(["train", f"emu/{name}", *small(name, runs[name]), start, f"run.dir={runs[name]}"]) == 0
    return runs


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a run left."""
    return load_file(run / "model" / "model.safetensors")


def moved(now: dict[str, torch.Tensor], before: dict[str, torch.Tensor], part: str) -> float:
    """The largest change of any value of a part's tensors of equal shapes."""
    shared = [name for name in now if name.startswith(part) and now[name].shape == before[name].shape]
    return max((float((now[name] - before[name]).abs().max()) for name in shared), default=0.0)


#: Of each stage: parts that train, and parts that stay.
TRAINED = {
    "emu2_stage1_448": (("image_encoder.", "input_projection.", "decoder."), ("regression_head.",)),
    "emu2_stage2": (("input_projection.", "decoder.", "regression_head."), ("image_encoder.",)),
    "emu2_chat": (("input_projection.", "decoder."), ("image_encoder.", "regression_head.")),
    "emu2_gen": (("input_projection.", "decoder.", "regression_head."), ("image_encoder.",)),
    "emu2_gen_quality": (("input_projection.", "decoder.", "regression_head."), ("image_encoder.",)),
}


@pytest.mark.parametrize("name", ["instruct", "finetune"])
def test_adapters_learn_alone(name: str, stages: dict[str, Path]) -> None:
    """They begin as nothing behind a run that has none."""
    before = BEFORE[name]
    assert before is not None
    now, then = weights(stages[name]), weights(stages[before])
    adapters = {one for one in now if ".adapter." in one}
    assert now.keys() - adapters == then.keys()
    assert all(torch.equal(now[one], then[one]) for one in then)
    ups = [now[one] for one in adapters if one.endswith(".up")]
    assert len(ups) == 2 * (2 if name == "instruct" else 4)
    assert all(0 < float(one.abs().max()) <= 2.1e-4 for one in ups)
    plain = zoo.from_pretrained(stages[name]).eval()
    ids = torch.tensor([[1025, 5, 6, 7]])
    with torch.no_grad():
        apart = plain(ids)
        assert merge_adapters(plain) == len(ups)
        torch.testing.assert_close(plain(ids), apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_a_stage_starts_from_the_one_before(name: str, stages: dict[str, Path]) -> None:
    """Two steps of AdamW move a value by about two rates at most; what is frozen does not move at all."""
    before = BEFORE[name]
    assert before is not None
    now, then = weights(stages[name]), weights(stages[before])
    assert now.keys() == then.keys()
    trained, stays = TRAINED[name]
    assert all(0 < moved(now, then, part) <= 2.1e-4 for part in trained)
    assert all(moved(now, then, part) == 0 for part in stays)


def test_everything_of_emu_trains(stages: dict[str, Path]) -> None:
    config = OmegaConf.load(stages["pretrain"] / "config.yaml")
    start = zoo.build_model(OmegaConf.to_container(config.model), seed=config.seed).state_dict()
    now = weights(stages["pretrain"])
    assert all(moved(now, start, part) > 0 for part in ("image_encoder.", "connector.", "decoder.", "regression_head."))


def test_the_logs_tell_words_from_pictures(stages: dict[str, Path]) -> None:
    for name, (words, pictures) in LEARNT.items():
        if name not in stages:
            continue
        rows = [row for row in read_metrics(stages[name] / "metrics.csv") if "train/loss" in row]
        assert len(rows) == 2
        for row in rows:
            assert (row["train/language_loss"] > 0) == words, name
            assert (row["train/regression_loss"] > 0) == (pictures != "none"), name
            assert (row["train/target_deviation"] > 0) == (pictures != "none"), name
            assert row["train/loss"] == pytest.approx(row["train/language_loss"] + row["train/regression_loss"])
    shown = panels(read_history(stages["pretrain"] / "metrics.csv"))  # of the report
    assert {"regression_loss", "language_loss", "target_deviation", "accuracy"} <= shown.keys()
