"""`mmzoo plan VARIANT|RECIPE [option=value | override ...]`: parameters, memory and FLOPs, on the meta device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.catalogue import list_models, list_recipes
from multimodal_zoo.commands import plan_fuse
from multimodal_zoo.commands.options import names, taken
from multimodal_zoo.commands.values import flag, listed, number, size_in_bytes, whole

if TYPE_CHECKING:
    from multimodal_zoo.analysis.costs import Costs


@dataclass(frozen=True)
class Options:
    """What may stand behind a variant or recipe, as words; every other word is an override of either.

    Attributes:
        text_length: tokens of a text of a dual encoder; its own context length if left out.
        context_length: tokens of a row of a decoder; all of its positions if left out.
        image_size: side of the pictures, in pixels, of a visual tokenizer.
        json: whether plain numbers are printed.
        device_memory: of one device, 80GB say: what fits is told.
        tflops: 10^12 operations a second that one device sustains: the time of a step is told.
        tensor_parallel: devices that share each block's matrices in inference.
        frozen: patterns of names of weights that do not train, of a variant.
        only: patterns of names of the only weights that train, of a variant.
        as_trained: whether batch, length, strategy, devices, precision, recomputation and optimiser are the recipe's.
    """

    text_length: str = ""
    context_length: str = ""
    image_size: str = ""
    json: str = "false"
    device_memory: str = ""
    tflops: str = ""
    tensor_parallel: str = "1"
    frozen: str = ""
    only: str = ""
    as_trained: str = "false"


OPTIONS = {"options": Options, "how it trains": Setting, "of mmzoo plan fuse": plan_fuse.Options}


def main(arguments: list[str]) -> int:
    """Print what a variant, or the model of a recipe, costs; `json=true` prints plain numbers.

    All of a variant trains but for `frozen=[PATTERN,...]` or `only=[PATTERN,...]`; of a recipe what its `optim.groups`
    say. `as_trained=true` takes batch, length, strategy, devices, precision, recomputation and optimiser from the
    recipe too.

    Raises:
        ValueError: no variant, or an option whose value does not fit; a pattern that matches no weight.
        KeyError: an unknown variant, with the nearest.
    """
    if arguments[:1] == ["fuse"]:
        return plan_fuse.main(arguments[1:])
    if not arguments or "=" in arguments[0]:
        raise ValueError(f"mmzoo plan needs a variant or a recipe first, or fuse; variants: {', '.join(list_models())}")
    from rich.console import Console

    variant, *words = arguments
    known = names(Setting, Options)
    options, overrides = taken(words, known)
    as_json = flag("json", options.pop("json", "false"))
    try:
        config, rules, options = declared(variant, overrides, options)
    except KeyError as error:
        if overrides and hasattr(error, "add_note"):
            error.add_note(f"mmzoo plan takes {', '.join(known)}, and overrides of the model")
        raise
    found = _plan(variant, config, rules, options)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        Console().print(found)
    return 0


def declared(
    name: str, overrides: Sequence[str], options: Mapping[str, str]
) -> tuple[Mapping[str, Any], dict[str, Any], dict[str, str]]:
    """The `model:` node of a variant or recipe, the arguments of `freeze`, and the options with those of the recipe.

    Args:
        name: of a variant or recipe.
        overrides: of either.
        options: of the command.

    Raises:
        ValueError: an option that does not suit what is planned.
    """
    from omegaconf import OmegaConf

    from multimodal_zoo.commands.plan_recipe import trained_as
    from multimodal_zoo.config import compose_whole
    from multimodal_zoo.zoo import declaration

    as_trained = flag("as_trained", options.get("as_trained", "false"))
    options = {key: value for key, value in options.items() if key != "as_trained"}
    if name in list_models() or name not in list_recipes():
        if as_trained:
            raise ValueError(f"as_trained=true: {name} is no recipe, which alone says how it trains")
        given = {key: listed(options.get(key, "[]")) for key in ("frozen", "only")}
        return declaration(name, overrides), {**given, "path": ""}, options
    if twice := [key for key in ("frozen", "only") if key in options]:
        key = twice[0]
        raise ValueError(f"{key}={options[key]}: a recipe says itself what trains; override optim.groups.{key}")
    recipe = compose_whole(name, overrides)
    if "model" not in recipe:
        raise ValueError(f"mmzoo plan {name}: it has stages and no model of its own; plan the recipe of a stage")
    config = OmegaConf.to_container(recipe.model, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    groups = recipe.optim.get("groups") or {}
    # parameters of the objective are not part of a plan
    given = {key: [p for p in groups.get(key) or [] if not p.startswith("objective.")] for key in ("frozen", "only")}
    if as_trained:
        options = trained_as(recipe, recipe.hydra.runtime.choices, options)
    return {str(key): value for key, value in config.items()}, {**given, "path": "optim.groups."}, options


def _plan(variant: str, config: Mapping[str, Any], rules: Mapping[str, Any], options: Mapping[str, str]) -> Costs:
    """The plan that suits the kind of variant."""
    from multimodal_zoo.analysis import Device, decoder_plan, plan, sample_of, sample_plan
    from multimodal_zoo.analysis.samples import SIDE
    from multimodal_zoo.nn.frozen import freeze
    from multimodal_zoo.zoo import build_model

    given = {key: _typed(Setting, key, value) for key, value in options.items() if key in names(Setting)}
    device = Device(
        size_in_bytes("device_memory", options.get("device_memory", "0GB")),
        number("tflops", options.get("tflops", "0")),
    )
    positions = (config.get("decoder") or {}).get("max_positions")
    model = build_model(config, device="meta")
    freeze(dict(model.named_parameters()), **rules)
    if positions is not None:
        return decoder_plan(
            model,
            name=variant,
            context_length=whole("context_length", options.get("context_length", positions)),
            setting=Setting(**{"batch_size": 1, **given}),
            device=device,
            shared_by=whole("tensor_parallel", options.get("tensor_parallel", 1)),
        )
    if (sample := sample_of(model, config, whole("image_size", options.get("image_size", SIDE)))) is not None:
        return sample_plan(model, sample, name=variant, setting=Setting(**{"batch_size": 1, **given}), device=device)
    if "image" not in config or "text" not in config:
        raise ValueError(f"mmzoo plan does not know how {variant} is run: try mmzoo describe")
    return plan(
        model,
        name=variant,
        image_size=int(config["image"]["image_size"]),
        text_length=whole("text_length", options.get("text_length", config["text"]["context_length"])),
        setting=Setting(**given),
        device=device,
    )


def _typed(setting: type, key: str, value: str) -> Any:
    default = getattr(setting(), key)
    return whole(key, value) if isinstance(default, int) else value
