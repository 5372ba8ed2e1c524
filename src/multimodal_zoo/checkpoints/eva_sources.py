"""Recognising EVA-CLIP: the Hub's folder, an original file with its configuration beside it, a bare file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multimodal_zoo.checkpoints.configs import config_of, configs_beside, read_json, variant_of
from multimodal_zoo.checkpoints.declarations import declaration
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.files import manifest
from multimodal_zoo.checkpoints.guess import guess_variant
from multimodal_zoo.checkpoints.load import account
from multimodal_zoo.checkpoints.locate import weight_files
from multimodal_zoo.checkpoints.meta import build_on_meta
from multimodal_zoo.checkpoints.naming import Naming, in_ours
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import clip_config, detect_naming, eva_clip, eva_clip_config


def hub_folder(path: Path) -> Source | None:
    """A folder with the `config.json` of the Hub's `EvaCLIPModel`, told by its fields."""
    found = config_of(path)
    if found is None or not eva_clip_config.is_hub(found[1]):
        return None
    folder, config = found
    node = eva_clip_config.hub_node(config, head_bias="visual_projection.bias" in manifest(path))
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.is_file():
        images = {**node["processor"]["images"], **clip_config.transform_from_hf(read_json(preprocessor))}
        node["processor"] = {**node["processor"], "images": images}
    return Source("a Hub EvaCLIPModel folder", path, node, variant_of(node))


def original_file(path: Path) -> Source | None:
    """An original file with its JSON configuration in the same folder.

    Several configurations may lie there: one named like the file counts, else those that the tensors fit.

    Raises:
        UnknownCheckpoint: the tensors fit several, which differ in what shapes do not show.
    """
    configs = configs_beside(path, eva_clip_config.is_original)
    if not configs:
        return None
    shapes = manifest(path)
    if (naming := detect_naming(shapes)) not in (eva_clip.ORIGINAL, eva_clip.ROOT_TEXT, eva_clip.TEXT_SCALE):
        return None
    weights = weight_files(path)[0]
    nodes = {file: eva_clip_config.original_node(config) for file, config in configs.items()}
    named = [node for file, node in nodes.items() if file.stem == weights.stem]
    fitting = named or [node for node in nodes.values() if _fits(node, shapes, naming)]
    if any(node != fitting[0] for node in fitting):
        names = ", ".join(file.name for file in configs)
        raise UnknownCheckpoint(
            f"{path}: its tensors fit several of {names}, which differ in what shapes do not show; give config=FILE, "
            f"or name one {weights.stem}.json"
        )
    if not fitting:
        return None
    return Source("an original EVA-CLIP file", path, fitting[0], variant_of(fitting[0]))


def by_shapes(path: Path, shapes: Mapping[str, Tensor], naming: Naming) -> Source:
    """A bare file of a published variant, told by its tensors' shapes.

    Raises:
        UnknownCheckpoint: shapes of no published variant: width of a head and place of the norms are not in them.
    """
    variant = guess_variant(shapes, naming)
    if variant is not None:
        return Source(f"a file of {variant}", path, declaration(variant), variant)
    raise UnknownCheckpoint(
        f"{path}: EVA-CLIP's tensors ({naming.name}), {_seen(shapes, naming)}: no published variant. The width of a "
        "head and whether blocks are pre- or post-norm cannot be seen in a state dict: give config=, the publisher's "
        "configuration as a path or mapping, or keep its JSON file beside the weights"
    )


def _fits(node: Mapping[str, Any], shapes: Mapping[str, Tensor], naming: Naming) -> bool:
    return account(build_on_meta(node), shapes, naming).exact


def _seen(shapes: Mapping[str, Tensor], naming: Naming) -> str:
    """What the shapes do say of the image tower."""
    ours, _ = in_ours(shapes, naming)
    blocks = {name.split(".")[3] for name in ours if name.startswith("image.blocks.layers.")}
    patches, positions = ours.get("image.patches.weight"), ours.get("image.positions.weight")
    if patches is None or positions is None:
        return f"{len(blocks)} image blocks"
    side = math.isqrt(positions.shape[0] - 1)
    norm = "LayerNorm" if "image.blocks.layers.0.norm_1.bias" in ours else "RMSNorm"
    return (
        f"{len(blocks)} image blocks of width {patches.shape[0]} with {norm}, a {side}x{side} grid of patches of "
        f"{patches.shape[-1]} pixels"
    )
