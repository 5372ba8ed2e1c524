"""`mmzoo embed SOURCE DATA out=FOLDER`: images and texts to shards of embeddings, which a later run goes on with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from multimodal_zoo.data.documents import Document
    from multimodal_zoo.data.skips import Skips
    from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder


def run(config: DictConfig) -> float | None:
    """Embed what the configuration names.

    A shard appears whole or not at all; started again, the command goes on behind the shards that are there.

    Args:
        config: see `conf/base/embed.yaml`.

    Raises:
        ValueError: nothing to embed, random weights, an unknown format, or a folder that holds the embeddings of
            another model, data or configuration.
    """
    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.commands.machine import device_of, use_threads
    from multimodal_zoo.data.places import in_order
    from multimodal_zoo.evaluation.embedding import Settings, embed, settle
    from multimodal_zoo.evaluation.environment import fingerprint, require_vectors
    from multimodal_zoo.registry import build

    folder = open_folder(config)
    settings = Settings(**{key: config[key] for key in Settings.__dataclass_fields__})
    described = reader_config(config.get("data"))
    use_threads(config.threads)
    device = device_of(config.device)
    order = in_order(build(described, path="data"), folder.rank, folder.ranks)
    model = load_model(config, "embed").to(device)
    if hasattr(model, "regression_head"):
        store_visual(config, model, (found.document for found in order.after(None)), order.skips)
        return None
    require_vectors(model, "embed")
    settings = settle(settings, order)
    same = {
        "format": folder.suffix,
        **{key: getattr(settings, key) for key in ("images", "texts", "dtype", "shard_size")},
        "ranks": folder.ranks,
        "data": described,
        "contents": order.contents(),
        "weights": fingerprint(model),
    }
    folder.claim(same, about_model(config, model))
    report(embed(model, order, folder, settings, device), folder)
    return None


def store_visual(config: DictConfig, model: Any, documents: Iterable[Document], skips: Skips) -> None:
    """Write the visual embeddings of all pictures, for training of Emu or Emu2 behind a frozen encoder.

    Args:
        config: `out`, `dtype`, `batch_size`, `shard_size`.
        model: an `Emu`.
        documents: whose pictures are encoded.
        skips: counts those that cannot be read.

    Raises:
        ValueError: several processes, whose files would mix.
    """
    if int(config.ranks) > 1:
        raise ValueError(f"ranks is {config.ranks}; visual embeddings are stored by one process: ranks=1")
    from multimodal_zoo.data.visual_store import VisualStoreWriter
    from multimodal_zoo.evaluation.environment import fingerprint
    from multimodal_zoo.inference.visual_features import seeing_parts, store_pictures

    facts = {"width": model.visual_width, "weights": fingerprint(seeing_parts(model))}
    writer = VisualStoreWriter(config.out, facts, config.dtype, config.shard_size)
    encoded = store_pictures(model, documents, writer, config.batch_size, skips)
    print(f"{encoded:,} pictures in {config.out}: model.processor.store={{type: visual_store, folder: {config.out}}}")
    if len(skips):
        print(skips)


def open_folder(config: DictConfig) -> EmbeddingFolder:
    """Check `out`, `format`, `rank` and `ranks` before anything is loaded.

    Raises:
        ValueError: one of them does not fit.
    """
    from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
    from multimodal_zoo.evaluation.shard_files import FORMATS, require_format

    rank, ranks = int(config.rank), int(config.ranks)
    if not 0 <= rank < ranks:
        raise ValueError(f"rank: {rank} of ranks: {ranks}; ranks count from 0")
    require_format(config.format)
    place = Path(config.out).resolve()
    if place.suffix[1:] in FORMATS or place.is_file():
        raise ValueError(f"out: {config.out} must be a folder; the files in it get format={' or '.join(FORMATS)}")
    return EmbeddingFolder(place, str(config.format), rank, ranks)


def reader_config(data: DictConfig | None) -> dict[str, Any]:
    """The reader in a data configuration: itself, or the training reader of a data module.

    Raises:
        ValueError: none of them.
    """
    if data is None:
        raise ValueError(
            "data: nothing to embed; give a folder of pictures, a table (csv, parquet, ...), tar shards, or the name "
            "of a data configuration behind the model: mmzoo embed SOURCE DATA out=FOLDER"
        )
    reader = data.train if isinstance(data.get("train"), DictConfig) else data
    if "type" not in reader:
        keys = ", ".join(map(str, data))
        raise ValueError(f"data: needs a reader with a type (or a data module with train), got keys {keys}")
    # only the reader is resolved: a data module's augmentation may refer to a model that `source` does not declare
    plain: Any = OmegaConf.to_container(reader, resolve=True, throw_on_missing=True)
    return plain


def about_model(config: DictConfig, model: Any) -> dict[str, Any]:
    """What a manifest says of the model: enough to load the same one again."""
    from multimodal_zoo.evaluation.environment import environment

    node = OmegaConf.to_container(config.model, resolve=True) if config.get("model") is not None else None
    weights = config.weights
    if weights is not None and Path(weights).exists():
        weights = str(Path(weights).resolve())
    loaded = {"source": config.source, "weights": weights, "model": node, "allow_random": bool(config.allow_random)}
    loaded["resize"] = bool(config.get("resize", False))
    return {
        "model": loaded,
        "variant": getattr(model, "variant", None),
        "loaded_from": str(getattr(model, "weights", "unknown")),
        "embed_dim": getattr(model, "embed_dim", None),
        "environment": environment(),
    }


def report(manifest: dict[str, Any], folder: EmbeddingFolder) -> None:
    """Print what a run came to."""
    from multimodal_zoo.data.skips import Skips
    from multimodal_zoo.evaluation.throughput import in_words

    if not manifest["complete"]:
        print(f"rank {folder.rank} of {folder.ranks} is through; {folder.path} is complete when all are")
        return
    rates = in_words(manifest["per_second"])
    documents = f"{manifest['documents']:,} document{'s' * (manifest['documents'] != 1)}"
    print(f"{documents} in {manifest['shards']} file{'s' * (manifest['shards'] != 1)}, {rates}: {folder.path}")
    if manifest["skipped"]:
        print(Skips.of(manifest["skipped"], manifest["skipped_examples"]))
