"""How good drawings are: FID, and how near they are to true pictures and to their texts (CLIP-I, DINO, CLIP-T)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.evaluation.features import Counter
from multimodal_zoo.evaluation.neighbours import as_pixels
from multimodal_zoo.evaluation.picture_features import DualEncoderFeatures, PictureFeatures
from multimodal_zoo.evaluation.prompt_suites import Prompt, PromptSuite
from multimodal_zoo.evaluation.result import Cell, Result, Table
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import EVALUATORS


@EVALUATORS.register_module(name="inception_features")
class InceptionFeatures:
    """Pooled features of Inception-v3 as FID is published with: torch-fidelity's network, its weights by their path.

    Args:
        path: torch-fidelity's `pt_inception-2015-12-05-6726825d.pth`; None where nobody gave one.
        batch_size: pictures per forward pass.
    """

    width = 2048

    def __init__(self, path: str | None, batch_size: int = 32) -> None:
        self.path, self.batch_size = path, batch_size
        self._network: nn.Module | None = None

    def network(self) -> nn.Module:
        """The network, read once; nothing in the file is run.

        Raises:
            ValueError: no path.
            ModuleNotFoundError: torch-fidelity is not installed.
        """
        if self._network is None:
            if self.path is None:
                raise ValueError("inception_features.path is null: give torch-fidelity's weights of Inception-v3")
            inception = needed("torch_fidelity.feature_extractor_inceptionv3", "FID", "perceptual")
            plain = io.BytesIO()
            torch.save(torch.load(self.path, map_location="cpu", weights_only=True), plain)
            plain.seek(0)
            self._network = inception.FeatureExtractorInceptionV3(
                "inception", ["2048"], feature_extractor_weights_path=plain
            )
        return self._network

    @torch.inference_mode()
    def batches(self, pictures: Iterable[PilImage], device: torch.device) -> Iterator[Tensor]:
        """Features of pictures of any sizes, (pictures, 2048) each.

        Args:
            pictures: consumed as a stream; neighbours of one size are computed together.
            device: where it computes.
        """
        network = self.network().to(device)
        for _, some in groupby(pictures, lambda one: one.size):
            held: list[PilImage] = []
            for picture in some:
                held.append(picture)
                if len(held) == self.batch_size:
                    yield network(as_pixels(held).movedim(-1, 1).to(device))[0]
                    held = []
            if held:
                yield network(as_pixels(held).movedim(-1, 1).to(device))[0]


class _Given(nn.Module):
    """What torchmetrics takes for a network where the features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        """The features."""
        return features


def frechet_distance(made: Iterable[Tensor], true: Iterable[Tensor], width: int) -> float:
    """FID (arXiv 1706.08500, eq. 6) of features in batches (pictures, width), by torchmetrics, in float64.

    Raises:
        ValueError: fewer than two pictures on a side.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(width)).set_dtype(torch.float64)
    for batches, real in ((true, True), (made, False)):
        for features in batches:
            metric.update(features.double().cpu(), real=real)
    counts = int(metric.real_features_num_samples), int(metric.fake_features_num_samples)
    if min(counts) < 2:
        raise ValueError(f"FID compares distributions: got {counts[0]} true and {counts[1]} drawn pictures")
    return float(metric.compute())


def opened(paths: Iterable[Path]) -> Iterator[PilImage]:
    """Pictures in RGB.

    Raises:
        FileNotFoundError: one that is not there.
    """
    for path in paths:
        with Image.open(path) as picture:
            yield picture.convert("RGB")


@EVALUATORS.register_module(name="picture_scores")
class PictureScores:
    """Score the drawings of a suite (`drawn_suite` makes them): each figure whose features are given.

    CLIP-I and DINO are mean cosines of each drawing with all true pictures of its prompt, CLIP-T with its text. FID
    compares all drawings with all true pictures.

    Args:
        suite: prompts with true pictures: `caption_prompts`, `dreambench_prompts`.
        folder: the drawings; None for the folder that `drawn_suite` fills in that of the evaluated model.
        per_prompt: drawings of each prompt.
        fid: `inception_features`; None leaves FID out.
        clip_image: features of pictures, `dual_encoder_features` as published; None leaves CLIP-I out.
        clip_text: a dual encoder; None leaves CLIP-T out.
        dino: `transformers_features` of DINO as published; None leaves it out.

    Raises:
        ValueError: nothing to measure.
    """

    def __init__(
        self,
        suite: PromptSuite,
        folder: str | None = None,
        per_prompt: int = 1,
        fid: InceptionFeatures | None = None,
        clip_image: PictureFeatures | None = None,
        clip_text: DualEncoderFeatures | None = None,
        dino: PictureFeatures | None = None,
    ) -> None:
        if fid is None and clip_image is None and clip_text is None and dino is None:
            raise ValueError("picture_scores: give features for one figure at least (fid, clip_image, clip_text, dino)")
        self.suite, self.per_prompt = suite, per_prompt
        self.folder = self.place = None if folder is None else Path(folder)
        self.fid, self.clip_text = fid, clip_text
        self.nearness = {"clip_image": clip_image, "dino": dino}

    def share(self, workspace: Workspace) -> None:
        """Take the evaluated model's folder, where none was given."""
        if self.folder is None and workspace.folder is not None:
            self.place = workspace.folder.parent / self.suite.name

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Measure.

        Raises:
            ValueError: no folder, or prompts without true pictures.
            FileNotFoundError: a drawing that is not there.
        """
        del processor
        if self.place is None:
            raise ValueError("picture_scores.folder: say where the drawings are")
        prompts = self.suite.prompts()
        drawings = [
            [self.place / name for name in self.suite.files(place, one, self.per_prompt)]
            for place, one in enumerate(prompts)
        ]
        all_drawings = [path for paths in drawings for path in paths]
        missing = [path for path in all_drawings if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(all_drawings)} drawings of {self.suite.name} are not there, the first is "
                f"{missing[0]}; draw them with drawn_suite"
            )
        metrics: dict[str, float] = {}
        with Counter("figures", None) as counter:
            for name, features in self.nearness.items():
                if features is not None:
                    metrics[name] = self._near(features, model, prompts, all_drawings, device)
                    counter.advance(1)
            if self.clip_text is not None:
                metrics["clip_text"] = self._fits(self.clip_text, model, prompts, all_drawings, device)
            if self.fid is not None:
                metrics["fid"] = self._distance(self.fid, prompts, all_drawings, device)
        rows: list[tuple[Cell, ...]] = [(len(prompts), len(all_drawings), *metrics.values())]
        table = Table(self.suite.name, ("prompts", "drawings", *(name.replace("_", " ") for name in metrics)), rows)
        details = {"folder": str(self.place), "per_prompt": self.per_prompt, **self._sources()}
        return Result(f"{self.suite.name}_scores", metrics, [table], {}, details, tuple(metrics))

    def _sources(self) -> dict[str, str]:
        parts = {**self.nearness, "clip_text": self.clip_text}
        return {name: features.name for name, features in parts.items() if features is not None}

    def _near(
        self,
        features: PictureFeatures,
        model: nn.Module,
        prompts: Sequence[Prompt],
        drawings: Sequence[Path],
        device: torch.device,
    ) -> float:
        known = _references(prompts)
        true = features.vectors(model, opened(known), device)
        made = features.vectors(model, opened(drawings), device)
        place = {path: number for number, path in enumerate(known)}
        found = []
        for number, prompt in enumerate(prompts):
            own = made[number * self.per_prompt : (number + 1) * self.per_prompt]
            found.append((own @ true[[place[path] for path in prompt.references]].T).mean())
        return float(torch.stack(found).double().mean())

    def _fits(
        self,
        features: DualEncoderFeatures,
        model: nn.Module,
        prompts: Sequence[Prompt],
        drawings: Sequence[Path],
        device: torch.device,
    ) -> float:
        if empty := [one.key for one in prompts if not one.text]:
            raise ValueError(f"picture_scores.clip_text: prompt {empty[0]} has no text; leave clip_text out")
        words = features.texts([one.text for one in prompts], device).repeat_interleave(self.per_prompt, 0)
        made = features.vectors(model, opened(drawings), device)
        return float((made * words).sum(1).double().mean())

    @staticmethod
    def _distance(
        features: InceptionFeatures, prompts: Sequence[Prompt], drawings: Sequence[Path], device: torch.device
    ) -> float:
        made, true = (features.batches(opened(paths), device) for paths in (drawings, _references(prompts)))
        return frechet_distance(made, true, features.width)


def _references(prompts: Sequence[Prompt]) -> list[Path]:
    """All true pictures, each once.

    Raises:
        ValueError: a prompt without any.
    """
    if lost := [one.key for one in prompts if not one.references]:
        raise ValueError(f"picture_scores.suite: prompt {lost[0]} has no true picture to compare with")
    return list(dict.fromkeys(path for one in prompts for path in one.references))
