"""The configurations of Emu3's publishers, made from a model node: the way back of `emu3_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.causal_decoder_write import decoder_config
from multimodal_zoo.checkpoints.tables.emu3_config import ID_KEYS, IMAGE_KEYS
from multimodal_zoo.checkpoints.tables.emu3_vision_config import vision_node
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL, Emu3Ids, numbered_ids

Node = dict[str, Any]
#: transformers' word in place of `<|extra_0|>`, where embeddings of pictures are put.
PLACEHOLDER = "<image>"


def published_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of the published decoder (`model_type` "Emu3"), which its remote code reads.

    Raises:
        UnknownCheckpoint: no Emu3, or a decoder that the configuration cannot describe.
    """
    known = _ids(node)
    config = decoder_config(node["decoder"], "Emu3")
    area = (node.get("processor") or {}).get("image_area")
    return {
        **config,
        **{key: getattr(known, name) for key, name in ID_KEYS.items()},
        "pretraining_tp": 1,
        **({} if area is None else {"image_area": area}),
    }


def vision_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of the published visual tokenizer.

    Raises:
        UnknownCheckpoint: halves that differ, or a part that the configuration has no key for.
    """
    try:
        half, quantizer = node["encoder"], node["quantizer"]
        config = {
            "architectures": ["Emu3VisionVQModel"],
            "model_type": "Emu3VisionVQ",
            "codebook_size": quantizer["codebook_size"],
            "embed_dim": quantizer["width"],
            "z_channels": half["latent_width"],
            "double_z": False,
            "in_channels": half["channels"],
            "out_channels": node["decoder"]["channels"],
            "temporal_downsample_factor": half["temporal_factor"],
            "ch": half["width"],
            "ch_mult": list(half["multipliers"]),
            "num_res_blocks": half["depth"],
            "attn_resolutions": list(half["attention_levels"]),
            "dropout": half["dropout"],
        }
    except (KeyError, TypeError) as error:
        raise UnknownCheckpoint(f"no visual tokenizer of Emu3: it has no {error} where one has") from error
    again = vision_node(config)
    for part in ("encoder", "decoder"):
        wanted = {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in node[part].items()}
        if {key: wanted.get(key) for key in again[part]} != again[part]:
            raise UnknownCheckpoint(f"the published configuration cannot describe {part}={wanted}, beside the encoder")
    return config


def transformers_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of transformers' `Emu3ForConditionalGeneration`, with both parts.

    Its `vocabulary_map` holds special and visual tokens, all that the model reads of it.

    Raises:
        UnknownCheckpoint: no Emu3 with a visual tokenizer, or one whose attention is not as wide as its last level.
    """
    known = _ids(node)
    if not node.get("vision_tokenizer"):
        raise UnknownCheckpoint("transformers' Emu3 has a visual tokenizer; this model has none")
    published = vision_config(node["vision_tokenizer"])
    multipliers, levels = published["ch_mult"], published["attn_resolutions"]
    if strange := [level for level in levels if multipliers[level] != multipliers[-1]]:
        raise UnknownCheckpoint(
            f"transformers' Emu3 has attention of one width; levels {strange} are not as wide as the last, "
            f"multipliers {multipliers}"
        )
    names = {"z_channels": "latent_channels", "ch": "base_channels", "ch_mult": "channel_multiplier"}
    left_out = ("architectures", "model_type", "double_z", "dropout")
    vision = {names.get(key, key): value for key, value in published.items() if key not in left_out}
    text = decoder_config(node["decoder"], "emu3_text_model")
    text |= {key: getattr(known, ID_KEYS[key]) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    scaling = text.pop("rope_scaling") or {"rope_type": "default"}
    text["rope_parameters"] = {**scaling, "rope_theta": text.pop("rope_theta")}
    text.pop("architectures")
    return {
        "architectures": ["Emu3ForConditionalGeneration"],
        "model_type": "emu3",
        "tie_word_embeddings": text["tie_word_embeddings"],
        "text_config": text,
        "vq_config": {**vision, "model_type": "emu3_vqgan", "hidden_size": published["ch"] * multipliers[-1]},
        "vocabulary_map": _vocabulary(known),
    }


def preprocessor_config(node: Mapping[str, Any]) -> Node | None:
    """The `preprocessor_config.json` of the published picture transform, or None for a node without one."""
    images = (node.get("processor") or {}).get("images")
    if not images or images.get("type") != "emu3_image_transform":
        return None
    config: Node = {"image_processor_type": "Emu3VisionVQImageProcessor", "resample": 3, "rescale_factor": 1 / 255}
    for key, place in IMAGE_KEYS.items():
        value = images
        for step in place:
            value = value[step]
        config[key] = value
    return config


def _ids(node: Mapping[str, Any]) -> Emu3Ids:
    ids = node.get("ids") or {}
    if node.get("type") != "emu3" or ids.get("type") != "emu3_ids":
        raise UnknownCheckpoint(f"no Emu3 with its published numbering of ids, but {node.get('type')!r}")
    return numbered_ids(ids["text_size"], ids["codebook_size"])


def _vocabulary(known: Emu3Ids) -> dict[str, int]:
    words = {PLACEHOLDER if word == "<|extra_0|>" else word: known.pad + i for i, word in enumerate(SPECIAL)}
    visual = {f"<|visual token {code:06d}|>": known.visual_first + code for code in range(known.codebook_size)}
    return {**words, **visual}
