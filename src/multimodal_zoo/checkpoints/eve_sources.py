"""Recognising EVE: folders with a published `config.json`, of either version, and the tokenizer's files in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints.configs import config_of, read_json, variant_of
from multimodal_zoo.checkpoints.files import manifest
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import best_namings, eve
from multimodal_zoo.checkpoints.tables.eve_config import published_node, version_of
from multimodal_zoo.tokenizers.json_tokenizer import TOKENIZER_FILE, json_node
from multimodal_zoo.tokenizers.llama_tokenizer import MODEL_FILE, llama_node
from multimodal_zoo.tokenizers.qwen2_tokenizer import QWEN2_SPECIAL

Node = dict[str, Any]
PREPROCESSOR, WORDS = "preprocessor_config.json", "tokenizer_config.json"
#: The tokens of a byte-level vocabulary with their ranks.
RANKS = "qwen.tiktoken"


def folder(path: Path) -> Source | None:
    """A folder of EVE, version 1 or 2, by the `config.json` in it.

    The aligning layer and the teacher that a training checkpoint holds are left out.

    Raises:
        UnknownCheckpoint: a configuration that no part can express.
    """
    found = config_of(path)
    version = None if found is None else version_of(found[1])
    if found is None or version is None:
        return None
    place, config = found
    preprocessor = place / PREPROCESSOR
    node = published_node(config, read_json(preprocessor) if preprocessor.is_file() else None)
    shapes = manifest(path)
    naming = next(iter(best_namings(shapes, eve.ALL)), None)
    kind = f"a published folder of EVE version {version}"
    return Source(kind, path, with_texts(node, place), variant_of(node), naming=naming, known=shapes)


def with_texts(node: Mapping[str, Any], place: Path) -> Node:
    """A node of EVE whose tokenizer reads the files that lie in a folder, if they do and the node names none yet."""
    processor = node.get("processor") or {}
    texts = processor.get("texts") or {}
    found = _tokenizer(texts, place) if processor.get("type") == "eve_processor" else None
    return dict(node) if found is None else {**node, "processor": {**processor, "texts": found}}


def _tokenizer(node: Mapping[str, Any], place: Path) -> Node | None:
    kind, vocabulary = node.get("type"), node.get("vocabulary") or {}
    open_path = node.get("path") if kind == "llama_tokenizer" else vocabulary.get("path")
    if kind not in ("llama_tokenizer", "qwen2_tokenizer") or open_path is not None:
        return None
    if (place / RANKS).is_file() and vocabulary.get("type", "tiktoken_file") == "tiktoken_file":
        return _ranks(place)
    if kind == "llama_tokenizer":
        return llama_node(place) if (place / MODEL_FILE).is_file() else None
    there = vocabulary.get("type") == "tiktoken_file" and (place / TOKENIZER_FILE).is_file()
    return json_node(place, "<|im_end|>", "<|endoftext|>") if there else None


def _ranks(place: Path) -> Node:
    """The tokenizer of a file of ranks, as this library writes it, with its special tokens."""
    with (place / RANKS).open(encoding="utf-8") as lines:
        size = sum(1 for line in lines if line.strip())
    facts = read_json(place / WORDS) if (place / WORDS).is_file() else {}
    names = {"additional_special_tokens": "special", "eos_token": "eos", "pad_token": "pad"}
    words = {ours: facts[theirs] for theirs, ours in names.items() if facts.get(theirs)}
    vocabulary = {"type": "tiktoken_file", "path": str(place / RANKS), "size": size, "sha256": None}
    return {"type": "qwen2_tokenizer", "vocabulary": vocabulary, **words}


def words_config(node: Mapping[str, Any]) -> Node:
    """The `tokenizer_config.json` of a `qwen2_tokenizer`'s node: its special tokens, in words of transformers."""
    named = {"eos_token": node.get("eos", "<|im_end|>"), "pad_token": node.get("pad", "<|endoftext|>")}
    return {"additional_special_tokens": list(node.get("special", QWEN2_SPECIAL)), **named}
