"""One function per kind of checkpoint: what it is, if it is that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints import (
    declip_sources,
    emu3_sources,
    emu_sources,
    eva_sources,
    eve_sources,
    gguf_sources,
)
from multimodal_zoo.checkpoints.configs import config_of, open_clip_node, read_json, variant_of
from multimodal_zoo.checkpoints.errors import CorruptCheckpoint, UnknownCheckpoint
from multimodal_zoo.checkpoints.files import manifest, read_file
from multimodal_zoo.checkpoints.source import LIGHTNING_AVERAGE, SAVED, Source
from multimodal_zoo.checkpoints.tables import NAMINGS, clip, clip_config, declip, detect_naming, emu, eva_clip
from multimodal_zoo.files import bounded, reading

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
#: Nodes of the largest configuration.
NODES = 200_000


def saved_folder(path: Path) -> Source | None:
    """`config.yaml` + `model.safetensors`, as `save_model` writes them."""
    folder = path.parent if path.name == WEIGHTS else path
    config = folder / CONFIG
    if not config.is_file() or not (folder / WEIGHTS).is_file():
        return None
    facts = _yaml(config)
    node = facts.get("model")
    if not isinstance(node, Mapping) or "type" not in node:
        raise CorruptCheckpoint(f"{config}: no `model:` node with a `type`; was it written by save_model?")
    return Source(SAVED, folder / WEIGHTS, dict(node), facts.get("variant"), weights=facts.get("weights"))


def training_run(path: Path) -> Source | None:
    """A run folder: its exported `model/`, else its last checkpoint."""
    if not path.is_dir():
        return None
    if (path / "model" / CONFIG).is_file():
        return saved_folder(path / "model")
    last = path / "checkpoints" / "last.ckpt"
    return training_checkpoint(last.resolve()) if last.exists() else None


def training_checkpoint(path: Path) -> Source | None:
    """A `.ckpt` of our training: Lightning's layout with the recipe under its hyper-parameters."""
    if path.suffix != ".ckpt":
        return None
    if path.is_dir():
        raise UnknownCheckpoint(f"{path}: a checkpoint in one file per rank; load the run's exported model/ folder")
    content = read_file(path, device="meta")
    if "pytorch-lightning_version" not in content:
        return None
    config = content.get("hyper_parameters", {}).get("config", {})
    node = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(node, Mapping) or "type" not in node:
        raise UnknownCheckpoint(
            f"{path}: a Lightning checkpoint, but not of this library: no recipe with a `model` node"
        )
    return Source("a checkpoint of our training", path, dict(node), average=LIGHTNING_AVERAGE in content)


def hf_folder(path: Path) -> Source | None:
    """A folder with the `config.json` of a Hugging Face `CLIPModel`."""
    found = config_of(path)
    if found is None or found[1].get("model_type") != "clip":
        return None
    folder, config = found
    sizes = clip_config.sizes_from_hf(config)
    preprocessor = folder / "preprocessor_config.json"
    transform = clip_config.transform_from_hf(read_json(preprocessor)) if preprocessor.is_file() else {}
    return Source("a Hugging Face CLIPModel folder", path, sizes.node(transform), sizes.variant)


def open_clip_folder(path: Path) -> Source | None:
    """A folder with an `open_clip_config.json`."""
    found = config_of(path, "open_clip_config.json")
    if found is None:
        return None
    node = open_clip_node(found[1])
    return Source("an open_clip folder", _open_clip_weights(path), node, variant_of(node))


def _open_clip_weights(path: Path) -> Path:
    """open_clip folders of the hub often hold a transformers copy of the weights too."""
    names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return next((path / name for name in names if path.is_dir() and (path / name).is_file()), path)


#: Kinds that are of this library, and kinds that a publisher's configuration tells.
OWN: tuple[Callable[[Path], Source | None], ...] = (saved_folder, training_run, training_checkpoint)
PUBLISHED: tuple[Callable[[Path], Source | None], ...] = (
    gguf_sources.gguf_file,
    open_clip_folder,
    eva_sources.hub_folder,
    hf_folder,
    emu3_sources.folder,
    eve_sources.folder,
    emu_sources.folder,
    emu_sources.drawing_folder,
    eva_sources.original_file,
    declip_sources.original_file,
)
_LOOKED_FOR = (
    "config.yaml + model.safetensors (save_model)",
    "model/ or checkpoints/last.ckpt (a training run)",
    "a Lightning checkpoint with a recipe",
    "open_clip_config.json",
    'config.json (Hugging Face) with model_type "clip", of EvaCLIPModel, Emu3, EVE, Emu2 or a decoder like LLaMA',
    "multimodal_encoder/ and unet/ (Emu or Emu2-Gen)",
    "a .gguf file of a decoder like LLaMA",
    "EVA-CLIP's or DeCLIP's own JSON configuration beside a file",
    f"tensor names of {', '.join(NAMINGS)}",
)


def by_names(path: Path) -> Source:
    """A bare weight file: told by its tensors' names and shapes.

    Raises:
        UnknownCheckpoint: names of no published naming, or ones that do not say the architecture.
    """
    shapes = manifest(path)
    naming = detect_naming(shapes)
    if naming is clip.OPENAI:
        sizes = clip_config.sizes_from_state(shapes)
        return Source("OpenAI's CLIP file", path, sizes.node(), sizes.variant)
    if naming in eva_clip.ALL:
        return eva_sources.by_shapes(path, shapes, naming)
    if naming in declip.ALL:
        return declip_sources.by_shapes(path, shapes, naming)
    if naming in emu.ALL:
        return emu_sources.by_shapes(path, shapes, naming)
    if naming is not None:
        raise UnknownCheckpoint(
            f"{path}: tensors named as in {naming.name}, but no configuration beside them says the heads and the "
            f"activation; keep the publisher's config file in the same folder, or give config=VARIANT"
        )
    first = ", ".join(list(shapes)[:5])
    raise UnknownCheckpoint(
        f"{path}: looked for {'; '.join(_LOOKED_FOR)}; found {len(shapes)} tensors of another naming: {first}, ... "
        f"If they are this library's names, give config=VARIANT"
    )


def _yaml(path: Path) -> dict[str, Any]:
    import yaml
    from omegaconf import OmegaConf

    with reading(path, "YAML file", kind=CorruptCheckpoint):
        text = path.read_text(encoding="utf-8")
        if "*" in text:  # an alias, perhaps
            bounded(yaml.safe_load(text), NODES)
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    if not isinstance(content, dict):
        raise CorruptCheckpoint(f"{path}: expected a mapping, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}
