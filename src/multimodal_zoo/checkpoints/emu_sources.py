"""Recognising Emu and Emu2: the Hub's folders, those with a visual decoder, and single files of the published code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints.configs import config_of, read_json, variant_of
from multimodal_zoo.checkpoints.declarations import declaration
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.files import State, manifest
from multimodal_zoo.checkpoints.guess import guess_variant
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import best_namings, diffusion, emu
from multimodal_zoo.checkpoints.tables.emu_config import is_emu2, published_node, visual_decoder_node
from multimodal_zoo.tokenizers.llama_tokenizer import MODEL_FILE

Node = dict[str, Any]
#: Folder of everything before the visual decoder, and folders of the visual decoder's parts -> their namings.
BODY = "multimodal_encoder"
DRAWING: dict[str, tuple[Naming, ...]] = {
    "unet": (diffusion.UNET,),
    "vae": (diffusion.VAE, diffusion.VAE_OLD),
    "safety_checker": (diffusion.CHECKER,),
}
SCHEDULER = ("scheduler", "scheduler_config.json")
#: The model's node beside a single file of ours in published names: such files have no configuration.
SIZES = "emu.json"


def folder(path: Path) -> Source | None:
    """A folder of Emu2 or of a relative, by the `config.json` in it.

    Raises:
        UnknownCheckpoint: a configuration that no part can express.
    """
    found = config_of(path)
    if found is None or not is_emu2(found[1]):
        return None
    place, config = found
    shapes = manifest(path)
    node = with_texts(published_node(config), place)
    return Source("a published folder of Emu2", path, node, variant_of(node), naming=_naming(shapes), known=shapes)


def drawing_folder(path: Path) -> Source | None:
    """A folder with the folders of a model and of its visual decoder: Emu's published one, and Emu2-Gen's.

    Emu's has no configuration of the model, which is told by its tensors' shapes.

    Raises:
        UnknownCheckpoint: a model of no published sizes, or a visual decoder of another kind.
    """
    if not (path / BODY).is_dir() or not (path / "unet" / "config.json").is_file():
        return None
    body = folder(path / BODY) or _by_shapes(path / BODY)
    configs = {name: read_json(path / name / "config.json") for name in DRAWING if (path / name).is_dir()}
    checker = None
    if "safety_checker" in configs:
        shapes = manifest(path / "safety_checker")
        counts = (len(shapes[f"{name}_embeds"]) for name in ("concept", "special_care") if f"{name}_embeds" in shapes)
        checker = (configs["safety_checker"], *counts)
    parts = {name: configs[name] for name in ("unet", "vae") if name in configs}
    drawing = visual_decoder_node(parts, read_json(path.joinpath(*SCHEDULER)), checker)  # type: ignore[arg-type]
    node = with_texts({**body.config, "visual_decoder": drawing}, path)
    variant = "emu2_gen" if body.variant == "emu2" and drawing["safety_checker"] is not None else None
    kind = "a published folder of an Emu with its visual decoder"
    return Source(kind, path, node, variant, pieces=_pieces(path, body, configs))


def pieces_of(path: Path, node: Mapping[str, Any]) -> Source | None:
    """Such a folder for a model whose node is known; parts that the model lacks are left out.

    Args:
        path: the folder.
        node: of the model.
    """
    if not (path / BODY).is_dir() or not (path / "unet").is_dir():
        return None
    shapes = manifest(path / BODY)
    body = Source("a model before its visual decoder", path / BODY, {}, naming=_naming(shapes), known=shapes)
    drawing = node.get("visual_decoder") or {}
    wanted = [name for name in DRAWING if drawing.get(name) is not None and (path / name).is_dir()]
    return Source("a folder of an Emu", path, dict(node), pieces=_pieces(path, body, wanted))


def by_shapes(path: Path, shapes: State, naming: Naming) -> Source:
    """A bare file of a published variant, told by its tensors' shapes, or one with its sizes beside it.

    Raises:
        UnknownCheckpoint: shapes of no published variant, and no sizes.
    """
    place = path if path.is_dir() else path.parent
    if (place / SIZES).is_file():
        node = with_texts(read_json(place / SIZES), place)
        return Source("a file in Emu's names", path, node, variant_of(node), naming=naming, known=shapes)
    variant = guess_variant(shapes, naming)
    if variant is None:
        raise UnknownCheckpoint(
            f"{path}: Emu's tensors ({naming.name}), but the shapes of no published variant; the width of a head "
            "cannot be seen in them: give config=VARIANT or a model node"
        )
    node = with_texts(declaration(variant), place)
    return Source(f"a file of {variant}", path, node, variant, naming=naming, known=shapes)


def with_texts(node: Mapping[str, Any], place: Path) -> Node:
    """A node of Emu whose tokenizer reads the pieces that lie in a folder or in its `tokenizer/`, if they do.

    Args:
        node: of any model; one that names its pieces keeps them.
        place: the folder around the weights.
    """
    processor = node.get("processor") or {}
    texts = processor.get("texts") or {}
    pieces = texts.get("tokenizer") or {}
    files = [one / MODEL_FILE for one in (place, place / "tokenizer", place.parent / "tokenizer")]
    found = next((str(file) for file in files if file.is_file()), None)
    if found is None or pieces.get("type") != "llama_tokenizer" or pieces.get("path") is not None:
        return dict(node)
    texts = {**texts, "tokenizer": {**pieces, "path": found}}
    return {**node, "processor": {**processor, "texts": texts}}


def _by_shapes(path: Path) -> Source:
    shapes = manifest(path)
    naming = _naming(shapes)
    if naming is None:
        raise UnknownCheckpoint(f"{path}: looked for Emu's or Emu2's tensors; found {', '.join(list(shapes)[:5])}, ...")
    return by_shapes(path, shapes, naming)


def _naming(shapes: State) -> Naming | None:
    return next(iter(best_namings(shapes, emu.ALL)), None)


def _pieces(path: Path, body: Source, names: Iterable[str]) -> tuple[Source, ...]:
    pieces = [replace(body, config={}, variant=None)]
    for name in names:
        shapes = manifest(path / name)
        naming = next(iter(best_namings(shapes, DRAWING[name])), DRAWING[name][0])
        moved = naming.under("", f"visual_decoder.{name}.")
        pieces.append(Source(f"a folder of {name}", path / name, {}, naming=moved, known=shapes))
    return tuple(pieces)
