"""Recognising GGUF files of decoders of the LLaMA family."""

from __future__ import annotations

from pathlib import Path

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.gguf import gguf_header, gguf_shapes
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables.gguf import GGUF, node_from_gguf
from multimodal_zoo.tokenizers.gguf_tokenizer import has_tokenizer


def gguf_file(path: Path) -> Source | None:
    """A `.gguf` file, with its tokenizer where that is of a known kind.

    Raises:
        CorruptCheckpoint: another format than the name says, or a damaged file.
        UnknownCheckpoint: a model that no part can express.
    """
    if path.suffix != ".gguf":
        return None
    header = gguf_header(path)
    try:
        node = node_from_gguf(header)
    except UnknownCheckpoint as error:
        raise UnknownCheckpoint(f"{path}: {error}") from error
    if has_tokenizer(header.facts):
        node["processor"] = {"type": "gguf_tokenizer", "path": str(path)}
    kind = f"a GGUF file of a {header.architecture} decoder"
    return Source(kind, path, node, naming=GGUF, known=gguf_shapes(path))
