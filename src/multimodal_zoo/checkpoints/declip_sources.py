"""Recognising files of DeCLIP's repository: CLIP, SLIP, FILIP, DeCLIP and DeFILIP, with either image tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from multimodal_zoo.checkpoints.configs import configs_beside, variant_of
from multimodal_zoo.checkpoints.declarations import declaration
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.files import manifest
from multimodal_zoo.checkpoints.guess import guess_variants
from multimodal_zoo.checkpoints.locate import weight_files
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import declip, detect_naming
from multimodal_zoo.checkpoints.tables.declip_config import is_original, node_from_state, original_node


def original_file(path: Path) -> Source | None:
    """A file with a JSON of `image_encode`, `text_encode` and `clip` in its folder, named like it or the only one.

    Raises:
        UnknownCheckpoint: several that differ, none of them named like the file.
    """
    configs = configs_beside(path, is_original)
    if not configs or detect_naming(manifest(path)) not in declip.ALL:
        return None
    weights = weight_files(path)[0]
    chosen = [c for file, c in configs.items() if file.stem == weights.name.split(".")[0]] or list(configs.values())
    if any(config != chosen[0] for config in chosen):
        names = ", ".join(file.name for file in configs)
        raise UnknownCheckpoint(f"{path}: {names} differ; give config=FILE, or name one like the weights")
    node = original_node(chosen[0])
    return Source("a file of DeCLIP's repository with its configuration", path, node, variant_of(node))


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
