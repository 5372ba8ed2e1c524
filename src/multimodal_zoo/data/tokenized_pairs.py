"""Pairs whose pictures a trained visual tokenizer encodes once, when reading begins."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multimodal_zoo.checkpoints.store import load_weights, recognise
from multimodal_zoo.data.documents import Codes, Document, Image, Segment, code_array
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.size_rule import Emu3ImageTransform
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.data.visual_codes import encode_pictures
from multimodal_zoo.files import atomic_file, reading
from multimodal_zoo.registry import DATASETS, build, self_contained

logger = logging.getLogger(__name__)

#: Pictures that are opened and encoded at a time.
CHUNK = 64


def open_vision_tokenizer(place: str | Path) -> nn.Module:
    """A visual tokenizer with its weights, for inference.

    Args:
        place: a folder or file of one, in any naming that `checkpoints.store.recognise` knows, or of a model that has
            one.

    Raises:
        ValueError: a model without a visual tokenizer.
    """
    source = recognise(place)
    node = {key: value for key, value in self_contained(source.config).items() if key not in ("processor", "card")}
    model: nn.Module = build(node, path="model")
    load_weights(model, source)
    found = getattr(model, "vision_tokenizer", None) or model
    if not hasattr(found, "encode") or not hasattr(found, "codebook_size"):
        raise ValueError(f"{place} holds a {node['type']} without a visual tokenizer; give one that was trained")
    return found.eval().requires_grad_(False)


@DATASETS.register_module(name="tokenized_pairs")
class TokenizedPairs:
    """A reader's documents with codes in place of their first picture, all encoded at once and kept in memory.

    For data that fit into memory as codes (the emoji); larger data are encoded with `mmzoo tokenize`.

    Args:
        reader: numbered documents with a picture each.
        tokenizer: folder or file of a trained visual tokenizer.
        images: the model's image transform (`${model.processor.images}`).
        cache: file (`.npz`) that keeps the codes between runs; it is used again only for the same tokenizer, pictures
            and transform. None keeps none.
        batch_size: pictures encoded at a time.

    Raises:
        TypeError: a reader without numbered documents.
        ValueError: a damaged cache, or a file of something else in its place.
    """

    def __init__(
        self,
        reader: Any,
        tokenizer: str,
        images: Emu3ImageTransform,
        cache: str | None = None,
        batch_size: int = CHUNK,
    ) -> None:
        if not hasattr(reader, "__len__") or not hasattr(reader, "__getitem__"):
            raise TypeError(
                f"tokenized_pairs: {type(reader).__name__} has no numbered documents; encode it with mmzoo tokenize"
            )
        self.reader, self.tokenizer, self.transform, self.batch_size = reader, tokenizer, images, batch_size
        self.skips: Skips = getattr(reader, "skips", Skips())
        self.cache = None if cache is None else Path(cache)
        #: Codes (rows, columns) of each document that has some, by its number.
        self.codes = self._load()

    def __len__(self) -> int:
        return len(self.reader)

    def __getattr__(self, name: str) -> Any:
        if name in ("concepts", "concept_names", "groups", "group_names", "subgroups", "subgroup_names", "attribution"):
            return getattr(self.reader, name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __getitem__(self, index: int) -> Document:
        """The document with codes.

        Raises:
            UnusableError: its picture could not be read or is of a shape that cannot be encoded.
        """
        document: Document = self.reader[index]
        codes = self.codes.get(index % len(self))
        if codes is None:
            raise UnusableError("picture that cannot be encoded", document.key)
        return _with_codes(document, codes)

    def _load(self) -> dict[int, np.ndarray]:
        encoder = open_vision_tokenizer(self.tokenizer)
        facts = self._facts(encoder)
        if self.cache is not None and self.cache.is_file():
            if (kept := self._kept(self.cache, facts, int(encoder.codebook_size))) is not None:  # type: ignore[arg-type]
                return kept
            logger.warning("%s holds codes of another tokenizer or other pictures; they are encoded again", self.cache)
        codes = self._encode(encoder)
        if self.cache is not None:
            with atomic_file(self.cache) as temporary, temporary.open("wb") as file:
                arrays: dict[str, Any] = {str(number): one for number, one in codes.items()}
                np.savez(file, facts=np.array(facts), **arrays)
        return codes

    def _kept(self, path: Path, facts: str, codebook_size: int) -> dict[int, np.ndarray] | None:
        """The codes of a file; None where they are another tokenizer's or of other pictures.

        Raises:
            ValueError: the file is damaged, or is something else.
        """
        way_out = "delete it, and the pictures are encoded again (data.train.cache)"
        with reading(path, "file of codes", way_out), np.load(path, allow_pickle=False) as stored:
            if str(stored["facts"]) != facts:
                return None
            codes = {int(name): code_array(stored[name], 2) for name in stored.files if name != "facts"}
            strange = [number for number, one in codes.items() if one.min() < 0 or one.max() >= codebook_size]
            if strange or not codes.keys() <= set(range(len(self))):
                raise ValueError(f"codes {strange[:3]} of {len(codes)} do not fit {len(self)} documents")
            return codes

    def __iter__(self) -> Iterator[Document]:
        return usable(self)

    def _encode(self, encoder: nn.Module) -> dict[int, np.ndarray]:
        from rich.progress import Progress

        codes: dict[int, np.ndarray] = {}
        with Progress(transient=True) as progress:
            for start in progress.track(range(0, len(self), CHUNK), description="encoding pictures"):
                numbers, pixels = [], []
                for number in range(start, min(start + CHUNK, len(self))):
                    try:
                        pixels += self.transform([self.reader[number].image])  # type: ignore[list-item]
                        numbers.append(number)
                    except (UnusableError, ValueError) as error:
                        logger.debug("document %d: %s", number, error)
                found = encode_pictures(encoder, pixels, batch_size=self.batch_size)  # type: ignore[arg-type]
                codes |= {number: one.numpy().astype(np.int32) for number, one in zip(numbers, found, strict=True)}
        return codes

    def _facts(self, encoder: nn.Module) -> str:
        digest = hashlib.sha256()
        for name, tensor in encoder.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        for number in range(0, len(self), max(1, len(self) // CHUNK)):
            digest.update(self._probe(number))
        told = {
            "weights and pictures": digest.hexdigest(),
            "transform": self.transform.facts(),
            "documents": len(self),
        }
        return json.dumps(told)

    def _probe(self, number: int) -> bytes:
        """What tells a document from others: its key, and its picture where that can be read."""
        try:
            document: Document = self.reader[number]
            picture = np.asarray(load(open_picture(document.image, document.key), document.key))
            return document.key.encode("utf-8", "surrogatepass") + picture.tobytes()
        except UnusableError as error:
            return error.reason.encode()
        except ValueError:  # no picture
            return b""


def _with_codes(document: Document, codes: np.ndarray) -> Document:
    segments: Sequence[Segment] = document.segments
    first = next(place for place, segment in enumerate(segments) if isinstance(segment, Image))
    return Document([*segments[:first], Codes(codes), *segments[first + 1 :]], document.meta)
