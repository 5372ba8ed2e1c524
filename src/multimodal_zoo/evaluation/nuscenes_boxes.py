"""What nuScenes' detection benchmark compares, and by which rules (arXiv 1903.11027, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from multimodal_zoo.bev.boxes import CLASSES
from multimodal_zoo.data.camera_infos import SceneTruth
from multimodal_zoo.registry import EVALUATORS

ATTRIBUTES = (
    "pedestrian.moving",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "cycle.with_rider",
    "cycle.without_rider",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
)
#: Boxes of a class count up to this distance from the car, metres (configuration detection_cvpr_2019).
CLASS_RANGE = {
    "car": 50.0,
    "truck": 50.0,
    "trailer": 50.0,
    "bus": 50.0,
    "construction_vehicle": 50.0,
    "bicycle": 40.0,
    "motorcycle": 40.0,
    "pedestrian": 40.0,
    "traffic_cone": 30.0,
    "barrier": 30.0,
}
#: Errors of true positives: metres, 1 - overlap, radians, metres per second, 1 - accuracy.
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
#: Errors that a class has not: a cone looks alike from all sides, neither it nor a barrier moves.
UNDEFINED: Mapping[str, tuple[str, ...]] = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}
#: Classes whose front and back are alike.
SYMMETRIC = ("barrier",)
#: Classes that are not counted inside a rack for bicycles.
RACKED = ("bicycle", "motorcycle")


#: What a column of a box may hold.
EXPECTED = {
    "translation": "three finite numbers, metres",
    "size": "three numbers above 0, metres",
    "rotation": "a finite quaternion w, x, y, z that is not 0",
    "velocity": "two numbers, metres per second, or NaN where it is not known",
    "score": "a finite number",
}


@EVALUATORS.register_module(name="nuscenes_protocol")
class NuScenesProtocol:
    """The rules of a comparison; what is not given is that of `detection_cvpr_2019`, which all published figures have.

    Args:
        classes: names; labels count through them. The mean is over all of them, whether they occur or not.
        attributes: names; numbers of attributes count through them, -1 is none.
        class_range: class -> metres from the car (LiDAR's ego pose), within which boxes count.
        distances: of centres on the ground, metres, below which a detection is right; APs are averaged over them.
        error_distance: the one of `distances` whose true positives give the errors.
        min_recall: from 0 to below 1; lower recalls do not count.
        min_precision: from 0 to below 1; taken off the precision.
        max_boxes: of a sample in a submission.
        ap_weight: of the mAP in the NDS, where each of the five errors has weight 1.

    Raises:
        ValueError: a class without range, ranges of unknown classes, an error distance that is none of the distances,
            shares outside of [0, 1).
    """

    def __init__(
        self,
        classes: Sequence[str] = CLASSES,
        attributes: Sequence[str] = ATTRIBUTES,
        class_range: Mapping[str, float] | None = None,
        distances: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        error_distance: float = 2.0,
        min_recall: float = 0.1,
        min_precision: float = 0.1,
        max_boxes: int = 500,
        ap_weight: float = 5.0,
    ) -> None:
        self.classes, self.attributes = tuple(classes), tuple(attributes)
        given = {name: CLASS_RANGE[name] for name in self.classes if name in CLASS_RANGE}
        self.class_range = {name: float(metres) for name, metres in (class_range or given).items()}
        if set(self.class_range) != set(self.classes) or len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"protocol.class_range holds {sorted(self.class_range)}; expected metres for each of protocol.classes, "
                f"{sorted(self.classes)}, once"
            )
        self.distances, self.error_distance = tuple(float(one) for one in distances), float(error_distance)
        self.min_recall, self.min_precision = float(min_recall), float(min_precision)
        self.max_boxes, self.ap_weight = max_boxes, float(ap_weight)
        if self.error_distance not in self.distances:
            raise ValueError(f"protocol.error_distance {error_distance} is none of protocol.distances {self.distances}")
        if not (0 <= self.min_recall < 0.995 and 0 <= self.min_precision < 1):
            raise ValueError(
                f"protocol.min_recall is {min_recall}, min_precision {min_precision}; expected shares, 0 to below 1"
            )

    @property
    def ranges(self) -> np.ndarray:
        """Metres for each label, (classes,)."""
        return np.array([self.class_range[name] for name in self.classes])


@dataclass(frozen=True, eq=False)
class GlobalBoxes:
    """Boxes of many samples in the frame of the map, a row each.

    Attributes:
        sample: int64 (n,), number of the sample.
        translation: float64 (n, 3), centres of gravity, metres.
        size: float64 (n, 3), width, length, height, metres.
        rotation: float64 (n, 4), quaternions w, x, y, z.
        velocity: float64 (n, 2), metres per second; NaN where it is not known.
        label: int64 (n,).
        attribute: int64 (n,), -1 for none.
        score: float64 (n,), of detections; -1 of annotated objects.
        points: int64 (n,), LiDAR and RADAR points inside annotated objects; -1 of detections.

    Raises:
        ValueError: columns of different lengths.
    """

    sample: np.ndarray
    translation: np.ndarray
    size: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    label: np.ndarray
    attribute: np.ndarray
    score: np.ndarray
    points: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.sample)
        wanted = {"translation": (count, 3), "size": (count, 3), "rotation": (count, 4), "velocity": (count, 2)}
        for name in (one.name for one in fields(self)):
            if getattr(self, name).shape != wanted.get(name, (count,)):
                raise ValueError(
                    f"boxes: {name} has shape {getattr(self, name).shape}; expected {wanted.get(name, (count,))}"
                )

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, rows: np.ndarray) -> GlobalBoxes:
        """Some rows: numbers in order, or a mask."""
        return GlobalBoxes(*(getattr(self, one.name)[rows] for one in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[GlobalBoxes]) -> GlobalBoxes:
        """All rows of several in order."""
        if not parts:
            return cls.none()
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    @classmethod
    def none(cls) -> GlobalBoxes:
        """No box."""
        whole, three = np.zeros(0, dtype=np.int64), np.zeros((0, 3))
        return cls(whole, three, three, np.zeros((0, 4)), np.zeros((0, 2)), whole, whole, np.zeros(0), whole)

    @classmethod
    def of(
        cls, truths: Sequence[SceneTruth], classes: Sequence[str], attributes: Sequence[str] = ATTRIBUTES
    ) -> GlobalBoxes:
        """Annotated objects of samples in order; those of other classes are left out.

        Args:
            truths: what is judged in each sample.
            classes: names of the labels.
            attributes: names of the attributes' numbers.

        Raises:
            ValueError: an attribute of another name, numbers that are not finite, objects without size.
        """
        labels = {name: number for number, name in enumerate(classes)}
        kinds = {"": -1, **{name: number for number, name in enumerate(attributes)}}
        kept = [np.array([name in labels for name in one.names], dtype=bool) for one in truths]
        parts = []
        for number, (one, rows) in enumerate(zip(truths, kept, strict=True)):
            if strange := sorted({*one.attributes} - kinds.keys()):
                raise ValueError(f"sample {one.token}: attribute {strange[0]!r}; known are {list(attributes)}")
            column = cls(
                sample=np.full(len(one), number),
                translation=np.reshape(one.translations, (-1, 3)),
                size=np.reshape(one.sizes, (-1, 3)),
                rotation=np.reshape(one.rotations, (-1, 4)),
                velocity=np.reshape(one.velocities, (-1, 2)),
                label=np.array([labels.get(name, -1) for name in one.names], dtype=np.int64),
                attribute=np.array([kinds[name] for name in one.attributes], dtype=np.int64),
                score=np.full(len(one), -1.0),
                points=np.asarray(one.num_lidar_pts) + np.asarray(one.num_radar_pts),
            ).take(rows)
            check_numbers(column, f"sample {one.token}: object")
            parts.append(column)
        return cls.joined(parts)


def check_numbers(boxes: GlobalBoxes, what: str) -> None:
    """Refuse boxes that cannot be compared.

    Args:
        boxes: whose velocity may be NaN, not known.
        what: stands before the number of a row in the message.

    Raises:
        ValueError: with the first row: numbers that are not finite, a size that is not above 0, a quaternion of length
            0.
    """
    velocity = np.isfinite(boxes.velocity) | np.isnan(boxes.velocity)
    fit = {
        "translation": np.isfinite(boxes.translation).all(1),
        "size": (np.isfinite(boxes.size) & (boxes.size > 0)).all(1),
        "rotation": np.isfinite(boxes.rotation).all(1) & (np.abs(boxes.rotation).sum(1) > 0),
        "velocity": velocity.all(1),
        "score": np.isfinite(boxes.score),
    }
    for name, rows in fit.items():
        if not rows.all():
            row = int(np.flatnonzero(~rows)[0])
            value = np.asarray(getattr(boxes, name)[row]).tolist()
            raise ValueError(f"{what} {row}: {name} is {value}; expected {EXPECTED[name]}")
