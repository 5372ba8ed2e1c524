"""The weights of a peer's model in ours, so that both compute the same function."""

from __future__ import annotations

from torch import nn

from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import rename, reshape
from multimodal_zoo.checkpoints.tables import detect_naming

_PAIRS = {
    "norm_pre": "norm_in",
    "norm": "pool.norm",
    "blocks.{}.norm1": "blocks.layers.{}.norm_1",
    "blocks.{}.norm2": "blocks.layers.{}.norm_2",
    "blocks.{}.attn.qkv": "blocks.layers.{}.attention.qkv",
    "blocks.{}.attn.proj": "blocks.layers.{}.attention.out",
    "blocks.{}.mlp.fc1": "blocks.layers.{}.mlp.fc1",
    "blocks.{}.mlp.fc2": "blocks.layers.{}.mlp.fc2",
}


def copy_open_clip(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy an open_clip CLIP or EVA-CLIP into our dual encoder."""
    state = theirs.state_dict()
    load_into(ours, state, detect_naming(state))


def copy_timm(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy timm's CLIP-style vision transformer into our image tower."""
    positions = tuple(theirs.pos_embed.shape)
    rules = [
        reshape("cls_token", "prefix.weight", (1, -1), (1, 1, -1)),
        reshape("pos_embed", "positions.weight", positions[1:], positions),
        rename("patch_embed.proj.weight", "patches.weight"),
    ]
    for other, mine in _PAIRS.items():
        rules += [rename(f"{other}.{leaf}", f"{mine}.{leaf}") for leaf in ("weight", "bias")]
    load_into(ours, theirs.state_dict(), Naming("timm", rules))
