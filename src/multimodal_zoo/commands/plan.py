"""`mmzoo plan VARIANT [option=value | override ...]`: parameters, memory and FLOPs, computed on the meta device."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from multimodal_zoo.catalogue import list_models

if TYPE_CHECKING:
    from multimodal_zoo.analysis import DecoderPlan, Plan

#: Options of the command beside those of the training setting; every other word is an override of the variant.
OPTIONS = ("text_length", "context_length", "json", "device_memory", "tflops", "tensor_parallel")


def main(arguments: list[str]) -> int:
    """Print what a variant costs; `json=true` prints plain numbers.

    Raises:
        ValueError: no variant, or an option whose value does not fit.
        KeyError: an unknown variant, with the nearest.
    """
    if not arguments or "=" in arguments[0]:
        raise ValueError(f"mmzoo plan needs a variant first: {', '.join(list_models())}")
    from rich.console import Console

    from multimodal_zoo.analysis import Setting
    from multimodal_zoo.zoo import declaration

    variant, *words = arguments
    settings = {field.name for field in fields(Setting)}
    options = dict(word.split("=", 1) for word in words if word.split("=", 1)[0] in (settings | set(OPTIONS)))
    overrides = [word for word in words if word.split("=", 1)[0] not in options]
    try:
        config = declaration(variant, overrides)
    except KeyError as error:
        if overrides and hasattr(error, "add_note"):
            error.add_note(f"mmzoo plan takes {', '.join([*sorted(settings), *OPTIONS])}, and overrides of the model")
        raise
    found = _plan(variant, config, options)
    if options.get("json") == "true":
        print(json.dumps(found.as_dict(), indent=2))
    else:
        Console().print(found)
    return 0


def _plan(variant: str, config: Mapping[str, Any], options: Mapping[str, str]) -> Plan | DecoderPlan:
    """The plan that suits the kind of variant."""
    from multimodal_zoo.analysis import Device, Setting, decoder_plan, plan
    from multimodal_zoo.zoo import build_model

    settings = {field.name for field in fields(Setting)}
    given = {key: _typed(Setting, key, value) for key, value in options.items() if key in settings}
    device = Device(_bytes(options.get("device_memory", "0")), _positive("tflops", options.get("tflops", "0")))
    positions = (config.get("decoder") or {}).get("max_positions")
    if positions is not None:
        return decoder_plan(
            build_model(config, device="meta"),
            name=variant,
            context_length=_number("context_length", options.get("context_length", positions)),
            setting=Setting(**{"batch_size": 1, **given}),
            device=device,
            shared_by=_number("tensor_parallel", options.get("tensor_parallel", 1)),
        )
    if "image" not in config or "text" not in config:
        raise ValueError(f"mmzoo plan knows dual encoders and decoders, {variant} is neither: try mmzoo describe")
    return plan(
        build_model(config, device="meta"),
        name=variant,
        image_size=int(config["image"]["image_size"]),
        text_length=_number("text_length", options.get("text_length", config["text"]["context_length"])),
        setting=Setting(**given),
        device=device,
    )


def _bytes(value: str) -> int:
    found = re.fullmatch(r"([\d.]+)\s*(GB|GiB|MB|MiB)?", value)
    if not found:
        raise ValueError(f"device_memory={value}: expected a number with GB, GiB, MB or MiB, as in 80GB")
    factor = {"GB": 1e9, "GiB": 2**30, "MB": 1e6, "MiB": 2**20, None: 1}[found[2]]
    return int(_positive("device_memory", found[1]) * factor)


def _positive(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number < 0:
        raise ValueError(f"{key}={value}: expected a positive number")
    return number


def _typed(setting: type, key: str, value: str) -> Any:
    default = getattr(setting(), key)
    return _number(key, value) if isinstance(default, int) else value


def _number(key: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{key}={value}: expected a whole number") from None
