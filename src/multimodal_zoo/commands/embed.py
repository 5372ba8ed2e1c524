"""`mmzoo embed SOURCE data=NAME out=FILE.parquet|FILE.npz`: embed any reader's images and texts into shards."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from multimodal_zoo.files import atomic_file, write_text

if TYPE_CHECKING:
    import numpy as np
    import torch

    from multimodal_zoo.data.documents import Document
    from multimodal_zoo.evaluation.features import Counter

Columns = dict[str, "list[Any] | np.ndarray"]


def run(config: DictConfig) -> float | None:
    """Embed what the configuration names.

    `out=embeddings.parquet` becomes `embeddings-00000.parquet`, `embeddings-00001.parquet`, ... of `shard_size`
    documents each, and `embeddings.json`, which says what is in them. A shard appears whole or not at all; started
    again, the command skips the shards that are there.

    Args:
        config: see `conf/base/embed.yaml`.

    Raises:
        ValueError: nothing to embed, random weights, a suffix other than .parquet or .npz, or an `out` that holds the
            embeddings of another model, data or configuration.
    """
    import torch

    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.registry import build

    shards = Shards.open(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    model = load_model(config, "embed").to(device)
    described = reader_config(config.data)
    reader = build(described, path="data")
    shards.claim(described, bool(config.images), bool(config.texts), model)
    total = embed(model, reader, shards, config.batch_size, device, images=config.images, texts=config.texts)
    print(f"{total:,} documents in {shards.pattern()}")
    return None


def reader_config(data: DictConfig) -> dict[str, Any]:
    """The reader in a data configuration: itself, or the training reader of a data module.

    Raises:
        ValueError: neither.
    """
    reader = data.train if isinstance(data.get("train"), DictConfig) else data
    if "type" not in reader:
        keys = ", ".join(map(str, data))
        raise ValueError(f"data: needs a reader with a type (or a data module with train), got keys {keys}")
    # only the reader is resolved: a data module's augmentation may refer to a model that `source` does not declare
    plain: Any = OmegaConf.to_container(reader, resolve=True, throw_on_missing=True)
    return plain


@dataclass(frozen=True)
class Shards:
    """Numbered files of embeddings.

    Attributes:
        out: the name that the files are numbered after; its suffix decides the format.
        size: documents in each file but the last.
    """

    out: Path
    size: int

    @classmethod
    def open(cls, config: DictConfig) -> Shards:
        """Check `out`, `shard_size` and the choice of columns before a model is loaded."""
        shards = cls(Path(config.out).resolve(), int(config.shard_size))
        if shards.out.suffix not in WRITERS:
            raise ValueError(f"out: {config.out} must end in {' or '.join(WRITERS)}")
        if shards.size < 1 or config.batch_size < 1:
            raise ValueError(f"shard_size: {shards.size} and batch_size: {config.batch_size} must be 1 or more")
        if not config.images and not config.texts:
            raise ValueError("images, texts: both are false, so there is nothing to embed; set one to true")
        shards.out.parent.mkdir(parents=True, exist_ok=True)
        return shards

    def path(self, number: int) -> Path:
        """The file of one shard."""
        return self.out.with_name(f"{self.out.stem}-{number:05d}{self.out.suffix}")

    def pattern(self) -> str:
        """All files, as a shell would name them."""
        return str(self.out.with_name(f"{self.out.stem}-*{self.out.suffix}"))

    @property
    def manifest(self) -> Path:
        """The file that says what the shards hold."""
        return self.out.with_suffix(".json")

    def claim(self, reader: Mapping[str, Any], images: bool, texts: bool, model: Any) -> None:
        """Write the manifest, or make sure that the one that is there says the same.

        Args:
            reader: configuration of the data.
            images: whether pictures are embedded.
            texts: whether texts are.
            model: its weights are noted by their fingerprint.

        Raises:
            ValueError: it belongs to other weights, data or settings.
        """
        from multimodal_zoo.evaluation.environment import environment, fingerprint

        settings = {"data": dict(reader), "images": images, "texts": texts, "shard_size": self.size}
        same = {**settings, "weights": fingerprint(model)}
        if self.manifest.is_file():
            before = json.loads(self.manifest.read_text(encoding="utf-8"))
            differing = [key for key in same if before.get(key) != same[key]]
            if differing:
                raise ValueError(
                    f"out: {self.manifest} was written with other {', '.join(differing)}; choose another out, or "
                    f"delete it and {self.pattern()}"
                )
            return
        source = str(getattr(model, "weights", "unknown"))
        self.note({**same, "source": source, "environment": environment(), "complete": False})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add to the manifest."""
        before = json.loads(self.manifest.read_text(encoding="utf-8")) if self.manifest.is_file() else {}
        write_text(self.manifest, json.dumps({**before, **facts}, indent=1, default=str))

    def finish(self, documents: int, skipped: str) -> None:
        """Mark the set of shards as complete.

        Raises:
            ValueError: it was complete before, with another number of documents: the data changed.
        """
        before = json.loads(self.manifest.read_text(encoding="utf-8")) if self.manifest.is_file() else {}
        if before.get("complete") and before["documents"] != documents:
            raise ValueError(
                f"data: {documents} documents now, {before['documents']} when {self.pattern()} was written; delete "
                f"{self.manifest} and the shards, or choose another out"
            )
        self.note({"complete": True, "documents": documents, "skipped": skipped})

    def write(self, number: int, columns: Columns) -> None:
        """Write one shard; it appears under its name only when it is complete."""
        path = self.path(number)
        with atomic_file(path) as partial:
            WRITERS[path.suffix](partial, columns)


def embed(
    model: Any,
    reader: Any,
    shards: Shards,
    batch_size: int,
    device: torch.device,
    *,
    images: bool = True,
    texts: bool = True,
) -> int:
    """Embed a reader's documents shard by shard, leaving out the shards that exist.

    Args:
        model: with its processor.
        reader: documents in an order that does not change between runs.
        shards: where to.
        batch_size: documents per forward pass.
        device: where the model lies.
        images: whether the pictures are embedded.
        texts: whether the first text of each document is embedded.

    Returns:
        number of documents in all shards.

    Raises:
        ValueError: a reader without any document, or embeddings that are not finite.
    """
    from multimodal_zoo.evaluation.features import Counter
    from multimodal_zoo.evaluation.samples import describe, documents_of, size_of, skipped

    documents, done, number = documents_of(reader), 0, 0
    with Counter("documents", size_of(reader)) as counter:
        while True:
            chunk = _counted(islice(documents, shards.size), counter)
            if shards.path(number).is_file():
                size = sum(1 for _ in chunk)
            else:
                columns = _columns(model, chunk, batch_size, device, images, texts)
                size = len(columns["key"])
                if size:
                    shards.write(number, {"index": list(range(done, done + size)), **columns})
            done, number = done + size, number + 1
            if size < shards.size:
                break
    if not done:
        raise ValueError(f"data: {describe(reader)} has no usable document: {skipped(reader) or 'it is empty'}")
    shards.finish(done, skipped(reader))
    return done


def _counted(documents: Iterable[Document], counter: Counter) -> Iterator[Document]:
    for document in documents:
        yield document
        counter.advance(1)


def _columns(
    model: Any, documents: Iterator[Document], batch_size: int, device: torch.device, images: bool, texts: bool
) -> Columns:
    """Embed one shard's documents; the pictures stream past, they are never all in memory."""
    from multimodal_zoo.evaluation.features import embed_images
    from multimodal_zoo.evaluation.samples import text_embeddings, texts_of

    keys: list[str] = []
    captions: list[str] = []

    def noted() -> Iterator[Document]:
        """The documents, their keys and captions noted in passing."""
        for document in documents:
            keys.append(document.key)
            captions.append((texts_of(document) or [""])[0])
            yield document

    columns: Columns = {"key": keys, "text": captions}
    stream = noted()
    first = next(stream, None)
    if first is None:
        return columns
    if images:
        pictures = (document.image for document in chain([first], stream))
        prepare = model.processor.images
        columns["image_embedding"] = embed_images(
            model, pictures, prepare, batch_size=batch_size, device=device
        ).numpy()
    else:
        deque(stream, maxlen=0)  # only the notes are wanted
    if texts:
        embeddings = text_embeddings(model, model.processor, captions, batch_size=batch_size, device=device)
        columns["text_embedding"] = embeddings.numpy()
    return columns


def _write_npz(path: Path, columns: Columns) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez(file, **{name: np.asarray(values) for name, values in columns.items()})  # type: ignore[arg-type]


def _write_parquet(path: Path, columns: Columns) -> None:
    import numpy as np

    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "out: a .parquet file needs pyarrow: pip install 'multimodal_zoo[eval]', or write .npz", name=error.name
        ) from None
    arrays = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            flat = pa.array(values.reshape(-1))
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            arrays[name] = pa.array(values)
    parquet.write_table(pa.table(arrays), path)


#: Suffix of `out` -> writer of one shard.
WRITERS: dict[str, Callable[[Path, Columns], None]] = {".parquet": _write_parquet, ".npz": _write_npz}
