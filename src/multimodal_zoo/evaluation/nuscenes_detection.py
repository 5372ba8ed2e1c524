"""nuScenes' detection benchmark: run a detector over key frames, write its submission, and judge it."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.data.camera_infos import SceneInfo, SceneTruth
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.evaluation.features import Counter, batched, prefetched
from multimodal_zoo.evaluation.nuscenes_boxes import GlobalBoxes, NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_filter import counted
from multimodal_zoo.evaluation.nuscenes_metrics import DetectionScores, detection_scores
from multimodal_zoo.evaluation.nuscenes_report import headline_of, metrics_of, recall_precision, tables_of
from multimodal_zoo.evaluation.nuscenes_submission import MOTION, meta_of, scene_boxes, write_submission
from multimodal_zoo.evaluation.result import Picture, Result
from multimodal_zoo.evaluation.samples import describe, evenly
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.inference.detection import SeenScene
from multimodal_zoo.nn.modes import evaluation_mode
from multimodal_zoo.registry import EVALUATORS

logger = logging.getLogger(__name__)

#: The file of detections in the evaluation's folder.
SUBMISSION = "submission.json"


@EVALUATORS.register_module(name="nuscenes_detection")
class NuScenesDetection:
    """mAP, errors of true positives and NDS of a detector (arXiv 1903.11027, section 3).

    `submission.json` holds all detections as nuScenes' server takes them. Key frames that nobody annotated (the
    official test scenes) give that file alone.

    Args:
        dataset: reader of key frames (`nuscenes_scenes`, `camera_info_file`).
        protocol: the rules (`nuscenes_protocol`); None for those that all published figures have.
        batch_size: key frames in a forward pass.
        workers: threads that read pictures ahead.
        mirrored: whether the mirrored pictures are looked at too (published as `use_tta`).
        meta: flags of the submission that differ from cameras alone (`use_external: true` for a backbone that was
            trained on other data).
        folder: where the submission goes, a name in the folder of the evaluated model, or a path.
        shown: key frames whose pictures are in the report, evenly spread.
        score: boxes of at least this score are drawn.

    Raises:
        ValueError: a batch size below 1, a negative number of workers or pictures, or an unknown flag.
    """

    def __init__(
        self,
        dataset: Any,
        protocol: NuScenesProtocol | None = None,
        batch_size: int = 1,
        workers: int = 2,
        mirrored: bool = False,
        meta: Mapping[str, bool] | None = None,
        folder: str = "detection",
        shown: int = 2,
        score: float = 0.3,
    ) -> None:
        if batch_size < 1 or workers < 0 or shown < 0:
            raise ValueError(
                f"batch_size is {batch_size}, workers {workers}, shown {shown}; expected at least 1, 0 and 0"
            )
        self.dataset, self.protocol = dataset, protocol or NuScenesProtocol()
        self.batch_size, self.workers, self.meta = batch_size, workers, meta_of(meta)
        self.way = "predict_mirrored" if mirrored else "predict"
        self.folder, self.shown, self.score = Path(folder), shown, score
        self.place = self.folder

    def share(self, workspace: Workspace) -> None:
        """Put the submission into the evaluated model's folder."""
        if workspace.folder is not None:
            self.place = workspace.folder.parent / self.folder

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Detect, write, judge.

        Raises:
            TypeError: a model that detects nothing.
            ValueError: no key frame, some without annotations beside others with, a picture that is missing or broken,
                detections that are not finite or too many.
        """
        if not hasattr(model, self.way) or not hasattr(processor, "sample"):
            raise TypeError(f"{type(model).__name__} finds no boxes; nuscenes_detection needs a detector")
        frames = list(self.dataset)
        infos: list[SceneInfo] = [frame.info for frame in frames]
        if not infos:
            raise ValueError(f"{describe(self.dataset)} has no key frame; check the evaluation's dataset")
        annotated = truths_of(infos) is not None
        start = time.perf_counter()
        parts, figures = self._detect(model, processor, device, frames)
        seconds = time.perf_counter() - start
        found = GlobalBoxes.joined(parts)
        tokens = [info.token for info in infos]
        path = write_submission(self.place / SUBMISSION, found, tokens, self.protocol, self.meta)
        metrics = {"key_frames": float(len(infos)), "boxes": float(len(found))}
        details = {"submission": str(path), "meta": self.meta, "seconds_of_detection": round(seconds, 2)}
        if not annotated:
            return Result("nuscenes_detection", metrics, [], figures, details, ("key_frames", "boxes"))
        scores = judged(infos, found, self.protocol)
        measured = metrics_of(scores)
        tables = tables_of(scores, f"detection in {len(infos)} key frames of {describe(self.dataset)}")
        figures = {"recall_precision": recall_precision(scores), **figures}
        return Result(
            "nuscenes_detection", {**measured, **metrics}, tables, figures, details, tuple(headline_of(measured))
        )

    def _detect(
        self, model: Any, processor: Any, device: torch.device, frames: Sequence[Any]
    ) -> tuple[list[GlobalBoxes], dict[str, Picture]]:
        """Boxes of each key frame, and pictures of some."""
        look = getattr(model, self.way)
        wanted = set(evenly(len(frames), self.shown))
        parts: list[GlobalBoxes] = []
        figures: dict[str, Picture] = {}
        with Counter("key frames", len(frames)) as counter, evaluation_mode(model):
            for images, cameras in self._batches(processor, frames):
                for found in look(images.to(device), cameras.to(device)):
                    place = len(parts)
                    frame, found = frames[place], Detections(*(part.cpu() for part in found))
                    parts.append(scene_boxes(frame.info, found, processor.classes, self.protocol, place))
                    if place in wanted:
                        seen = SeenScene(frame.info, frame.root, found, tuple(processor.classes))
                        figures[f"key_frame_{place}"] = self._picture(seen)
                    counter.advance(1)
        return parts, figures

    def _batches(self, processor: Any, frames: Sequence[Any]) -> Iterator[Any]:
        """Pictures and cameras, read ahead."""
        return prefetched(partial(_read, processor), batched(frames, self.batch_size), self.workers)

    def _picture(self, seen: SeenScene) -> Picture:
        sheet = seen.sheet(self.score, true_boxes(seen.info, seen.classes))
        sheet.thumbnail((1500, 1500))
        file = io.BytesIO()
        sheet.save(file, format="PNG")
        return Picture(
            file.getvalue(),
            f"Boxes of score {self.score:g} or more in the cameras and from above, where what is there is green",
        )


def judged(infos: Sequence[SceneInfo], found: GlobalBoxes, protocol: NuScenesProtocol) -> DetectionScores:
    """Compare detections, of a submission say, with what is annotated.

    Args:
        infos: the key frames.
        found: of all key frames, in the frame of the map.
        protocol: the rules.

    Raises:
        ValueError: key frames without annotations, or boxes that cannot be compared.
    """
    truths = truths_of(infos)
    if truths is None:
        raise ValueError(f"none of {len(infos)} key frames is annotated, so nothing can be compared")
    ego, racks = np.stack([info.ego2global[:3, 3] for info in infos]), [truth.racks for truth in truths]
    sides = (GlobalBoxes.of(truths, protocol.classes, protocol.attributes), found)
    truth, detected = (side.take(counted(side, protocol, ego, racks)) for side in sides)
    if len(truth) and (truth.attribute < 0).all() and any(MOTION.get(name) for name in protocol.classes):
        logger.warning(
            "no annotation has an attribute, as in files of key frames of other libraries, which hold no bicycle racks "
            "either: mAAE is 1 and NDS up to 0.1 too low; the tables of nuScenes have both (nuscenes_scenes)"
        )
    return detection_scores(truth, detected, protocol)


def truths_of(infos: Sequence[SceneInfo]) -> list[SceneTruth] | None:
    """What is annotated in each key frame; None where none is.

    Raises:
        ValueError: annotations of some only, with the first that has none.
    """
    truths = [info.truth for info in infos if info.truth is not None]
    if truths and len(truths) < len(infos):
        bare = next(info.token for info in infos if info.truth is None)
        raise ValueError(
            f"{len(infos) - len(truths)} of {len(infos)} key frames are not annotated, {bare} first: judge them apart "
            "from the others"
        )
    return truths or None


def _read(processor: Any, frames: Sequence[Any]) -> tuple[Tensor, Cameras]:
    try:
        return processor.joined([processor.sample(frame.info, frame.root) for frame in frames])
    except UnusableError as error:
        raise ValueError(f"{error.reason}: {error.key}; evaluation needs every picture") from error


def true_boxes(info: SceneInfo, classes: Sequence[str]) -> Tensor | None:
    """Annotated boxes (n, 9) of some classes in the LiDAR frame; None for a key frame without annotations."""
    if info.objects is None:
        return None
    kept = np.array([name in classes for name in info.objects.names], dtype=bool)
    return torch.from_numpy(np.asarray(info.objects.boxes, dtype=np.float32).reshape(-1, 9)[kept])
