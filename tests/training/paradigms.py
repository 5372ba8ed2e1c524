"""One small recipe of each paradigm, with its data, for runs on one process and on two."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import emu_stages
import eve_stages
import numpy as np
import torch
from emu_stages import EMU, EMU2
from eve_stages import TEACHER, V1, V2, V2_DECODER
from omegaconf import DictConfig, OmegaConf
from test_drawing import MODELS as DRAWING

from multimodal_zoo.config import compose
from multimodal_zoo.data.caption_triples import EmojiTriples
from multimodal_zoo.data.preference_pairs import write_preferences
from multimodal_zoo.data.scenes.generate import Settings, generate

STEPS = 4
#: Every run: short, saved at the second step, without chance where two processes would draw differently. Adam's epsilon
#: keeps its first steps from turning rounding into signs.
COMMON = [
    *("trainer=cpu", "trainer.devices=1", "trainer.num_nodes=1", f"trainer.max_steps={STEPS}"),
    *("trainer.log_every_n_steps=1", "trainer.precision=32-true", "trainer.accumulate_grad_batches=1"),
    *("threads=1", "logger=csv", "schedule.warmup=0", "callbacks.samples=null", "evaluation=null"),
    *("callbacks.checkpoint.every_n_steps=2", "callbacks.checkpoint.keep=9"),
]
TOWERS = """
model: {embed_dim: 16, image: {width: 32, blocks: {depth: 2}}, text: {width: 32, blocks: {depth: 2}}}
"""
DECODER = """
model:
  vision_tokenizer: null  # the data are codes
  decoder:
    width: 32
    blocks: {depth: 2, checkpoint: around_attention, block: {attention: {dropout: 0.0}, mlp: {hidden: 48}}}
"""
CONTRASTIVE = f"""# @package _global_
defaults:
  - /base/train
  - override /model: clip_tiny
  - override /encoder@model.image: clip_vit_tiny
  - override /data: emoji
  - override /callbacks: ema
  - _self_
{TOWERS}
data:
  augment: []  # whole-batch augmentation draws per batch, and two ranks have two batches
  train: {{styles: [twemoji], image_size: 64}}
  validation: null
trainer: {{gradient_clip_val: 0.5}}
"""
VIEWS = """# @package _global_
defaults:
  - /base/train
  - /head@model.heads.token_wise: token_wise
  - /supervision@objective.parts.image_text: image_text
  - override /model: declip_tiny
  - override /encoder@model.image: clip_vit_tiny
  - override /data: emoji_views_declip
  - override /objective: defilip
  - override /callbacks: ema
  - _self_
model:
  embed_dim: 16
  image: {width: 32, blocks: {depth: 2}}
  text: {width: 32, blocks: {depth: 2}}
  heads: {simsiam: null, token_wise: {embed_dim: 8}}
objective:
  parts:
    image_text: {image: first, text: augmented}
    nearest_neighbour: {queue: {size: 40}}
    simsiam: null       # batch norm of each process
    masked_words: null  # the mean of each process, as published
    token_wise: {top_k: 4}
  weights: {image_text: 0.5}
data:
  image_views: {first: {augment: []}, second: {augment: []}}
  train: {styles: [twemoji], image_size: 64}
  validation: null
optim: {groups: {frozen: [heads.masked_words.*]}}
trainer: {gradient_clip_val: 0.5}
callbacks:
  clamp:
    _target_: multimodal_zoo.training.clamp.Clamp
    name: [logit_scale.weight, heads.token_wise.logit_scale.weight]
    lowest: 2.6595
    highest: null
"""
MASKED = """# @package _global_
defaults:
  - /eva_clip/mim_tiny
  - _self_
teacher: {weights: random, model: {image: {blocks: {depth: 1}}, text: {blocks: {depth: 1}}}}
model: {image: {blocks: {depth: 2}}}
data: {augment: [], train: {styles: [twemoji], image_size: 48}, validation: null}
trainer: {gradient_clip_val: 0.5}
"""
NEXT_TOKEN = f"""# @package _global_
defaults:
  - /base/train
  - override /model: emu3_tiny
  - override /data: sft
  - override /objective: next_token
  - _self_
{DECODER}
trainer: {{gradient_clip_val: 0.5}}
"""
CODES = """
type: token_data
train: {type: emu3_features, table: "???"}
validation: null
batch_size: 4
workers: 0
seed: ${seed}
order: {type: shuffled_order}
layout: {type: text_to_image_layout, captions: {type: text_caption}, null_prompt_probability: 0.3, end: false}
weights: {type: token_weights, text: 0.0, vision: 1.0, layout: 0.0, prompt: 0.0, end: 0.0}
batching: {type: padded_batches, context_length: 128, too_long: error}
"""
PREFERENCES = f"""# @package _global_
defaults:
  - /base/train
  - override /model: emu3_tiny
  - override /data: preference
  - override /objective: dpo
  - _self_
{DECODER}
reference: {{weights: "${{initial_weights}}"}}
data: {{batch_size: 4, workers: 0, batching: {{context_length: 128}}}}
optim: {{lr: 1.0e-2}}
"""
TOKENIZER = """# @package _global_
defaults:
  - /emu3/emoji_tokenizer
  - _self_
model:
  encoder: {multipliers: [1, 1], attention_levels: [1], depth: 1, temporal_factor: 2}
  quantizer: {codebook_size: 16, revive_below: 0.0}
data: {augment: [], train: {styles: [twemoji], image_size: 16}, validation: null}
trainer: {gradient_clip_val: 0.5}
objective: {perceptual: null}
optim: {groups: {frozen: ["*.temporal.blocks.*.norm_*"]}}  # batch norm, then as in evaluation: each process has its own
"""
GRID = "{type: voxel_grid, counts: [20, 20, 2], size: [5.0, 5.0, 3.0], centre: [0, 0, -1]}"


def contrastive_lamb(folder: Path) -> list[str]:
    """EVA-CLIP's published recipe on small towers and emoji."""
    return [
        *("model=eva_clip_tiny", "data=emoji", "data.train.styles=[twemoji]", "data.train.image_size=48"),
        *("data.validation=null", "data.augment=[]", "initial_weights=null"),
        *("model.image.blocks.depth=2", "model.text.blocks.depth=1"),
    ]


def codes(folder: Path) -> list[str]:
    """Pictures of 4 to 49 codes in the published layout: batches differ in their numbers of tokens."""
    (folder / "data").mkdir()
    (folder / "data" / "sft.yaml").write_text(CODES)
    draw = np.random.default_rng(0)
    names = [f"{number}.pth" for number in range(32)]
    for name in names:
        shown = draw.integers(0, 512, tuple(draw.integers(2, 8, 2)))
        torch.save({"name": name, "images": shown, "texts": "red " * int(draw.integers(1, 9))}, folder / name)
    (folder / "train.json").write_text(json.dumps({"prefix": str(folder), "path_list": names}))
    return [f"data.train.table={folder / 'train.json'}"]


def preferences(folder: Path) -> list[str]:
    """Pairs of pictures of 4 to 36 codes."""
    draw = np.random.default_rng(0)
    pairs = [
        (f"picture {number}", *(draw.integers(0, 512, tuple(draw.integers(2, 7, 2))) for _ in range(2)))
        for number in range(16)
    ]
    write_preferences(folder / "preferences", pairs)
    return [f"data.train.table={folder / 'preferences' / 'pairs.jsonl'}"]


def triples(folder: Path) -> list[str]:
    """Triples of emoji as `mmzoo fuse` would have them; answers differ in length."""
    rows = [one.meta for one in EmojiTriples(["twemoji"], ["val"])][:24]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["model=capsfus_llama_tiny", "fusion_prompt@data.layout.prompt=short", "initial_weights=null"]
    return [*words, f"data.train.table.path={folder / 'rows.jsonl'}", "optim.lr=1e-3"]


def emu(*model: str) -> Callable[[Path], list[str]]:
    """Conversations about pictures, often words alone."""

    def words(folder: Path) -> list[str]:
        records = emu_stages.conversations(folder, count=16, text_share=0.5)
        assert 4 <= sum("image" in record for record in records) <= 12
        given = ["data=emu_conversations", "data.learn.pictures=said", "data.batching.batches_per_epoch=4"]
        return [*model, *given, *emu_stages.table(folder, records), "initial_weights=null", "data.workers=0"]

    return words


def eve(*model: str) -> Callable[[Path], list[str]]:
    """Conversations about pictures, often words alone."""

    def words(folder: Path) -> list[str]:
        records = eve_stages.conversations(folder, count=16, text_share=0.5)
        order = ["~data.order.batch_size", "~data.order.ranks", "~data.order.accumulation"]
        order += ["data.order.type=shuffled_order", "initial_weights=null", "data.workers=0", "optim.lr=1.0e-3"]
        return [*model, *eve_stages.table(folder, records), *order]

    return words


def scenes(folder: Path) -> list[str]:
    """Two short drives."""
    generate(folder / "drawn", Settings(scenes=2, frames=4, width=200, height=112, seed=0, rate=2))
    return [
        *("data.train.scenes=2", "data.train.frames=4", "data.train.width=200", "data.train.height=112"),
        *("model.processor.view.size=[48,128]", f"model.lift.grids=[{GRID}]", "model.bev_encoder.in_channels=128"),
        *(f"data.train.folder={folder / 'drawn'}", "trainer.val_check_interval=100"),
        *(
            "optim=adamw",
            "optim.lr=1.0e-3",
        ),  # the recipe's Muon wants whole matrices, and says so
    ]


def drawing(folder: Path) -> list[str]:
    """Captioned pictures for the network behind Emu2: noise and step of each sample are its own."""
    draw, lines = np.random.default_rng(0), []
    for number in range(16):
        (folder / f"{number}.png").write_bytes(emu_stages.sample_of("pairs", draw)["png"])
        lines.append(json.dumps({"filename": f"{number}.png", "caption": "cat"}))
    (folder / "lines.json").write_text("\n".join(lines))
    return [
        *(word for word in emu_stages.SMALL if word.startswith("data.workers")),
        *(*DRAWING["emu2_visual_decoder"], "reader@data.train=line_pairs", "~data.train.samples_per_epoch"),
        *(f"data.train.table={folder / 'lines.json'}", f"data.train.folder={folder}", "data.smallest=1"),
        *("initial_weights=null", "objective.drop=0.5"),
    ]


@dataclass(frozen=True)
class Paradigm:
    """A small recipe and what of it is compared.

    Attributes:
        recipe: a name, or the text of a file.
        words: writes the data into a folder; gives the overrides.
        batch: samples of a step.
        ways: trainer -> samples of a batch of each of two processes; where they are fewer than half a step, batches are
            accumulated.
        keys: logged figures beside the loss and the norm of the gradient.
        near: relative tolerance of figures.
        weights: absolute and relative tolerance of weights.
        elastic: whether the data let a run go on with another number of processes.
        steep: relative tolerance of the gradient's norm, if not `near`.
    """

    recipe: str
    words: Callable[[Path], list[str]] = lambda folder: []
    batch: int = 8
    ways: Mapping[str, int] = field(default_factory=lambda: {"ddp_cpu": 4, "fsdp_cpu": 4})
    keys: Sequence[str] = ()
    near: float = 2e-5
    weights: tuple[float, float] = (2e-6, 1e-5)
    elastic: bool = True
    steep: float | None = None

    def compose(self, folder: Path) -> DictConfig:
        """The recipe for one process; its data are written."""
        words = [*COMMON, f"data.batch_size={self.batch}", *self.words(folder), "optim.eps=1.0e-3"]
        if "\n" not in self.recipe:
            return compose(self.recipe, words)
        (folder / "small.yaml").write_text(self.recipe)
        return compose("small", words, folder=str(folder))


BY_ONE = {"ddp_cpu": 1, "fsdp_cpu": 1}
EMU_KEYS = ("language_loss", "regression_loss", "target_deviation")
CLOSE = (5e-6, 1e-4)
PARADIGMS = {
    "contrastive": Paradigm(CONTRASTIVE, keys=("logit_scale",)),
    "contrastive by LAMB": Paradigm("eva_clip/b16", contrastive_lamb, weights=(2e-6, 1e-4)),
    "several views": Paradigm(
        VIEWS,
        lambda folder: ["objective.parts.nearest_neighbour.queue.type=shared_queue"],
        keys=("multi_view", "image_text", "token_wise", "nearest_neighbour"),
        near=1e-4,
        weights=(1e-5, 1e-4),
    ),
    "masked pictures": Paradigm(MASKED, keys=("masked_share",)),
    "next token": Paradigm(NEXT_TOKEN, codes, ways={"ddp_cpu": 2, "fsdp_cpu": 4}, keys=("vision_loss",)),
    "preferences": Paradigm(
        PREFERENCES,
        preferences,
        batch=4,
        ways={"ddp_cpu": 1, "fsdp_cpu": 2},
        keys=("chosen_reward", "accuracy"),
        near=5e-5,
        weights=(5e-6, 1e-5),
    ),
    "caption fusion": Paradigm("capsfusion/distill", triples, batch=4, ways={"ddp_cpu": 2, "fsdp_cpu": 2}),
    "visual regression Emu": Paradigm("emu/pretrain", emu(*EMU), 2, BY_ONE, EMU_KEYS, 5e-5, CLOSE, elastic=False),
    "visual regression Emu2": Paradigm("emu/emu2_stage2", emu(*EMU2), 2, BY_ONE, EMU_KEYS, 5e-5, CLOSE, elastic=False),
    "adapters": Paradigm(
        "emu/finetune",
        emu(*EMU2, "model.decoder.blocks.adapter.dropout=0.0"),
        *(2, BY_ONE, EMU_KEYS, 5e-5, CLOSE),
        elastic=False,
    ),
    "no encoder with a teacher": Paradigm(
        "eve/sft", eve(*V1, *TEACHER), 2, BY_ONE, ("accuracy", "alignment_loss", "language_loss"), 5e-5, CLOSE
    ),
    "no encoder decoupled": Paradigm("eve/v2_stage3", eve(*V2, *V2_DECODER), 2, BY_ONE, ("accuracy",), 5e-5, CLOSE),
    "tokenizer": Paradigm(TOKENIZER, keys=("reconstruction", "perplexity"), near=1e-4, weights=(1e-5, 1e-4)),
    "adversarial tokenizer": Paradigm(
        TOKENIZER.replace("  - _self_", "  - override /objective: vision_tokenizer_gan\n  - _self_"),
        lambda folder: [
            "objective.adversarial.start=1",
            *(f"objective.adversarial.discriminator.{side}.width=32" for side in ("pictures", "clips")),
            *(f"objective.adversarial.discriminator.{side}.depth=1" for side in ("pictures", "clips")),
        ],
        ways={"ddp_cpu": 4},
        keys=("reconstruction", "adversarial_weight", "discriminator", "score_given"),
        near=1e-4,
        weights=(1e-5, 1e-4),
    ),
    # One unit of its small maps that rounding turns off moves all gradients in front of it by up to a hundredth.
    "detection": Paradigm("fast_bev/synthetic", scenes, 2, BY_ONE, near=1e-4, steep=5e-2, weights=(5e-4, 5e-2)),
    "diffusion decoder": Paradigm(
        "emu/emu2_visual_decoder",
        drawing,
        batch=4,
        ways={"ddp_cpu": 2, "fsdp_cpu": 2},
        keys=("noise_loss", "dropped"),
        near=5e-5,
        weights=CLOSE,
    ),
}

#: Not what one process trains: each of two has a queue of what it saw itself.
OWN_QUEUES = Paradigm(VIEWS)


def placed(config: DictConfig, place: Path, **more: object) -> DictConfig:
    """A recipe with another run folder, and with other top-level values."""
    found = OmegaConf.create(OmegaConf.to_container(config))
    assert isinstance(found, DictConfig)
    found.run.dir = str(place)
    for key, value in more.items():
        found[key] = value
    return found


def on_two(config: DictConfig, paradigm: Paradigm, trainer: str, place: Path, **more: object) -> DictConfig:
    """A recipe for each of two processes, which see together what one would see."""
    found = placed(config, place, **more)
    found.trainer = {**found.trainer, **compose(None, [f"+trainer={trainer}"]).trainer}
    found.data.batch_size = paradigm.ways[trainer]
    found.trainer.accumulate_grad_batches = paradigm.batch // 2 // paradigm.ways[trainer]
    return found
