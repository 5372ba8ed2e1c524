"""Documents with visual codes in tar shards: one JSON file of texts and facts, and one array for each picture or clip.

A sample `KEY` has the members `KEY.json` and `KEY.0.npy`, `KEY.1.npy`, ...; arrays are read without pickle.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.data.documents import Codes, Document, Segment, Text, code_array
from multimodal_zoo.data.export import SURROGATES, add_member, is_plain
from multimodal_zoo.data.shard_reader import ShardReader
from multimodal_zoo.data.shards import RawSample
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.files import atomic_file, parsed
from multimodal_zoo.registry import DATASETS


def pack(document: Document) -> dict[str, bytes]:
    """The members of a document by their suffix.

    Raises:
        ValueError: a picture or clip that is not encoded.
    """
    segments: list[dict[str, Any]] = []
    members: dict[str, bytes] = {}
    for segment in document.segments:
        if isinstance(segment, Text):
            segments.append({"text": segment.text, "role": segment.role})
        elif isinstance(segment, Codes):
            buffer = io.BytesIO()
            kept = np.asarray(segment.codes)
            kept = kept.astype(np.uint16 if kept.size and kept.min() >= 0 and kept.max() < 2**16 else np.int32)
            np.save(buffer, kept, allow_pickle=False)
            segments.append({"codes": len(members), "rate": segment.rate})
            members[f"{len(members)}.npy"] = buffer.getvalue()
        else:
            raise ValueError(f"document {document.key!r} has a {type(segment).__name__.lower()} that is not encoded")
    meta = {key: value for key, value in document.meta.items() if is_plain(value)}
    members["json"] = json.dumps({"segments": segments, "meta": meta}, ensure_ascii=False).encode(*SURROGATES)
    return members


def unpack(sample: RawSample) -> Document:
    """The document of a sample's members.

    Raises:
        UnusableError: members that are missing or damaged.
    """
    key = str(sample["__key__"])
    try:
        facts = parsed(sample["json"])
        segments = [_segment(one, sample) for one in facts["segments"]]
        meta = {"key": key, **facts["meta"], "shard": sample.get("__url__", "")}
    except Exception as error:  # damaged bytes raise nearly anything
        raise UnusableError("broken codes", key) from error
    return Document(segments, meta)


def _segment(facts: dict[str, Any], sample: RawSample) -> Segment:
    if "text" in facts:
        return Text(str(facts["text"]), facts.get("role"))
    codes = np.load(io.BytesIO(sample[f"{int(facts['codes'])}.npy"]), allow_pickle=False)
    return Codes(code_array(codes, 2, 3), facts.get("rate"))


def write_codes(path: Path, documents: Sequence[Document], first: int) -> None:
    """Write documents as one shard, which appears under its name when it is complete.

    Args:
        path: of the tar file.
        documents: encoded ones.
        first: number of the first, for the samples' names.
    """
    with atomic_file(path) as partial, tarfile.open(partial, "w") as tar:
        for number, document in enumerate(documents, start=first):
            for suffix, content in pack(document).items():
                add_member(tar, f"{path.stem}-{number:08d}.{suffix}", content)


@DATASETS.register_module(name="visual_codes")
class VisualCodes(ShardReader):
    """Documents that `mmzoo tokenize` has encoded, read in a stream from tar shards, local or remote.

    Args:
        sources: shard patterns; see `shards.expand`.
        streams: shards that each rank reads at a time; as in `webdataset_pairs`.
        shuffle: samples that each stream holds in memory to draw from.
        samples_per_epoch: as in `webdataset_pairs`; packed batches and mixtures need none.

    Raises:
        FileNotFoundError: a local pattern that matches nothing.
        ValueError: fewer than one stream.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        streams: int = 1,
        shuffle: int = 1,
        samples_per_epoch: int | None = None,
    ) -> None:
        super().__init__("visual_codes", sources, streams, shuffle, samples_per_epoch)

    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample.

        Raises:
            UnusableError: members that are missing or damaged.
        """
        return unpack(sample)
