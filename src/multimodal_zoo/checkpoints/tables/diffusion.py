"""The names of a visual decoder's tensors: diffusers' own, and older ones of its autoencoder (Emu's folder)."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, rename
from multimodal_zoo.checkpoints.tables.clip import HF

_HALVES = ("encoder", "decoder")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def unet_rules(theirs: str = "", ours: str = "") -> list[Rule]:
    """The diffusion network, whose names we keep."""
    return [rename(f"{theirs}*", f"{ours}*")] if theirs else [rename(f"{name}.*", f"{ours}{name}.*") for name in _UNET]


_UNET = (
    "conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks", "conv_norm_out", "conv_out",
)  # fmt: skip


def vae_rules(theirs: str = "", ours: str = "", *, old: bool) -> list[Rule]:
    """The autoencoder.

    Args:
        theirs: before every name of the file.
        ours: before every name of the model.
        old: whether the file has the names of attention that diffusers wrote before version 0.18.
    """
    parts: Sequence[str] = ("conv_in", "mid_block.resnets", "conv_norm_out", "conv_out")
    places = [f"{half}.{part}" for half in _HALVES for part in parts]
    places += ["encoder.down_blocks", "decoder.up_blocks", "quant_conv", "post_quant_conv"]
    rules = [rename(f"{theirs}{place}.*", f"{ours}{place}.*") for place in places]
    names = {"group_norm": "group_norm", **(_OLD_ATTENTION if old else {new: new for new in _OLD_ATTENTION.values()})}
    for half in _HALVES:
        place = f"{half}.mid_block.attentions.{{}}."
        rules += [rename(f"{theirs}{place}{one}.*", f"{ours}{place}{new}.*") for one, new in names.items()]
    return rules


def checker_rules(theirs: str = "", ours: str = "") -> list[Rule]:
    """The safety checker: a CLIP image tower of transformers, and fixed embeddings with thresholds."""
    fixed = {
        "concept_embeds": "concept_embeddings", "concept_embeds_weights": "concept_thresholds",
        "special_care_embeds": "special_embeddings", "special_care_embeds_weights": "special_thresholds",
    }  # fmt: skip
    tower = [rule for rule in HF.rules if rule.ours and rule.ours[0].startswith("image.")]
    return [
        *(rule.under(f"{theirs}vision_model.", ours) for rule in tower),
        drop(f"{theirs}vision_model.vision_model.embeddings.position_ids"),
        rename(f"{theirs}visual_projection.weight", f"{ours}image_projection.weight"),
        *(rename(f"{theirs}{name}", f"{ours}{own}") for name, own in fixed.items()),
    ]


#: Files of published folders, each of one part.
UNET = Naming("diffusion_unet", unet_rules())
VAE = Naming("diffusion_vae", vae_rules(old=False))
VAE_OLD = Naming("diffusion_vae_old", vae_rules(old=True))
CHECKER = Naming("diffusion_safety_checker", checker_rules())
ALL = (UNET, VAE, VAE_OLD, CHECKER)
#: A whole decoder in one file, as in Emu2-Gen's; and with the older names.
PARTS = Naming(
    "diffusion_parts", [*unet_rules("unet.", "unet."), *vae_rules("vae.", "vae.", old=False),
                        *checker_rules("safety_checker.", "safety_checker.")]
)  # fmt: skip
PARTS_OLD = Naming("diffusion_parts_old", [*unet_rules("unet.", "unet."), *vae_rules("vae.", "vae.", old=True)])
