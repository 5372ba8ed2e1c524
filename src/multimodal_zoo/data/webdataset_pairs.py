"""Image-text pairs in tar shards as img2dataset writes them (LAION, CC, DataComp): image + txt + json under one key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_zoo.data.documents import Document, Image, pair
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.shard_reader import ShardReader
from multimodal_zoo.data.shards import RawSample, decode_text, find_image
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.files import parsed
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="webdataset_pairs")
class WebdatasetPairs(ShardReader):
    """Pairs read in a stream from tar shards, local or remote.

    Samples without picture or caption, broken pictures, and shards that are cut off or unsafe are counted in `skips`.

    Args:
        sources: shard patterns; see `shards.expand`.
        streams: shards that each rank reads at a time. It decides the order of samples, the number of workers does
            not; workers are a divisor of it. Lowered where there are fewer shards for a rank.
        shuffle: samples that each stream holds in memory, encoded, to draw from.
        samples_per_epoch: pairs of all ranks in what is called an epoch; the streams go on from one to the next. None:
            an epoch is one pass over all shards, which only a single rank can do (ranks' shards differ in length).
        caption: suffix of the caption; a sample's `json` is asked for `caption` if the suffix is not there.
        need_caption: whether a sample without a caption is unusable; else its document has no text.

    Raises:
        FileNotFoundError: a local pattern that matches nothing.
        ValueError: fewer than one stream.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        streams: int,
        shuffle: int,
        samples_per_epoch: int | None,
        caption: str = "txt",
        need_caption: bool = True,
    ) -> None:
        super().__init__("webdataset_pairs", sources, streams, shuffle, samples_per_epoch)
        self.caption, self.need_caption = caption, need_caption

    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample; the picture is decoded as far as its header.

        Raises:
            UnusableError: no picture, no caption, or a picture that cannot be read.
        """
        key = sample["__key__"]
        encoded = find_image(sample)
        if encoded is None:
            raise UnusableError("missing image", key)
        facts = facts_of(sample)
        text = caption_of(sample, facts, self.caption)
        if not text and self.need_caption:
            raise UnusableError("missing caption", key)
        meta = {"key": key, **facts, "shard": sample["__url__"]}
        image = open_picture(encoded, key)
        return pair(image, text, meta) if text else Document([Image(image)], meta)

    def check(self, document: Document) -> None:
        """Decode the whole picture."""
        load(document.image, document.key)  # type: ignore[arg-type]


def facts_of(sample: RawSample) -> dict[str, Any]:
    """The facts in a sample's `json`; none where there is no object in it."""
    try:
        facts = parsed(sample.get("json", b"{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def caption_of(sample: RawSample, facts: dict[str, Any], suffix: str) -> str:
    """The text under a suffix, else the `caption` of the facts, else nothing."""
    return decode_text(sample[suffix]) if suffix in sample else str(facts.get("caption") or "").strip()
