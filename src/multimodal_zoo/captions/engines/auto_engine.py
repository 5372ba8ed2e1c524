"""The engine that fits a model and a machine: llama.cpp for a GGUF file on a CPU, else transformers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from multimodal_zoo.captions.engine import Engine
from multimodal_zoo.captions.engines.model_files import find_model
from multimodal_zoo.captions.hardware import device_of
from multimodal_zoo.registry import CAPTIONS, build

logger = logging.getLogger(__name__)


@CAPTIONS.register_module(name="auto_engine")
def auto_engine(
    model: str,
    *,
    layout: str = "plain",
    max_new_tokens: int = 80,
    stop: Sequence[str] = (),
    timeout: float | None = None,
    device: str = "auto",
) -> Engine:
    """`llama_cpp_engine` for a GGUF file on a CPU, if xllamacpp is installed; else `transformers_engine`.

    Both take the likeliest token at every step; their answers differ, as llama.cpp multiplies quantised numbers. Which
    one it is goes to the log, and into the manifest of a run: one that began with another refuses to go on.

    Args:
        model: a folder of Hugging Face, a `.gguf` file, `package:NAME`, or `hf://organisation/repository`.
        layout: `plain`, the answer continues the prompt; or `chat`, the prompt is what a user says.
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer and are no part of it.
        timeout: seconds that a batch may take, of llama.cpp an answer; None for any.
        device: a torch device, or auto: a GPU where there is one.

    Raises:
        FileNotFoundError, ValueError: no such model, or a value that cannot be.
    """
    kind, reason = _choice(model, device)
    logger.info("fusion_engine=auto takes %s: %s", kind, reason)
    config: dict[str, Any] = {
        "type": kind,
        "model": model,
        "layout": layout,
        "max_new_tokens": max_new_tokens,
        "stop": list(stop),
        "timeout": timeout,
    }
    if kind == "transformers_engine":
        config["device"] = device
    engine: Engine = build(config, path="fusion_engine")
    return engine


def _choice(model: str, device: str) -> tuple[str, str]:
    """The type of an engine, and why it is that one."""
    found, place = find_model(model), device_of(device, "fusion_engine")
    if not found.is_gguf:
        return "transformers_engine", f"{model} is no GGUF file"
    if place != "cpu":
        return "transformers_engine", f"there is {place}"
    if find_spec("xllamacpp") is None:
        return "transformers_engine", "pip install 'multimodal_zoo[llama_cpp]' gives a faster one for GGUF files"
    return "llama_cpp_engine", "a GGUF file on a CPU"
