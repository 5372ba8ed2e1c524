"""Recognising files of DeCLIP's repository: CLIP, SLIP, FILIP, DeCLIP and DeFILIP, with either image tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from multimodal_zoo.checkpoints.configs import variant_of
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.guess import guess_variants
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables.clip_config import declaration
from multimodal_zoo.checkpoints.tables.declip_config import node_from_state


def by_shapes(path: Path, shapes: Mapping[str, Tensor], naming: Naming) -> Source:
    """A bare file: a published variant where the shapes are one's, else the model that the shapes make.

    Variants that differ in their training only (declip_88m_r50, declip_r50_yfcc) cannot be told apart: the file counts
    as the first, and its kind names all.

    Raises:
        UnknownCheckpoint: OpenAI's vocabulary, or towers of another repository, with the way out.
    """
    if variants := guess_variants(shapes, naming):
        kind = f"a file of the shapes of {' and of '.join(variants)}"
        return Source(kind, path, declaration(variants[0]), variants[0])
    try:
        node = node_from_state(shapes)
    except UnknownCheckpoint as error:
        raise UnknownCheckpoint(f"{path}: {error}") from error
    except KeyError as error:
        raise UnknownCheckpoint(
            f"{path}: tensors named as in {naming.name}, but without {error}: give config=, a model node or a mapping "
            "with image_encode, text_encode and clip"
        ) from error
    return Source(f"a file of DeCLIP's repository ({naming.name})", path, node, variant_of(node))
