"""Which earlier pictures a sample holds beside its own, and whose calibration they meet (Fast-BEV, arXiv 2301.12511).

Earlier times lie a quarter of a second apart (`SceneInfo.previous`): numbers 1, 3, 5 are half a second, one, and one
and a half seconds ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from multimodal_zoo.data.camera_infos import CAMERA_NAMES, SceneInfo, Sweep
from multimodal_zoo.registry import DATASETS

#: Which side of the current time is looked at first.
DIRECTIONS = ("previous", "following", "either")
#: What happens where that side is empty.
AT_EDGES = ("other_side", "past_only")
#: Order in which the published converter lists the cameras of other times: the last two the other way round.
LEGACY_ORDER = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_RIGHT", "CAM_BACK_LEFT")


class PastPicture(NamedTuple):
    """Pictures of one other time; the current one again where there is none.

    Attributes:
        sweep: the other time; None repeats the current one.
        number: its place in the list it came from; -1 for the current time.
        direction: `previous`, `following` or `current`.
    """

    sweep: Sweep | None
    number: int
    direction: str


@DATASETS.register_module(name="camera_history")
class CameraHistory:
    """Chooses the other times of a sample.

    Args:
        frames: how many times a sample has, the current one among them.
        ids: numbers of the other times, one for each; a number beyond the list takes its last. None draws each in
            training from `interval`, and spreads them evenly over it otherwise.
        interval: smallest number and the one behind the largest.
        direction: `previous`, `following`, or `either`, which draws one for each time in training.
        evaluation_direction: `previous` or `following`, outside of training.
        at_edges: where a drive begins (or ends) and that side is empty: `other_side` as published, or `past_only`,
            which never looks ahead and repeats the current time, as a car on the road must.
        legacy_history_camera_order: whether the published mix-up is repeated, in which pictures of other times from
            back left meet the calibration of back right and the reverse; published weights learnt with it.

    Raises:
        ValueError: numbers that do not fit, or unknown words.
    """

    def __init__(
        self,
        frames: int,
        ids: Sequence[int] | None = (1, 3, 5),
        interval: Sequence[int] = (0, 10),
        direction: str = "previous",
        evaluation_direction: str = "previous",
        at_edges: str = "other_side",
        legacy_history_camera_order: bool = False,
    ) -> None:
        if frames < 1:
            raise ValueError(f"processor.history.frames is {frames}; expected at least 1, the current time")
        if ids is not None and (len(ids) != frames - 1 or min(ids, default=0) < 0):
            raise ValueError(
                f"processor.history.ids is {list(ids)}; {frames} frames need {frames - 1} numbers from 0 on, or null"
            )
        if len(interval) != 2 or not 0 <= interval[0] < interval[1]:
            raise ValueError(f"processor.history.interval is {list(interval)}; expected 0 <= first < last")
        for name, value, known in (
            ("direction", direction, DIRECTIONS),
            ("evaluation_direction", evaluation_direction, DIRECTIONS[:2]),
            ("at_edges", at_edges, AT_EDGES),
        ):
            if value not in known:
                raise ValueError(f"processor.history.{name} is {value!r}; expected one of {', '.join(known)}")
        if at_edges == "past_only" and {direction, evaluation_direction} != {"previous"}:
            raise ValueError("processor.history.at_edges=past_only needs direction and evaluation_direction previous")
        self.frames, self.ids, self.interval = frames, None if ids is None else tuple(ids), tuple(interval)
        self.direction, self.evaluation_direction = direction, evaluation_direction
        self.at_edges, self.legacy = at_edges, legacy_history_camera_order

    def chosen(self, info: SceneInfo, random: Random | None = None) -> list[PastPicture]:
        """The other times of a key frame, `frames - 1` of them.

        Args:
            info: the key frame.
            random: of a training sample; None outside of training.
        """
        found = []
        for place in range(self.frames - 1):
            direction = self._direction(info, random)
            if direction == "current":
                found.append(PastPicture(None, -1, direction))
                continue
            sweeps = info.previous if direction == "previous" else info.following
            number = min(self._number(place, len(sweeps), random), len(sweeps) - 1)
            found.append(PastPicture(sweeps[number], number, direction))
        return found

    def pictures(self, info: SceneInfo, past: PastPicture, names: Sequence[str]) -> list[str | None]:
        """The picture of each camera at another time; None where there is none.

        Args:
            info: the key frame.
            past: one of those of `chosen`.
            names: of the cameras, in the order of the model.
        """
        if past.sweep is None:
            return [info.cameras[name].path if name in info.cameras else None for name in names]
        return [past.sweep.paths.get(self.source(name)) for name in names]

    def source(self, name: str) -> str:
        """The camera whose pictures of other times meet the calibration of `name`: itself, but for the mix-up."""
        if not self.legacy or name not in CAMERA_NAMES:
            return name
        return LEGACY_ORDER[CAMERA_NAMES.index(name)]

    def _direction(self, info: SceneInfo, random: Random | None) -> str:
        wanted = self.evaluation_direction if random is None else self.direction
        if wanted == "either":
            assert random is not None
            wanted = random.choice(DIRECTIONS[:2])
        sides = {"previous": info.previous, "following": info.following}
        if sides[wanted]:
            return wanted
        if self.at_edges == "past_only":
            return "current"
        other = "following" if wanted == "previous" else "previous"
        return other if sides[other] else "current"

    def _number(self, place: int, count: int, random: Random | None) -> int:
        if self.ids is not None:
            return self.ids[place]
        first, last = self.interval
        if random is None:
            return first + (first + last) // self.frames * (place + 1)
        return random.randrange(min(first, count - 1), max(min(last, count), min(first, count - 1) + 1))
