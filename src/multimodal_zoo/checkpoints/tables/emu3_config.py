"""Model nodes of Emu3 from the configurations of its publishers: remote code (`Emu3`) and transformers (`emu3`)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from multimodal_zoo.checkpoints.declarations import declared
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.meta import module_node
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.emu3_vision_config import vision_node
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL, numbered_ids

Node = dict[str, Any]
#: Published decoders; a node is told to be one of them by its decoder and the area of its pictures.
VARIANTS = ("emu3_gen", "emu3_chat", "emu3_stage1")
VISION_VARIANT = "emu3_vision_tokenizer"
#: `model_type` of the visual tokenizer alone.
VISION_TYPES = ("Emu3VisionVQ", "emu3_vqgan")
#: Keys of a published `config.json` that name ids -> our name.
ID_KEYS = {
    "pad_token_id": "pad", "bos_token_id": "bos", "eos_token_id": "eos", "img_token_id": "image_token",
    "boi_token_id": "image_start", "eoi_token_id": "image_end", "eol_token_id": "end_of_line",
    "eof_token_id": "end_of_frame",
}  # fmt: skip
#: Keys of a `preprocessor_config.json` -> where they stand below `processor.images`.
IMAGE_KEYS = {
    "spatial_factor": ("rule", "factor"), "min_pixels": ("rule", "smallest"), "max_pixels": ("rule", "largest"),
    "image_mean": ("mean",), "image_std": ("std",),
}  # fmt: skip


def published_node(config: Mapping[str, Any]) -> Node:
    """The node of a published decoder (`model_type` "Emu3"), without a visual tokenizer, which is published apart.

    Raises:
        UnknownCheckpoint: what no part does, or ids that are not numbered as published.
    """
    decoder = node_from_hf(config)
    text_size = decoder["pad_id"]
    if text_size is None:
        raise UnknownCheckpoint("config.json: pad_token_id, the first id behind the text's, is missing")
    codebook_size = config["vocab_size"] - text_size - len(SPECIAL)
    _check_ids({ID_KEYS[key]: config[key] for key in ID_KEYS if config.get(key) is not None}, text_size, codebook_size)
    return _node(decoder, text_size, codebook_size, config.get("image_area"))


def transformers_node(config: Mapping[str, Any]) -> Node:
    """The node of transformers' Emu3 (`model_type` "emu3"): decoder and visual tokenizer.

    Prompts are laid out as the weights were trained (the original's layout), not as transformers' chat template does;
    the same holds for the dropout of token embeddings.

    Raises:
        UnknownCheckpoint: what no part does, or a vocabulary that is not numbered as published.
    """
    words = config.get("vocabulary_map") or {}
    text = {**(config.get("text_config") or {}), "model_type": "Emu3"}
    text = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 184622, **text}  # fmt: skip
    vision = vision_node(config.get("vq_config") or {})
    decoder = node_from_hf(text)
    text_size = words.get(SPECIAL[0], decoder["pad_id"])
    if text_size is None:
        raise UnknownCheckpoint(f"config.json: neither vocabulary_map has {SPECIAL[0]} nor text_config a pad_token_id")
    codebook_size = vision["quantizer"]["codebook_size"]
    ids = numbered_ids(text_size, codebook_size)
    visual = {f"<|visual token {code:06d}|>": ids.visual_first + code for code in (0, codebook_size - 1)}
    wanted = {**{word: text_size + number for number, word in enumerate(SPECIAL)}, **visual}
    if moved := [word for word, number in wanted.items() if words.get(word, number) != number]:
        raise UnknownCheckpoint(
            f"config.json: vocabulary_map numbers {moved[0]} as {words[moved[0]]}; expected {wanted[moved[0]]}, behind "
            f"{text_size} tokens of text"
        )
    return with_vision(_node(decoder, text_size, codebook_size, config.get("image_area")), vision)


def vision_only_node(config: Mapping[str, Any]) -> Node:
    """The node of a visual tokenizer alone, published or transformers'."""
    node, published = vision_node(config), deepcopy(declared(VISION_VARIANT))
    if _covers(published, node):
        return published
    return {**node, "processor": published["processor"], "card": _card("visual tokenizer")}


def with_vision(node: Mapping[str, Any], vision: Mapping[str, Any]) -> Node:
    """The node of an Emu3 with another visual tokenizer, whose picture transform comes with it.

    Args:
        node: of an Emu3.
        vision: of a visual tokenizer, with or without its `processor` and `card`.
    """
    images = (vision.get("processor") or {}).get("images")
    part = module_node(vision)
    published = declared(VARIANTS[0])["vision_tokenizer"]
    changed = {**node, "vision_tokenizer": deepcopy(published) if _covers(published, part) else part}
    if images is not None and node.get("processor"):
        changed["processor"] = {**node["processor"], "images": images}
    return changed


def with_images(node: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Node:
    """A node with the picture transform of a `preprocessor_config.json`."""
    processor = deepcopy(node["processor"])
    images = processor["images"]
    for key, place in IMAGE_KEYS.items():
        if preprocessor.get(key) is not None:
            inner = images[place[0]] if len(place) > 1 else images
            inner[place[-1]] = preprocessor[key]
    if preprocessor.get("image_processor_type") == "Emu3ImageProcessor":
        images["rule"]["ratio"] = 200  # transformers' own limit
    return {**node, "processor": processor}


def _node(decoder: Node, text_size: int, codebook_size: int, image_area: int | None) -> Node:
    """A published variant's declaration if decoder and area are one's, else one made after Emu3-Gen's pattern."""
    alike = (
        variant
        for variant in VARIANTS
        if declared(variant)["decoder"] == decoder
        and image_area in (None, declared(variant)["processor"]["image_area"])
    )
    variant = next(alike, None)
    node = deepcopy(declared(variant or VARIANTS[0]))
    node |= {"decoder": decoder, "vision_tokenizer": None}
    node["ids"] |= {"text_size": text_size, "codebook_size": codebook_size}
    texts = node["processor"]["texts"]
    if (texts["vocabulary"]["size"], texts["codebook_size"]) != (text_size, codebook_size):
        texts |= {"codebook_size": codebook_size, "vocabulary": {"type": "tiktoken_file", "size": text_size}}
        texts["vocabulary"]["path"] = None
    if variant is None:
        node["card"] = _card("decoder")
        node["processor"]["image_area"] = image_area or node["processor"]["image_area"]
    return node


def _check_ids(given: Mapping[str, int], text_size: int, codebook_size: int) -> None:
    if codebook_size < 1:
        raise UnknownCheckpoint(
            f"config.json: pad_token_id {text_size} and {len(SPECIAL)} special tokens leave no visual tokens in a "
            "vocabulary of vocab_size"
        )
    known = numbered_ids(text_size, codebook_size)
    for name, number in given.items():
        if number != getattr(known, name):
            raise UnknownCheckpoint(
                f"config.json: the id of {name} is {number}; expected {getattr(known, name)}, behind {text_size} "
                "tokens of text"
            )


def _card(what: str) -> Node:
    return {"system": "Emu3", "summary": f"{what} with sizes read from the publisher's own configuration"}


def _covers(published: Any, found: Any) -> bool:
    """Whether a declaration says all that a node says, and perhaps more."""
    if isinstance(found, Mapping):
        return isinstance(published, Mapping) and all(
            key in published and _covers(published[key], value) for key, value in found.items()
        )
    return bool(list(found) == list(published) if isinstance(found, (list, tuple)) else found == published)
