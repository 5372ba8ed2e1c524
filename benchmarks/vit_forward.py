"""Forward pass of ViT-B/16 against timm's CLIP-style vision transformer: same weights, same features."""

from __future__ import annotations

import argparse
import statistics

import timm
import torch
from _report import alternate, ratio, record, use_threads
from _weights import copy_timm

import multimodal_zoo as zoo

MODEL = "vit_base_patch16_clip_quickgelu_224"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    torch.manual_seed(0)
    theirs = timm.create_model(MODEL, pretrained=False, num_classes=0).eval()
    ours = zoo.create("clip_vit_b16").image.eval()
    copy_timm(theirs, ours)
    images = torch.randn(options.batch, 3, 224, 224)
    rows = []
    with torch.inference_mode():
        difference = float((ours(images).pooled - theirs(images)).abs().max())
        assert difference < 1e-4, f"the features differ by {difference}"
        times = alternate({"ours": lambda: ours(images), "timm": lambda: theirs(images)}, options.repeats)
    rows.append(
        {
            "batch": options.batch,
            "ours images/s": options.batch / statistics.median(times["ours"]),
            "timm images/s": options.batch / statistics.median(times["timm"]),
            "ratio": ratio(times["timm"], times["ours"]),
            "largest difference": difference,
        }
    )
    record("vit_forward", rows, "python benchmarks/vit_forward.py")


if __name__ == "__main__":
    main()
