"""The published configurations of Emu3's visual tokenizer, and the model node that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint

#: transformers' name -> the published one.
TRANSFORMERS_NAMES = {
    "latent_channels": "z_channels",
    "base_channels": "ch",
    "channel_multiplier": "ch_mult",
    "double_latent": "double_z",
}
#: Values that a configuration may leave out: those of the published checkpoint.
DEFAULTS: Mapping[str, Any] = {
    "codebook_size": 32768,
    "embed_dim": 4,
    "z_channels": 4,
    "double_z": False,
    "in_channels": 3,
    "out_channels": 3,
    "temporal_downsample_factor": 4,
    "ch": 256,
    "ch_mult": (1, 2, 2, 4),
    "num_res_blocks": 2,
    "attn_resolutions": (3,),
    "dropout": 0.0,
}


def vision_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `emu3_vision_tokenizer` node of a published configuration, in its own names or in transformers'.

    Keys that say nothing of the architecture (`model_type`, `torch_dtype`, ...) are left alone, and so are levels of
    `attn_resolutions` that do not exist: the published code never reaches them.

    Raises:
        UnknownCheckpoint: what no published weights have and the architecture cannot be: a latent with deviations, or a
            codebook of another width than the latents.
    """
    facts = {**DEFAULTS, **{TRANSFORMERS_NAMES.get(key, key): value for key, value in config.items()}}
    if facts["double_z"]:
        raise UnknownCheckpoint(
            "config.json: double_z is true: latents with deviations fit no published weights; expected false"
        )
    if facts["z_channels"] != facts["embed_dim"]:
        raise UnknownCheckpoint(
            f"config.json: z_channels is {facts['z_channels']} and embed_dim {facts['embed_dim']}: the decoder takes "
            "latents and codebook vectors in one batch, they must be equal"
        )
    half = {
        "width": facts["ch"],
        "multipliers": list(facts["ch_mult"]),
        "depth": facts["num_res_blocks"],
        "attention_levels": [level for level in facts["attn_resolutions"] or () if level < len(facts["ch_mult"])],
        "latent_width": facts["z_channels"],
        "temporal_factor": facts["temporal_downsample_factor"],
        "dropout": facts["dropout"],
    }
    return {
        "type": "emu3_vision_tokenizer",
        "encoder": {"type": "emu3_vision_encoder", **half, "channels": facts["in_channels"]},
        "decoder": {"type": "emu3_vision_decoder", **half, "channels": facts["out_channels"]},
        "quantizer": {
            "type": "vector_quantizer",
            "codebook_size": facts["codebook_size"],
            "width": facts["embed_dim"],
        },
    }
