"""Reading a file of detections that nuScenes' server would take, and saying what is wrong with it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.evaluation.nuscenes_boxes import GlobalBoxes, NuScenesProtocol, check_numbers
from multimodal_zoo.evaluation.nuscenes_submission import check_counts
from multimodal_zoo.files import reading

#: Names of a record's lists -> how many numbers they hold.
LISTS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}


def read_submission(
    path: Path, tokens: Sequence[str], protocol: NuScenesProtocol
) -> tuple[GlobalBoxes, dict[str, Any]]:
    """The boxes of a file in its order, which decides between equal scores, and its `meta`.

    A box takes 200 bytes while it is read: a file of three million does not need the memory of as many dictionaries.

    Args:
        path: of the JSON file.
        tokens: the samples that are judged; boxes count through them.
        protocol: names classes and attributes, and bounds the boxes of a sample.

    Raises:
        ValueError: no such file of JSON, samples that are missing or not judged, boxes that lack something, that have
            unknown classes or attributes, numbers that are not finite or are filed under another sample, too many in a
            sample, or a sample that stands twice.
        FileNotFoundError: no file.
    """
    reader = _Reader(path, tokens, protocol)
    with reading(path, "JSON file of detections", "write it again"):
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=reader.packed)
        if not isinstance(content, dict) or not isinstance(content.get("results"), dict) or "meta" not in content:
            raise ValueError(
                f"{path}: expected a JSON object with 'meta' and 'results', a list of boxes for each sample"
            )
        results: dict[str, Any] = content["results"]
        _check_samples(path, results, tokens)
        return reader.boxes(results), dict(content["meta"])


def _check_samples(path: Path, results: Mapping[str, Any], tokens: Sequence[str]) -> None:
    for what, names in (
        ("lacks", [token for token in tokens if token not in results]),
        ("has boxes of unknown", sorted(results.keys() - set(tokens))),
    ):
        if names:
            raise ValueError(
                f"{path}: {what} {len(names)} of {len(tokens)} samples, {names[0]} first; expected a list, which may "
                "be empty, for each sample of the split and for no other"
            )


class _Reader:
    """Turns each record into an array of numbers as soon as it is read."""

    def __init__(self, path: Path, tokens: Sequence[str], protocol: NuScenesProtocol) -> None:
        self.path, self.tokens, self.protocol = path, tokens, protocol
        self.samples = {token: number for number, token in enumerate(tokens)}
        self.labels = {name: number for number, name in enumerate(protocol.classes)}
        self.read = 0
        self.attributes = {"": -1, **{name: number for number, name in enumerate(protocol.attributes)}}

    def packed(self, record: dict[str, Any]) -> Any:
        """A box as its numbers: sample, label, attribute, score, lists; other objects as they are."""
        if "detection_name" not in record and "translation" not in record:
            return record
        token = record.get("sample_token")
        self.read += 1
        try:
            label, attribute = self.labels[record["detection_name"]], self.attributes[record["attribute_name"]]
            numbers = [self.samples.get(str(token), -1), label, attribute, record["detection_score"]]
            for name, count in LISTS.items():
                if len(record[name]) != count:
                    raise ValueError(f"{name} has {len(record[name])} numbers instead of {count}")
                numbers += record[name]
            return array("d", numbers)
        except KeyError as error:
            where = f"{self.path}: a box of sample {token}"
            key = error.args[0]
            if key in (record.get("detection_name"), record.get("attribute_name")):
                known = [list(self.labels), list(self.attributes)][key == record.get("attribute_name")]
                raise ValueError(f"{where} has the unknown name {key!r}; expected one of {known}") from None
            raise ValueError(f"{where} has no {key!r}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: a box of sample {token} cannot be read: {error}") from None

    def boxes(self, results: Mapping[str, Any]) -> GlobalBoxes:
        """All boxes in the order of the file."""
        parts = []
        for token, rows in results.items():
            if not isinstance(rows, list) or not all(isinstance(row, array) for row in rows):
                raise ValueError(f"{self.path}: sample {token} has no list of boxes")
            part = self._columns(np.array(rows, dtype=np.float64).reshape(len(rows), 4 + sum(LISTS.values())))
            strange = np.flatnonzero(part.sample != self.samples[token])
            if len(strange):
                raise ValueError(f"{self.path}: box {strange[0]} of sample {token} names another sample_token")
            check_numbers(part, f"{self.path}: sample {token}, box")
            parts.append(part)
            rows.clear()  # its memory is needed for the next ones
        found = GlobalBoxes.joined(parts)
        if len(found) != self.read:
            raise ValueError(
                f"{self.path}: {self.read - len(found)} boxes are in a sample that stands twice, or in none"
            )
        check_counts(found, self.tokens, self.protocol)
        return found

    def _columns(self, rows: np.ndarray) -> GlobalBoxes:
        whole = rows[:, :3].astype(np.int64)
        return GlobalBoxes(
            sample=whole[:, 0],
            translation=rows[:, 4:7],
            size=rows[:, 7:10],
            rotation=rows[:, 10:14],
            velocity=rows[:, 14:16],
            label=whole[:, 1],
            attribute=whole[:, 2],
            score=rows[:, 3],
            points=np.full(len(rows), -1),
        )
