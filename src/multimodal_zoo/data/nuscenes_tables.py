"""The tables of nuScenes (schema v1.0, arXiv 1903.11027), read from their JSON files and looked up by token.

A table is a list of rows, each a mapping with a `token`; rows name each other by tokens. Only what detection needs is
read: no maps, no LiDAR points.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.data.camera_infos import rigid_of
from multimodal_zoo.files import parsed

Row = Mapping[str, Any]
#: The channel whose key frames give the time of a sample.
LIDAR = "LIDAR_TOP"
#: Microseconds in a second.
MICRO = 1_000_000


@dataclass(frozen=True)
class NuScenesTables:
    """Tables of one version of a data set; each is read when it is first asked for.

    Attributes:
        folder: of the data set; holds a folder for each version, `samples` and `sweeps`.
        version: e.g. `v1.0-trainval`, `v1.0-mini`, `v1.0-test`.

    Raises:
        FileNotFoundError: no such version, with those that there are.
    """

    folder: Path
    version: str
    _read: dict[str, dict[str, Row]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.folder / self.version).is_dir():
            found = sorted(path.parent.name for path in self.folder.glob("*/sample.json"))
            raise FileNotFoundError(
                f"{self.folder / self.version} is no folder of tables: set data.train.folder and data.train.version; "
                f"versions in {self.folder}: {', '.join(found) or 'none'}"
            )

    def table(self, name: str) -> dict[str, Row]:
        """Rows of a table by token, in its order.

        Raises:
            FileNotFoundError: the table is missing.
            ValueError: the file is damaged, or a row has no token.
        """
        if name not in self._read:
            path = self.folder / self.version / f"{name}.json"
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; a nuScenes data set has it beside sample.json")
            try:
                self._read[name] = {row["token"]: row for row in parsed(path.read_bytes())}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}; download it again") from None
        return self._read[name]

    def has(self, name: str) -> bool:
        """Whether there is such a table: the official test scenes come without annotations."""
        return (self.folder / self.version / f"{name}.json").is_file()

    def row(self, table: str, token: str) -> Row:
        """One row.

        Raises:
            ValueError: no row has this token.
        """
        found = self.table(table).get(token)
        if found is None:
            raise ValueError(f"{self.folder / self.version}/{table}.json has no row with the token {token!r}")
        return found

    def state(self) -> dict[str, list[int]]:
        """Bytes of each table's file and nanoseconds of its last change: a digit may change without the size."""
        found = {path.name: path.stat() for path in sorted((self.folder / self.version).glob("*.json"))}
        return {name: [one.st_size, one.st_mtime_ns] for name, one in found.items()}

    def pose(self, table: str, token: str) -> np.ndarray:
        """The pose (4, 4) of a row of `ego_pose` (ego to global) or `calibrated_sensor` (sensor to ego)."""
        row = self.row(table, token)
        return rigid_of(row["rotation"], row["translation"])

    def channel(self, data: Row) -> str:
        """Name of the sensor of a row of `sample_data`."""
        return self.row("sensor", self.row("calibrated_sensor", data["calibrated_sensor_token"])["sensor_token"])[
            "channel"
        ]

    @cached_property
    def annotations(self) -> dict[str, list[Row]]:
        """Annotations of each sample."""
        return grouped(self.table("sample_annotation").values(), "sample_token")

    @cached_property
    def scene_samples(self) -> dict[str, list[Row]]:
        """Samples of each scene in order of time."""
        found = grouped(self.table("sample").values(), "scene_token")
        return {token: sorted(rows, key=lambda row: row["timestamp"]) for token, rows in found.items()}

    @cached_property
    def recordings(self) -> dict[str, dict[str, Recording]]:
        """Scene -> channel -> everything recorded, for the LiDAR and all cameras."""
        channels = {token: row["channel"] for token, row in self.table("sensor").items()}
        sensors = {token: channels[row["sensor_token"]] for token, row in self.table("calibrated_sensor").items()}
        cameras = {row["channel"] for row in self.table("sensor").values() if row["modality"] == "camera"}
        found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for data in self.table("sample_data").values():
            channel = sensors[data["calibrated_sensor_token"]]
            if channel in cameras or channel == LIDAR:
                scene = self.row("sample", data["sample_token"])["scene_token"]
                found[scene][channel].append(data)
        return {scene: {name: Recording(rows) for name, rows in one.items()} for scene, one in found.items()}

    def category(self, annotation: Row) -> str:
        """Full name of an annotation's category."""
        instance = self.row("instance", annotation["instance_token"])
        return self.row("category", instance["category_token"])["name"]

    def velocity(self, annotation: Row) -> np.ndarray:
        """(3,), metres per second in the global frame, from the annotations before and after; NaN where not known.

        It is not known without either, or where they lie more than 1.5 s away (3 s from each other), as in the
        devkit of nuScenes.
        """
        before, after = annotation["prev"], annotation["next"]
        if not before and not after:
            return np.full(3, np.nan)
        first = self.row("sample_annotation", before) if before else annotation
        last = self.row("sample_annotation", after) if after else annotation
        times = [self.row("sample", row["sample_token"])["timestamp"] for row in (first, last)]
        seconds = (times[1] - times[0]) / MICRO
        if seconds > (3.0 if before and after else 1.5) or seconds <= 0:
            return np.full(3, np.nan)
        return (np.array(last["translation"]) - np.array(first["translation"])) / seconds


class Recording:
    """What one sensor recorded in one scene, in order of time.

    Args:
        rows: of `sample_data`.

    Attributes:
        rows: in order of time.
        times: microseconds of each.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = sorted(rows, key=lambda row: row["timestamp"])
        self.times = [row["timestamp"] for row in self.rows]

    def nearest(self, time: int) -> Row:
        """The row nearest to a time, the earlier one of two."""
        place = bisect_left(self.times, time)
        around = self.rows[max(0, place - 1) : place + 1]
        return min(around, key=lambda row: abs(row["timestamp"] - time))


def grouped(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """Rows by the value of one of their columns, in their order."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found
