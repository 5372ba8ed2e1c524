"""EVA-CLIP's towers and models, built from the configuration of a case and filled by the rule for weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness.cases import Case
from torch import Tensor, nn

from multimodal_zoo.checkpoints.files import unwrap
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.store import load_weights
from multimodal_zoo.checkpoints.tables import detect_naming
from multimodal_zoo.checkpoints.tables.eva_clip_config import hub_node, image_nodes, original_node, text_nodes
from multimodal_zoo.registry import build

#: What of a case's configuration describes a model.
MODEL_FIELDS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
#: The image tower of the file, where that differs from the model's.
FILE_FIELD = "checkpoint_vision_cfg"


class Part(nn.Module):
    """One tower with its projection, under the names that a whole model gives them."""

    def __init__(self, side: str, nodes: tuple[dict[str, Any], dict[str, Any]]) -> None:
        super().__init__()
        self.add_module(side, build(nodes[0], path=f"model.{side}"))
        self.add_module(f"{side}_projection", build(nodes[1], path=f"model.{side}_projection"))


def naming_of(case: Case) -> Naming:
    """The naming table of a case's keys, found as for any file."""
    naming = case.once("naming", lambda: detect_naming(unwrap(case.state)))
    assert naming is not None, "no naming table knows these keys"
    return naming


def make_model(case: Case, apart: Collection[str] = (FILE_FIELD,)) -> nn.Module:
    """What the configuration describes, without the weights: a model, or one tower with its projection.

    Args:
        case: its configuration is original or the Hub's; a field that nothing understands is an error.
        apart: fields of the configuration that describe no model.
    """
    config = {key: value for key, value in case.config.items() if key not in apart}
    if "projection_dim" in config or ("vision_cfg" in config and "text_cfg" in config):
        hub = "projection_dim" in config
        biased = "visual_projection.bias" in case.manifest
        node = hub_node(config, head_bias=biased) if hub else original_node(config)
        return build({key: value for key, value in node.items() if key not in ("card", "processor")}, path="model")
    assert "vision_cfg" in config or "text_cfg" in config, f"config describes no model: {sorted(config)}"
    return Part("image", image_nodes(config)) if "vision_cfg" in config else Part("text", text_nodes(config))


def model_of(case: Case) -> nn.Module:
    """The model in evaluation mode with the case's weights, every tensor accounted for; one per case.

    They are read from a file of the kind that is published: a pickled dictionary inside another.
    """

    def make() -> nn.Module:
        model = make_model(case)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.pt"
            torch.save({"epoch": 1, "state_dict": case.state}, file)
            load_weights(model, file, resize=FILE_FIELD in case.config)
        return model.eval()

    return case.once("model", make)


def published_gradients(case: Case, model: nn.Module) -> dict[str, Tensor]:
    """Gradients under the published names, in the published shapes."""
    return published(case, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def published(case: Case, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of ours under the names that the case's file gives them."""
    prefix = "module." if all(key.startswith("module.") for key in case.manifest) else ""
    return {prefix + name: tensor for name, tensor in naming_of(case).save(state).items()}


def raw_image(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Image embeddings that are not normalised, with all tokens computed and with the pooled one alone."""
    return tuple(model.image_projection(x) for x in (model.image(images).pooled, model.image.pooled(images)))


def raw_text(model: nn.Module, ids: Tensor) -> tuple[Tensor, ...]:
    """Text embeddings that are not normalised: all tokens, the pooled one alone, and the batch cut to its texts."""
    used = int((ids != 0).any(0).nonzero().max()) + 1 if ids.any() else ids.shape[1]
    ways = (model.text(ids).pooled, model.text.pooled(ids), model.text.pooled(ids[:, :used]))
    return tuple(model.text_projection(x) for x in ways)
