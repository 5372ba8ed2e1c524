"""Models of DeCLIP's repository, built from the configuration of a case and filled by the rule for weights."""

from __future__ import annotations

from typing import Any

from harness.cases import Case
from torch import Tensor, nn

from multimodal_zoo.checkpoints.files import unwrap
from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables import best_namings, declip
from multimodal_zoo.checkpoints.tables.declip_config import image_nodes, original_node, text_nodes
from multimodal_zoo.encoders.heads import MaskedWordHead
from multimodal_zoo.registry import build

#: What of a case's configuration describes a model; further keys (loss weights, ...) are the handlers' to read.
MODEL_FIELDS = ("image_encode", "text_encode", "clip")
PREFIX = "module."


class Part(nn.Module):
    """One tower with its projection and a head, under the names that a whole model gives them."""

    def __init__(self, side: str, nodes: tuple[dict[str, Any], dict[str, Any]], heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.add_module(side, build(nodes[0], path=f"model.{side}"))
        self.add_module(f"{side}_projection", build(nodes[1], path=f"model.{side}_projection"))
        self.heads = nn.ModuleDict(heads)


def naming_of(case: Case) -> Naming:
    """The naming table of a case's keys; a lone image tower has the names of OpenAI's too, so only ours are asked."""

    def find() -> Naming:
        found = best_namings(unwrap(case.state), declip.ALL)
        assert found, "no naming table knows these keys"
        return found[0]

    return case.once("naming", find)


def make_model(case: Case) -> nn.Module:
    """What the configuration describes, without the weights: a model, or one tower with its projection."""
    config, words = case.config, f"{PREFIX}text_label_predictor.weight" in case.manifest
    if "image_encode" in config:
        node = original_node({key: config[key] for key in MODEL_FIELDS if key in config})
        if "masked_words" in (node.get("heads") or {}) and not words:
            node["heads"]["masked_words"] = None
        return build({key: value for key, value in node.items() if key not in ("card", "processor")}, path="model")
    if "transformer_width" in config:
        heads: dict[str, nn.Module] = {}
        if words:
            heads["masked_words"] = MaskedWordHead(config["transformer_width"], config["vocab_size"])
        return Part("text", text_nodes(config), heads)
    assert "input_resolution" in config, f"config describes no model: {sorted(config)}"
    return Part("image", image_nodes(config), {})


def fresh_model(case: Case) -> nn.Module:
    """A new model with the case's weights, every tensor accounted for; in training mode."""
    model = make_model(case)
    load_into(model, unwrap(case.state), naming_of(case))
    return model.train()


def model_of(case: Case) -> nn.Module:
    """The model in evaluation mode; one per case."""
    return case.once("model", lambda: fresh_model(case).eval())


def published(case: Case, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of ours under the names that the case's file gives them, in its shapes."""
    return {PREFIX + name: tensor for name, tensor in naming_of(case).save(state).items()}


def published_gradients(case: Case, model: nn.Module) -> dict[str, Tensor]:
    """Gradients under the published names; parameters without one (the frozen patch kernel) are left out."""
    return published(case, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
