"""What a synthetic data set is made from."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_zoo.data.scenes.rig import FULL_SIZE

#: Key frames, those with boxes, a second.
KEY_RATE = 2
#: Seconds of pictures before the first key frame, so that its history is as long as that of any other.
HISTORY = 1.5
VERSION = "v1.0-synthetic"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a synthetic data set is made from: the same settings make the same bytes.

    Args:
        scenes: how many drives; each fourth, and at least one of two, is for validation.
        frames: key frames of each, two a second.
        width: of the pictures, pixels.
        height: the same.
        seed: of everything random.
        rate: pictures a second of each camera, a multiple of 2: 2 for key frames and nothing between them, 12 as in
            nuScenes.

    Raises:
        ValueError: a number that is out of range, with the key of `mmzoo data synth-nuscenes`.
    """

    scenes: int = 24
    frames: int = 20
    width: int = 400
    height: int = 225
    seed: int = 0
    rate: int = KEY_RATE

    def __post_init__(self) -> None:
        for key, least, most in (("scenes", 2, 9999), ("frames", 1, 400), ("seed", 0, 2**32 - 1), ("rate", 2, 60)):
            value = getattr(self, key)
            if not least <= value <= most:
                raise ValueError(f"{key}={value}: expected {least} to {most}")
        if self.rate % KEY_RATE:
            raise ValueError(f"rate={self.rate}: expected a multiple of {KEY_RATE}, the key frames a second")
        if not (32 <= self.width <= FULL_SIZE[0] and 18 <= self.height <= FULL_SIZE[1]):
            limit = "x".join(map(str, FULL_SIZE))
            raise ValueError(f"size={self.width}x{self.height}: expected 32x18 to {limit} pixels")

    def split(self) -> dict[str, list[str]]:
        """Names of the scenes for training and validation."""
        names = [f"scene-{number:04d}" for number in range(self.scenes)]
        held = max(self.scenes // 4, 1)
        return {"train": names[:-held], "val": names[-held:]}
