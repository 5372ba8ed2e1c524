"""Recognising Emu3 and decoders of the LLaMA family: folders with a `config.json`, published or of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints.configs import config_of, node_of, read_json, variant_of
from multimodal_zoo.checkpoints.files import State, manifest
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.parts import with_part
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import best_namings, causal_decoder, emu3, emu3_vision
from multimodal_zoo.checkpoints.tables.causal_decoder_config import is_causal
from multimodal_zoo.checkpoints.tables.emu3_config import VISION_TYPES, with_images
from multimodal_zoo.tokenizers.vocabularies import RANKS_FILE, VISION_FILE, vocabulary_node

Node = dict[str, Any]
#: Folder inside a decoder's in which this library writes the visual tokenizer that belongs to it.
VISION_FOLDER = "vision_tokenizer"


def folder(path: Path) -> Source | None:
    """A folder of Emu3, of its visual tokenizer, or of a decoder of the LLaMA family, by the `config.json` in it.

    Raises:
        UnknownCheckpoint: a configuration that no part can express.
    """
    if (found := config_of(path)) is None:
        return None
    place, config = found
    kind = config.get("model_type")
    if kind in VISION_TYPES:
        return _vision(path, place, config)
    if kind in ("Emu3", "emu3"):
        return _emu3(path, place, config)
    if not is_causal(config):
        return None
    shapes = manifest(path)
    tied = bool(config.get("tie_word_embeddings")) and "lm_head.weight" in shapes
    naming = causal_decoder.LLAMA_TIED if tied else causal_decoder.LLAMA
    node = node_of(config)
    return Source(f"a Hugging Face folder of a {kind} decoder", path, node, naming=naming, known=shapes)


def _vision(path: Path, place: Path, config: Mapping[str, Any]) -> Source:
    node, shapes = _with_transform(node_of(config), place), manifest(path)
    naming = _best(shapes, emu3_vision.EMU3_VISION, emu3_vision.TRANSFORMERS_VISION)
    return Source("a folder of Emu3's visual tokenizer", path, node, variant_of(node), naming=naming, known=shapes)


def _emu3(path: Path, place: Path, config: Mapping[str, Any]) -> Source:
    node = with_texts(_with_transform(node_of(config), place), place)
    shapes = manifest(path)
    kind = "a published Emu3 folder" if config["model_type"] == "Emu3" else "a transformers Emu3 folder"
    source = Source(kind, path, node, variant_of(node), naming=_best(shapes, *emu3.ALL), known=shapes)
    beside = place / VISION_FOLDER
    vision = folder(beside) if beside.is_dir() and node["vision_tokenizer"] is None else None
    return source if vision is None else with_part(source, "vision_tokenizer", vision)


def with_texts(node: Mapping[str, Any], place: Path) -> Node:
    """A node whose tokenizer reads the vocabulary that lies in a folder, if one does and the node names none yet."""
    processor = node.get("processor") or {}
    vocabulary = (processor.get("texts") or {}).get("vocabulary") or {}
    there = all((place / name).is_file() for name in (RANKS_FILE, VISION_FILE))
    if not there or vocabulary.get("type") != "tiktoken_file" or vocabulary.get("path") is not None:
        return dict(node)
    return {**node, "processor": {**processor, "texts": vocabulary_node(place)}}


def _with_transform(node: Node, place: Path) -> Node:
    file = place / "preprocessor_config.json"
    return with_images(node, read_json(file)) if file.is_file() else node


def _best(shapes: State, *namings: Naming) -> Naming | None:
    return next(iter(best_namings(shapes, namings)), None)
