"""Video-text pairs in tar shards: video + txt + json under one key, as downloaders of web videos write them."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.media import Media
from multimodal_zoo.data.shard_reader import ShardReader
from multimodal_zoo.data.shards import RawSample, find_image
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.webdataset_pairs import caption_of, facts_of
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="webdataset_videos")
class WebdatasetVideos(ShardReader):
    """Pairs read in a stream from tar shards, a few frames of each video.

    Args:
        sources: as in `webdataset_pairs`.
        streams: as in `webdataset_pairs`.
        shuffle: as in `webdataset_pairs`; whole encoded videos are held.
        samples_per_epoch: as in `webdataset_pairs`.
        media: how a video is read (`video_frames`).
        caption: as in `webdataset_pairs`.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        streams: int,
        shuffle: int,
        samples_per_epoch: int | None,
        media: Media,
        caption: str = "txt",
    ) -> None:
        super().__init__("webdataset_videos", sources, streams, shuffle, samples_per_epoch)
        self.media, self.caption = media, caption

    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample: a video and its text.

        Raises:
            UnusableError: no video, no caption, or a video that cannot be read.
        """
        key = sample["__key__"]
        encoded = find_image(sample, self.media.suffixes)
        if encoded is None:
            raise UnusableError("missing video", key)
        facts = facts_of(sample)
        text = caption_of(sample, facts, self.caption)
        if not text:
            raise UnusableError("missing caption", key)
        return Document([self.media.read(encoded, key), Text(text)], {"key": key, **facts, "shard": sample["__url__"]})
