"""`mmzoo plan VARIANT [option=value | override ...]`: parameters, memory and FLOPs, computed on the meta device."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from multimodal_zoo.catalogue import list_models

#: Options of the command beside those of the training setting; every other word is an override of the variant.
OPTIONS = ("text_length", "json")


def main(arguments: list[str]) -> int:
    """Print what a variant costs; `json=true` prints plain numbers.

    Raises:
        ValueError: no variant, or an option whose value does not fit.
        KeyError: an unknown variant, with the nearest.
    """
    if not arguments or "=" in arguments[0]:
        raise ValueError(f"mmzoo plan needs a variant first: {', '.join(list_models())}")
    from rich.console import Console

    from multimodal_zoo.analysis import Setting, plan
    from multimodal_zoo.zoo import build_model, declaration

    variant, *words = arguments
    settings = {field.name for field in fields(Setting)}
    options = dict(word.split("=", 1) for word in words if word.split("=", 1)[0] in (settings | set(OPTIONS)))
    overrides = [word for word in words if word.split("=", 1)[0] not in options]
    config = declaration(variant, overrides)
    found = plan(
        build_model(config, device="meta"),
        name=variant,
        image_size=int(config["image"]["image_size"]),
        text_length=_number("text_length", options.get("text_length", config["text"]["context_length"])),
        setting=Setting(**{key: _typed(Setting, key, value) for key, value in options.items() if key in settings}),
    )
    if options.get("json") == "true":
        print(json.dumps(found.as_dict(), indent=2))
    else:
        Console().print(found)
    return 0


def _typed(setting: type, key: str, value: str) -> Any:
    default = getattr(setting(), key)
    return _number(key, value) if isinstance(default, int) else value


def _number(key: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{key}={value}: expected a whole number") from None
