"""The rows of the interchange matrix: every part, the words that choose it and those that make it small for a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part that stands in slots.

    Attributes:
        title: what the table calls it.
        option: its file in the group, or a place that the test makes: `RUN`, `LLAMA`, `QWEN2`.
        small: overrides below its slot that make it small, which the table does not show.
        facts: sizes of the small one that slots must be told.
    """

    title: str
    option: str
    small: tuple[str, ...] = ()
    facts: tuple[tuple[str, Any], ...] = ()

    def __getattr__(self, name: str) -> Any:
        """A fact by its name."""
        facts = dict(object.__getattribute__(self, "facts"))
        if name in facts:
            return facts[name]
        raise AttributeError(name)

    @property
    def placed(self) -> bool:
        """Whether it lies in a folder."""
        return self.option.isupper()


def _facts(side: int, patch: int, width: int, family: str) -> tuple[tuple[str, Any], ...]:
    return (("side", side), ("patch", patch), ("width", width), ("family", family))


def _transformer(title: str, option: str, *more: str) -> Part:
    """A vision transformer of this library with one block of 32 channels: 4 x 4 patches of 8 pixels."""
    small = ("width=32", "image_size=32", "patches.patch_size=8", "blocks.depth=1", "blocks.block.mlp.hidden=48")
    heads = ("blocks.block.attention.qkv.heads=2", "blocks.block.attention.qkv.head_dim=16")
    return Part(title, option, (*small, *heads, *more), _facts(32, 8, 32, "own"))


_STAGES = ("stem_width=4", "depths=[1,1,1,1]", "image_size=64")
#: Image encoders, each with the pixels of its pictures and tokens, the width of its tokens, and whose code it is.
IMAGE_ENCODERS = [
    _transformer("EVA-01 tower", "eva_vit_g14"),
    _transformer("EVA-02 tower", "eva_vit_b16"),
    _transformer("EVA-CLIP-8B's tower", "eva_vit_8b"),
    _transformer("CLIP's ViT", "clip_vit_b32"),
    _transformer("DeCLIP's ViT", "declip_vit_b32"),
    Part(
        "DeCLIP's modified ResNet",
        "declip_resnet50",
        (
            *(*_STAGES, "width=64", "pool.grid=2", "pool.attention.width=128", "pool.attention.heads=2"),
            *("pool.attention.grid=2", "pool.mean.width=128"),
        ),
        _facts(64, 32, 128, "stages"),
    ),
    Part(
        "SLIP's modified ResNet",
        "slip_resnet50",
        (*_STAGES, "width=128", "pool.width=128", "pool.heads=2", "pool.grid=2"),
        _facts(64, 32, 128, "stages"),
    ),
    Part(
        "small residual network",
        "residual_tiny",
        ("width=64", "image_size=64", "channels=[16,32,64]"),
        _facts(64, 16, 64, "stages"),
    ),
    Part("timm: a ViT", "timm_vit", ("name=test_vit", "width=64", "image_size=64"), _facts(64, 16, 64, "borrowed")),
    Part("timm: a ResNet", "timm_resnet", ("name=test_resnet", "width=96", "image_size=64"), _facts(64, 32, 96, "any")),
    Part(
        "timm: MaxViT, as `timm_swin`",
        "timm_swin",
        ("name=test_maxvit", "width=128", "image_size=64"),
        _facts(64, 32, 128, "fixed"),
    ),
    Part(
        "open_clip: a ViT",
        "open_clip_vit",
        ("name=ViT-matrix", "width=32", "image_size=32"),
        _facts(32, 8, 32, "fixed"),
    ),
    Part(
        "transformers: DINOv2",
        "transformers_dinov2",
        (
            *("width=32", "image_size=32", "options.patch_size=8", "options.num_hidden_layers=1"),
            "options.num_attention_heads=2",
        ),
        _facts(32, 8, 32, "borrowed"),
    ),
    Part(
        "transformers: SigLIP",
        "transformers_siglip",
        (
            *("width=32", "image_size=32", "options.patch_size=8", "options.num_hidden_layers=1"),
            *("options.num_attention_heads=2", "options.intermediate_size=48"),
        ),
        _facts(32, 8, 32, "borrowed"),
    ),
    Part("the tower of an earlier run", "RUN", (), _facts(64, 16, 64, "stages")),
]

_TEXT = ("width=32", "context_length=16", "blocks.depth=1", "blocks.block.mlp.hidden=48")
_TEXT_HEADS = ("blocks.block.attention.qkv.heads=2", "blocks.block.attention.qkv.head_dim=16")
#: Text towers of a dual encoder.
TEXT_ENCODERS = [
    Part("CLIP's text tower", "clip_text_b", (*_TEXT, *_TEXT_HEADS)),
    Part("DeCLIP's text tower", "declip_text_b", (*_TEXT, *_TEXT_HEADS)),
    Part("EVA-CLIP's text tower", "eva_text_b", (*_TEXT, *_TEXT_HEADS)),
    Part(
        "transformers: BERT",
        "transformers_bert",
        (
            *("width=32", "context_length=16", "options.num_hidden_layers=1", "options.num_attention_heads=2"),
            "options.intermediate_size=48",
        ),
    ),
]

_QKV = "blocks.block.attention.qkv"
_DECODER = ("width=32", "max_positions=256", "blocks.depth=2", "blocks.block.mlp.hidden=48")


def _heads(qkv: str = _QKV, kv_heads: int = 2) -> tuple[str, ...]:
    return (f"{qkv}.heads=2", f"{qkv}.head_dim=16", f"{qkv}.kv_heads={kv_heads}")


#: Causal decoders.
DECODERS = [
    Part("LLaMA", "llama_13b", (*_DECODER, *_heads())),
    Part("LLaMA 2 (Vicuna)", "vicuna_7b", (*_DECODER, *_heads())),
    Part("Qwen2.5", "qwen2_5_7b", (*_DECODER, *_heads(kv_heads=1))),
    Part("SmolLM2", "smollm2_135m", (*_DECODER, *_heads(kv_heads=1))),
    Part("Emu3's decoder", "emu3_8b", (*_DECODER, *_heads(kv_heads=1))),
    Part(
        "Qwen2.5 with weights for pictures (EVE v2)",
        "qwen2_5_7b_decoupled",
        (
            *("width=32", "max_positions=256", "blocks.depth=2", "blocks.block.block.mlp.hidden=48"),
            *_heads("blocks.block.block.attention.qkv", 1),
        ),
        (("decoupled", True),),
    ),
    Part("a Hugging Face folder of LLaMA's family", "LLAMA"),
    Part("a Hugging Face folder of Qwen2's family", "QWEN2"),
    Part("the decoder of an earlier run", "RUN"),
]

_VISION = ("encoder.width=32", "encoder.multipliers=[1,1,1]", "encoder.depth=1", "encoder.attention_levels=[2]")
#: Visual tokenizers.
VISUAL_TOKENIZERS = [
    Part("small tokenizer, averaged codebook", "emu3_vision_tiny", _VISION, (("codes", 512),)),
    Part(
        "Emu3's tokenizer, learned codebook",
        "emu3_vision",
        (*_VISION, "quantizer.codebook_size=64"),
        (("codes", 64),),
    ),
    Part("the tokenizer of an earlier run", "RUN", (), (("codes", 512),)),
]

#: Contrastive objectives and the heads that each needs beside the towers.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "contrastive": (),
    "video_contrastive": (),
    "clip": (),
    "slip": ("simclr",),
    "filip": ("token_wise",),
    "declip": ("simsiam", "masked_words"),
    "defilip": ("simsiam", "masked_words", "token_wise"),
}
#: What makes the heads small.
HEAD_SIZES = {
    "simclr": ("hidden=16", "output=8"),
    "simsiam": ("hidden=16", "bottleneck=8"),
    "masked_words": (),
    "token_wise": ("embed_dim=8",),
}
