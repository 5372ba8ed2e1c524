"""One zero-shot set under both image transforms against CLIP_benchmark: same shards, same weights, same accuracies."""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from _report import alternate, ratio, record, use_threads
from PIL import Image

import multimodal_zoo as zoo
from multimodal_zoo.data.benchmark_set import BenchmarkSet
from multimodal_zoo.data.prompts import packaged_prompts
from multimodal_zoo.evaluation.class_vectors import DatasetPrompts
from multimodal_zoo.evaluation.views import resized
from multimodal_zoo.evaluation.workspace import Workspace
from multimodal_zoo.evaluation.zero_shot import ZeroShotClassification

SET, CLASSES = "imagenet-r", 200
RESIZES = ("shorter_crop", "squash")
NAME = "evaluation_suite"


def write_set(root: Path, images: int, templates: int) -> None:
    """Photograph-like JPEG files of 500 x 375 pixels in one shard."""
    generator = np.random.default_rng(0)
    folder = root / f"wds_{SET}"
    (folder / "test").mkdir(parents=True)
    prompts = packaged_prompts(SET)
    with tarfile.open(folder / "test/0.tar", "w") as tar:
        for number in range(images):
            buffer = io.BytesIO()
            coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            for suffix, content in (("jpg", buffer.getvalue()), ("cls", str(number % CLASSES).encode())):
                info = tarfile.TarInfo(f"s{number:07d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (folder / "test/nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("\n".join(prompts.names))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(prompts.templates[:templates]))


def by_clip_benchmark(model: torch.nn.Module, root: Path) -> dict[str, float]:
    """Accuracy under each transform, one pass each: what its command line does when it is called twice."""
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier

    found = {}
    for resize in RESIZES:
        processor = resized(model.processor, resize)
        folder = str(root / f"wds_{SET}")
        dataset = build_dataset(f"wds/{SET}", root=folder, transform=lambda image, p=processor: p.images([image])[0])
        loader = torch.utils.data.DataLoader(dataset, batch_size=64)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            vectors = zero_shot_classifier(
                model, processor.texts, dataset.classes, dataset.templates, device="cpu", amp=False
            )
            logits, target = run_classification(model, vectors, loader, device="cpu", amp=False)
        found[resize] = (logits.argmax(dim=1) == target).float().mean().item()
    return found


def by_ours(model: torch.nn.Module, root: Path, workspace: Workspace) -> dict[str, float]:
    """The same from one pass; class vectors go to, or come from, the workspace."""
    data = BenchmarkSet(SET, str(root), classes=CLASSES)
    part = ZeroShotClassification(data, DatasetPrompts(), "label", 64, RESIZES)
    part.share(workspace)
    metrics = part(model, model.processor, torch.device("cpu")).metrics
    return {resize: metrics[f"{resize}_top1"] for resize in RESIZES}


def main() -> None:
    """Measure with class vectors to compute, and with those of an earlier evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="eva_clip_tiny")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--templates", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="24 pictures, 2 templates, once; records nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "WebDataset")
    use_threads(options.threads)
    images, templates = (24, 2) if options.quick else (options.images, options.templates)
    repeats = 1 if options.quick else options.repeats
    model = zoo.create(options.variant).eval()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_set(root, images, templates)
        kept = Workspace(root / "kept", "benchmark")
        by_ours(model, root, kept)

        def theirs() -> None:
            figures["theirs"] = by_clip_benchmark(model, root)

        def ours() -> None:
            figures["ours"] = by_ours(model, root, Workspace(None, ""))

        def again() -> None:
            figures["again"] = by_ours(model, root, Workspace(root / "kept", "benchmark"))

        rivals = {"ours": ours, "ours again": again, "clip_benchmark": theirs}
        times = alternate(rivals, repeats, warm_up=0 if options.quick else 1)
    for resize in RESIZES:
        known = figures["theirs"][resize]
        assert all(abs(found[resize] - known) < 1e-6 for found in figures.values()), figures
    rows = [
        {
            "evaluation": name,
            "variant": options.variant,
            "images": images,
            "prompts": CLASSES * templates,
            "ours s": statistics.median(times[name]),
            "clip_benchmark s": statistics.median(times["clip_benchmark"]),
            "ratio": ratio(times["clip_benchmark"], times[name]),
        }
        for name in ("ours", "ours again")
    ]
    rows[1]["evaluation"] = "ours, class vectors kept"
    record(NAME, rows, f"python benchmarks/{NAME}.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
