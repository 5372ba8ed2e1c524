"""EVE's cases of training stages: what trains, at which rates, and what the vision branch starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.eve_parts.models import V1_KEYS, V2_KEYS
from systems.eve_parts.shared import decoder, v1_embedding, v2_embedding
from torch import nn

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables.eve import EVE_TRAINING, EVE_V2, EVE_V2_STAGE0
from multimodal_zoo.config import compose
from multimodal_zoo.nn.decoupled import DecoupledBlock
from multimodal_zoo.registry import build
from multimodal_zoo.training.groups import ParameterRules, read_rules

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"data"}
V1_STAGE = {"name", "tune_vision_tower", "learning_rate", "mm_projector_lr", "vision_tower_lr", "weight_decay"}
V2_STAGE = {"name", "tune_VE", "tune_MOE", "tune_LLM", "moe_part", "learning_rate", "vision_tower_lr", "weight_decay"}
FACTS = {"stage", "optimizer", "groups", "no_weight_decay", "frozen_prefixes", "trainable", "n_trainable", "n_frozen",
         "trainable_params"}  # fmt: skip
#: Published component -> beginnings of published names; what none of them names is the language model.
V1_COMPONENTS = {
    "patch_embedding": ("model.vision_tower.",),
    "projector": ("model.mm_projector.",),
    "aligning": ("model.vision_tower_compressor.",),
}
#: Vectors that decay as published although they have one dimension.
DECAYING = ["vision_embedding.class_token", "vision_embedding.split_token"]


def _v1(config: Mapping[str, Any]) -> nn.Module:
    """Version 1, for training; the teacher is no part of it, so that it never trains."""
    known, aligner = take_known(config, V1_KEYS, "config"), None
    if known["requires_cliploss"]:
        aligner = {
            "type": "patch_aligning", "width": known["hidden_size"], "depth": known["num_hidden_layers"],
            "teacher_width": known["teacher"]["hidden_size"],
        }  # fmt: skip
    node = {"type": "eve", "decoder": decoder(known), "vision_embedding": v1_embedding(known), "aligner": aligner}
    return build(node, path="model")


def _v2(config: Mapping[str, Any], parts: str | None) -> nn.Module:
    """Version 2; without parts it is that of stage 0, whose pictures have no weights of their own."""
    known = {**take_known(config, V2_KEYS, "config"), "add_moe": parts is not None, "moe_part": parts}
    return build({"type": "eve", "decoder": decoder(known), "vision_embedding": v2_embedding(known)}, path="model")


def _v1_rules(stage: Mapping[str, Any], aligned: bool) -> ParameterRules:
    frozen = ["decoder.*"] if stage["tune_vision_tower"] else []
    towers: dict[str, Any] = {}
    if stage["mm_projector_lr"] is not None and stage["vision_tower_lr"] is not None:
        projector = {"patterns": ["vision_embedding.projector.*"], "lr": stage["mm_projector_lr"]}
        names = ["class_token", "split_token", "patches.*", "local_attention.*", "global_attention.*"]
        tower = [*(f"vision_embedding.{name}" for name in names), *(["aligner.*"] if aligned else [])]
        towers = {"projector": projector, "tower": {"patterns": tower, "lr": stage["vision_tower_lr"]}}
    return read_rules({"frozen": frozen, "decay": DECAYING, "towers": towers})


def _v2_rules(stage: Mapping[str, Any], tied: bool) -> ParameterRules:
    assert stage["tune_VE"], "every published stage trains the embedding layer"
    text, pictures = "decoder.blocks.layers.*.text.*", "decoder.blocks.layers.*.vision.*"
    whole = ["decoder.token_embedding.*", "decoder.norm.*", *([] if tied else ["decoder.output.*"])]
    frozen = [] if stage["tune_LLM"] else [*whole, text]
    if stage["moe_part"] is None:
        frozen = [] if stage["tune_LLM"] else ["decoder.*"]
    elif not stage["tune_MOE"]:
        frozen = [*frozen, pictures]
    tower = {"patterns": ["vision_embedding.*"], "lr": stage["vision_tower_lr"]}
    return read_rules({"frozen": frozen, "decay": DECAYING, "towers": {"vision_embedding": tower}})


def _trained(
    model: nn.Module, rules: ParameterRules, naming: Naming, stage: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Published name of what trains -> learning rate and weight decay."""
    parameters = dict(model.named_parameters())
    rules.freeze(parameters)
    found = {}
    for group in rules.groups(parameters, stage["learning_rate"], stage["weight_decay"]):
        for name, parameter in zip(group["names"], group["params"], strict=True):
            (published,) = naming.save({name: parameter.detach()})
            found[published] = (group["lr"], group["weight_decay"])
    return found


def _by_component(
    trained: Mapping[str, tuple[float, float]], component: Callable[[str], str]
) -> dict[str, list[list[float]]]:
    """Component -> its pairs of learning rate and weight decay; the decay of the language model is not compared."""
    found: dict[str, set[tuple[float, float]]] = {}
    for name, (rate, decay) in trained.items():
        part = component(name)
        found.setdefault(part, set()).add((rate, 0.0 if part == "language_model" else decay))
    return {part: sorted(list(pair) for pair in pairs) for part, pairs in found.items()}


def _optimizer() -> dict[str, Any]:
    node = compose(None, ["+optim=eve_adamw"]).optim
    name = str(node["_target_"]).rpartition(".")[2]
    return {"name": name, "betas": list(node.betas), "eps": node.eps}


def _expected_groups(groups: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    pairs = {
        part: {(rate, 0.0 if part == "language_model" else decay) for rate, decay in given}
        for part, given in groups.items()
    }
    return {part: sorted(list(pair) for pair in given) for part, given in pairs.items()}


def _outcome(
    number: int, facts: Mapping[str, Any], trained: Mapping[str, tuple[float, float]], names: Iterable[str],
    component: Callable[[str], str],
) -> dict[str, Pair]:  # fmt: skip
    """Everything that a case says of one stage."""
    take_known(facts, FACTS, "data")
    frozen = sorted(set(names) - trained.keys())
    found = {
        "optimizer": _optimizer(),
        "groups": _by_component(trained, component),
        "n_trainable": len(trained),
        "n_frozen": len(frozen),
        "frozen_prefixes": sorted({".".join(name.split(".")[:2]) + "." for name in frozen}),
        "no_weight_decay": sorted(
            name for name, (_, decay) in trained.items()
            if not decay and facts["stage"]["weight_decay"] and component(name) != "language_model"
        ),
        "trainable": sorted(trained) if frozen else None,
    }  # fmt: skip
    expected = {**facts, "groups": _expected_groups(facts["groups"])}
    for name in ("frozen_prefixes", "no_weight_decay", "trainable"):
        if expected.get(name) is not None:
            kept = (one for one in expected[name] if name != "no_weight_decay" or component(one) != "language_model")
            expected[name] = sorted(kept)
    return {f"{number}.{name}": Pair(value, expected[name]) for name, value in found.items() if name in expected}


def v1_stages(request: Request) -> Outcome:
    """Every stage of version 1."""

    def component(name: str) -> str:
        return next((part for part, heads in V1_COMPONENTS.items() if name.startswith(heads)), "language_model")

    found: dict[str, Pair] = {}
    for number, facts in enumerate(request.call.extra["data"]):
        stage = take_known(facts["stage"], V1_STAGE, "stage")
        trained = _trained(
            _v1(request.case.config), _v1_rules(stage, request.case.config["requires_cliploss"]), EVE_TRAINING, stage
        )
        assert trained.keys() <= request.case.manifest.keys()
        found |= _outcome(number, facts, trained, request.case.manifest, component)
    return found


def v2_stages(request: Request) -> Outcome:
    """Every stage of version 2."""

    def component(name: str) -> str:
        if name.startswith("model.vision_tower."):
            return "vision_tower"
        return "vision_branch" if "moe" in name else "language_model"

    found: dict[str, Pair] = {}
    for number, facts in enumerate(request.call.extra["data"]):
        stage = take_known(facts["stage"], V2_STAGE, "stage")
        model = _v2(request.case.config, stage["moe_part"])
        naming = EVE_V2_STAGE0 if stage["moe_part"] is None else EVE_V2
        trained = _trained(model, _v2_rules(stage, request.case.config["tie_word_embeddings"]), naming, stage)
        names = naming.save({name: parameter.detach() for name, parameter in model.named_parameters()})
        assert names.keys() <= request.case.manifest.keys()
        values = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        found |= _outcome(number, facts, trained, names, component)
        found[f"{number}.trainable_params"] = Pair(values, facts["trainable_params"])
    return found


@torch.no_grad()
def vision_branch(request: Request) -> Outcome:
    """Which text weight each weight for pictures is a copy of: every tensor is filled with a number of its own."""
    config = request.case.config
    model = _v2(config, config["moe_part"])
    for number, parameter in enumerate(model.parameters()):
        parameter.fill_(number)
    for block in model.modules():
        if isinstance(block, DecoupledBlock):
            block.copy_text_weights()
    published = EVE_V2.save({name: parameter.detach() for name, parameter in model.named_parameters()})
    values = {name: float(tensor.flatten()[0]) for name, tensor in published.items()}
    text = {value: name for name, value in values.items() if "moe" not in name}
    return {
        "copied": Pair(
            {name: text[value] for name, value in values.items() if "moe" in name}, request.call.extra["data"]
        )
    }


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"create_optimizer", lambda case, call: "preprocessor" in case.config)(v1_stages)
    system.call(r"create_optimizer", lambda case, call: "preprocessor" not in case.config)(v2_stages)
    system.call(r"vision branch initialisation")(vision_branch)
