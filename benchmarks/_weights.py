"""The weights of a peer's model in ours, so that both compute the same function."""

from __future__ import annotations

from torch import nn

from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.naming import Naming, Rule, rename, reshape, transpose

_BLOCK = {
    "ln_1": "norm_1",
    "ln_2": "norm_2",
    "attn.in_proj_": "attention.qkv.",
    "attn.out_proj": "attention.out",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TIMM_BLOCK = {
    "norm1": "norm_1",
    "norm2": "norm_2",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def _with_bias(theirs: str, ours: str) -> list[Rule]:
    dot = "" if theirs.endswith("_") else "."
    ours = ours.rstrip(".")
    return [rename(f"{theirs}{dot}{leaf}", f"{ours}.{leaf}") for leaf in ("weight", "bias")]


def _blocks(table: dict[str, str], theirs: str, ours: str) -> list[Rule]:
    return [rule for a, b in table.items() for rule in _with_bias(f"{theirs}.{{}}.{a}", f"{ours}.{{}}.{b}")]


def copy_open_clip(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy an open_clip CLIP with transformer towers into our dual encoder."""
    rules = [
        reshape("visual.class_embedding", "image.prefix.weight", (1, -1), (-1,)),
        rename("visual.positional_embedding", "image.positions.weight"),
        rename("visual.conv1.weight", "image.patches.weight"),
        transpose("visual.proj", "image_projection.weight"),
        transpose("text_projection", "text_projection.weight"),
        rename("positional_embedding", "text.positions"),
        rename("token_embedding.weight", "text.token_embedding.weight"),
        rename("logit_scale", "logit_scale.weight"),
        *_with_bias("visual.ln_pre", "image.norm_in"),
        *_with_bias("visual.ln_post", "image.pool.norm"),
        *_with_bias("ln_final", "text.norm"),
        *_blocks(_BLOCK, "visual.transformer.resblocks", "image.blocks.layers"),
        *_blocks(_BLOCK, "transformer.resblocks", "text.blocks.layers"),
    ]
    load_into(ours, theirs.state_dict(), Naming("open_clip", rules))


def copy_timm(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy timm's CLIP-style vision transformer into our image tower."""
    rules = [
        reshape("cls_token", "prefix.weight", (1, -1), (1, 1, -1)),
        reshape("pos_embed", "positions.weight", tuple(theirs.pos_embed.shape[1:]), tuple(theirs.pos_embed.shape)),
        rename("patch_embed.proj.weight", "patches.weight"),
        *_with_bias("norm_pre", "norm_in"),
        *_with_bias("norm", "pool.norm"),
        *_blocks(_TIMM_BLOCK, "blocks", "blocks.layers"),
    ]
    load_into(ours, theirs.state_dict(), Naming("timm", rules))
