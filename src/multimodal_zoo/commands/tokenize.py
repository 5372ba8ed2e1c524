"""`mmzoo tokenize SOURCE DATA out=FOLDER`: pictures and clips to codes, in shards that a later run goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig


def run(config: DictConfig) -> float | None:
    """Encode what the configuration names.

    A part appears whole or not at all; started again, the command goes on behind the parts that are there.

    Args:
        config: see `conf/base/tokenize.yaml`.

    Raises:
        ValueError: nothing to encode, random weights, a model without a visual tokenizer, or a folder that holds the
            codes of another model, data or configuration.
    """
    from multimodal_zoo.commands.embed import reader_config
    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.commands.machine import device_of, use_threads
    from multimodal_zoo.data.code_folder import CodeFolder
    from multimodal_zoo.data.places import in_order
    from multimodal_zoo.data.skips import Skips
    from multimodal_zoo.data.tokenizing import Tokenizing
    from multimodal_zoo.evaluation.environment import fingerprint
    from multimodal_zoo.registry import build

    folder = CodeFolder(Path(config.out).resolve(), str(config.format), int(config.rank), int(config.ranks))
    described = reader_config(config.get("data"))
    use_threads(config.threads)
    device = device_of(config.device)
    order = in_order(build(described, path="data"), folder.rank, folder.ranks)
    model = load_model(config, "tokenize").to(device)
    encoder = require_tokenizer(model)
    sizes = {key: int(config[key]) for key in ("shard_size", "batch_size", "workers")}
    job = Tokenizing(encoder, model.processor.transform, device, **sizes)
    folder.claim(
        {
            "data": described,
            "contents": order.contents(),
            "weights": fingerprint(encoder),
            "codebook_size": encoder.codebook_size,
            "images": model.processor.transform.facts(),
            "shard_size": sizes["shard_size"],
        }
    )
    state = job(order, folder)
    print(f"{state.documents:,} documents in {state.shards} part{'s' * (state.shards != 1)}: {folder.path}")
    if state.skipped:
        print(Skips.of(state.skipped, state.examples))
    if not folder.finish():
        print(f"rank {folder.rank} of {folder.ranks} is through; {folder.path} is complete when all are")
    return None


def require_tokenizer(model: Any) -> Any:
    """The visual tokenizer of a model, or the model if it is one.

    Raises:
        ValueError: it is none and has none.
    """
    found = getattr(model, "vision_tokenizer", None) or model
    if not hasattr(found, "codebook_size") or not hasattr(getattr(model, "processor", None), "transform"):
        name = getattr(model, "variant", None) or type(model).__name__
        raise ValueError(f"source: {name} has no visual tokenizer; give one, or a model that has one")
    return found
