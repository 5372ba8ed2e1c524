"""How the files of a labelled set are read: as still pictures, or as frames of videos."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from multimodal_zoo.data.documents import Image, Picture, Segment, Video
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import DATASETS


class Media(Protocol):
    """A kind of file."""

    suffixes: tuple[str, ...]

    def read(self, source: bytes | Path, key: str) -> Segment:
        """The content of one file.

        Raises:
            UnusableError: it cannot be read.
        """
        ...


@DATASETS.register_module(name="still_pictures")
class StillPictures:
    """Picture files as they are: published figures were measured without turning them by EXIF."""

    suffixes = ("webp", "jpg", "jpeg", "png")

    def read(self, source: bytes | Path, key: str) -> Image:
        """One decoded picture; raises `UnusableError` for a broken one."""
        return Image(load(open_picture(source, key, turn=False), key))


def frame_numbers(total: int, count: int) -> list[int]:
    """Frames to take from a video: the middle frame of each of `count` equal parts; one alone is the centre frame.

    Shorter videos than `count` frames give some frames twice, so that every video has as many.

    Raises:
        ValueError: no frame in the video, or none asked for.
    """
    if total < 1 or count < 1:
        raise ValueError(f"frames: need at least one of at least one, got {count} of {total}")
    return [(2 * place + 1) * total // (2 * count) for place in range(count)]


def emu_frames(total: int, count: int) -> list[int]:
    """Emu's choice of frames: steps of (total - 1) / count behind half a step, each rounded half to even (published).

    Raises:
        ValueError: no frame in the video, or none asked for.
    """
    if total < 1 or count < 1:
        raise ValueError(f"frames: need at least one of at least one, got {count} of {total}")
    step = (total - 1) / count
    return [int(step / 2) + round(step * place) for place in range(count)]


def emu2_demo_frames(total: int, count: int) -> list[int]:
    """The choice of Emu2's demonstration: whole steps, which often give more frames than asked (published).

    Raises:
        ValueError: fewer frames in the video than asked for, or none asked for.
    """
    if count < 1 or total < count:
        raise ValueError(f"frames: emu2_demo needs at least as many frames as it takes, got {count} of {total}")
    step = total // count
    return list(range(step // 2, total, step))


#: Name -> which frames of a video are taken, of how many there are and how many are asked for.
FRAME_CHOICES: dict[str, Callable[[int, int], list[int]]] = {
    "middle": frame_numbers,
    "emu": emu_frames,
    "emu2_demo": emu2_demo_frames,
}


@DATASETS.register_module(name="video_frames")
class VideoFrames:
    """A few frames of each video file, evenly spread over its length, decoded with PyAV.

    Args:
        count: frames per video.
        choice: a name of `FRAME_CHOICES`; `middle` gives as many frames as asked, always.

    Raises:
        ValueError: no frame, or an unknown choice.
    """

    suffixes = ("mp4", "avi", "webm", "mkv", "mov")

    def __init__(self, count: int = 1, choice: str = "middle") -> None:
        if count < 1:
            raise ValueError(f"media.count: a video needs at least one frame, got {count}")
        if choice not in FRAME_CHOICES:
            raise ValueError(f"media.choice is {choice!r}; it must be one of {', '.join(FRAME_CHOICES)}")
        self.count, self.choice = count, choice

    def read(self, source: bytes | Path, key: str) -> Video:
        """The frames of one video; raises `UnusableError` for a broken one and `ImportError` without PyAV."""
        try:
            import av
        except ImportError as error:
            raise ImportError("videos are decoded with PyAV: pip install av") from error
        try:
            total, rate = self._length(av, source)
            frames, decoded = self._frames(av, source, self.numbers(total, rate))
            if frames is None:  # the file promises more than it holds
                frames, _ = self._frames(av, source, self.numbers(decoded, rate))
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise UnusableError("broken video", key) from error
        if frames is None:
            raise UnusableError("broken video", key)
        return Video(frames, rate)

    def numbers(self, total: int, rate: float) -> list[int]:
        """Which of `total` frames are taken, in order; `rate` is the video's frames per second, 0 if unknown."""
        return FRAME_CHOICES[self.choice](total, self.count)

    @staticmethod
    def _open(av: Any, source: bytes | Path) -> Any:
        return av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source))

    def _length(self, av: Any, source: bytes | Path) -> tuple[int, float]:
        with self._open(av, source) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            # Some containers do not say how many frames they hold; counting packets decodes nothing.
            return stream.frames or sum(1 for packet in container.demux(stream) if packet.size), rate

    def _frames(self, av: Any, source: bytes | Path, wanted: list[int]) -> tuple[list[Picture] | None, int]:
        """The wanted frames (None if the video ended before the last of them), and how many were decoded."""
        found: dict[int, Picture] = {}
        decoded = 0
        with self._open(av, source) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                decoded = number + 1
                if number in wanted:
                    found[number] = frame.to_image()
                    if number == wanted[-1]:
                        return [found[place] for place in wanted], decoded
        return None, decoded
