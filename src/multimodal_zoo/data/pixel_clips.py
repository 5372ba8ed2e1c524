"""Successive frames of a video, as a visual tokenizer for clips learns from them."""

from __future__ import annotations

from pathlib import Path

from multimodal_zoo.data.documents import Video
from multimodal_zoo.data.media import VideoFrames
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="successive_frames")
class SuccessiveFrames(VideoFrames):
    """Frames from the middle of each video file, one after the other at a given rate, decoded with PyAV.

    A rate above the video's own takes some frames twice. A video that is shorter than the clip repeats its last.

    Args:
        count: frames per video.
        rate: frames per second of the clip; the paper evaluates tokenizers at 12 (arXiv 2409.18869, table 2).

    Raises:
        ValueError: no frame, or a rate that is not positive.
    """

    def __init__(self, count: int, rate: float) -> None:
        super().__init__(count)
        if rate <= 0:
            raise ValueError(f"media.rate is {rate}; expected frames per second above 0")
        self.rate = rate

    def numbers(self, total: int, rate: float) -> list[int]:
        """Which of `total` frames are taken, in order; `rate` is the video's frames per second, 0 if unknown."""
        step = rate / self.rate if rate else 1.0
        first = max(0, (total - round(step * (self.count - 1)) - 1) // 2)
        return [min(total - 1, first + round(step * number)) for number in range(self.count)]

    def read(self, source: bytes | Path, key: str) -> Video:
        """The clip of one video; raises `UnusableError` for a broken one and `ImportError` without PyAV."""
        return Video(super().read(source, key).frames, self.rate)
