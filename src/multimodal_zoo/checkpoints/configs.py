"""A model node from a publisher's own configuration, whoever the publisher is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from multimodal_zoo.checkpoints.errors import CheckpointError, CorruptCheckpoint, MissingCheckpoint, UnknownCheckpoint
from multimodal_zoo.checkpoints.locate import folder_of
from multimodal_zoo.checkpoints.tables import (
    clip_config,
    declip_config,
    emu3_config,
    emu_config,
    eva_clip_config,
    eva_mim_config,
    eve_config,
)
from multimodal_zoo.checkpoints.tables.causal_decoder_config import is_causal, node_from_hf
from multimodal_zoo.files import parsed

Node = dict[str, Any]


def node_of(config: Mapping[str, Any] | Path) -> Node:
    """The complete model node that a configuration means.

    Known are: a model node; EVA-CLIP's original configuration; the arguments of EVA-02's pretraining; open_clip's
    configuration; `config.json` of a Hugging Face `CLIPModel` or of the Hub's `EvaCLIPModel`; the keyword arguments of
    a model in DeCLIP's repository; `config.json` of Emu3, of its visual tokenizer, of EVE, of Emu2 and of decoders of
    the LLaMA family.

    Args:
        config: the content, or the path of a JSON file.

    Raises:
        MissingCheckpoint, CorruptCheckpoint: no such file, or no JSON object in it.
        UnknownCheckpoint: none of those, or one that asks for what no part does.
    """
    if isinstance(config, Path):
        config = read_json(config)
    if not config or "type" in config:
        return dict(config)
    if eva_clip_config.is_original(config):
        return eva_clip_config.original_node(config)
    if declip_config.is_original(config):
        return declip_config.original_node(config)
    if "vision_cfg" in config.get("model_cfg", config):
        return open_clip_node(config)
    if eva_mim_config.is_student(config):
        return eva_mim_config.student_node(config)
    if eva_clip_config.is_hub(config):
        return eva_clip_config.hub_node(config)
    if emu_config.is_emu2(config):
        return emu_config.published_node(config)
    if config.get("model_type") == "clip" or "vision_config" in config:
        return clip_config.sizes_from_hf(config).node()
    if (found := _token_node(config)) is not None:
        return found
    keys = ", ".join(str(key) for key in list(config)[:8])
    raise UnknownCheckpoint(
        "config: looked for a model node (`type`), the configuration of EVA-CLIP or open_clip (`vision_cfg`, "
        "`text_cfg`), of EVA-02's pretraining (`predict_feature_dim`), of DeCLIP (`image_encode`, `text_encode`) and a "
        "config.json (`vision_config`, `text_config`), or one that is Emu3's, EVE's, Emu2's or of the LLaMA "
        f"family; found model_type {config.get('model_type')!r} and the keys {keys}"
    )


def _token_node(config: Mapping[str, Any]) -> Node | None:
    """The node of a `config.json` of Emu3, of EVE or of a decoder alone."""
    kind = config.get("model_type")
    if eve_config.version_of(config) is not None:
        return eve_config.published_node(config)
    if kind == "Emu3":
        return emu3_config.published_node(config)
    if kind == "emu3":
        return emu3_config.transformers_node(config)
    if kind in emu3_config.VISION_TYPES:
        return emu3_config.vision_only_node(config)
    return node_from_hf(config) if is_causal(config) else None


def open_clip_node(config: Mapping[str, Any]) -> Node:
    """The node of an `open_clip_config.json`, or of one of open_clip's own model configurations.

    Raises:
        UnknownCheckpoint: another architecture than CLIP's, or than timm's towers of EVA-CLIP.
    """
    transform = clip_config.transform_from_open_clip(config)
    original = eva_clip_config.from_open_clip(config.get("model_cfg", config))
    if original is None:
        return clip_config.sizes_from_open_clip(config).node(transform)
    node = eva_clip_config.original_node(original)
    node["processor"] = {**node["processor"], "images": {**node["processor"]["images"], **transform}}
    return node


def variant_of(node: Mapping[str, Any]) -> str | None:
    """The name of the published variant whose declaration a node is."""
    return (node.get("card") or {}).get("name")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MissingCheckpoint: no such file.
        CorruptCheckpoint: no valid JSON, or no object.
    """
    if not path.is_file():
        raise MissingCheckpoint(f"{path}: no such file")
    try:
        content = parsed(path.read_bytes())
    except ValueError as error:
        raise CorruptCheckpoint(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise CorruptCheckpoint(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def config_of(path: Path, name: str = "config.json") -> tuple[Path, dict[str, Any]] | None:
    """The folder of a checkpoint and the configuration in it; None where there is none.

    Args:
        path: the folder, or a weight file in it that bears one of the names of a folder's weights.
        name: of the configuration.
    """
    folder = folder_of(path)
    return (folder, read_json(folder / name)) if (folder / name).is_file() else None


def configs_beside(path: Path, known: Callable[[Mapping[str, Any]], bool]) -> dict[Path, dict[str, Any]]:
    """Configurations of one kind that lie in the folder of a checkpoint; other JSON files there do not matter.

    Args:
        path: the folder, or a file in it.
        known: tells the kind.
    """
    found = {}
    for file in sorted((path if path.is_dir() else path.parent).glob("*.json")):
        with suppress(CheckpointError, OSError):  # some other file that happens to lie there
            if known(config := read_json(file)):
                found[file] = config
    return found
