"""Class vectors from the 80 ImageNet prompts of CLIP, against open_clip: same weights, same vectors."""

from __future__ import annotations

import argparse
import statistics

import open_clip
import torch
from _report import alternate, ratio, record, use_threads
from _weights import copy_open_clip

import multimodal_zoo as zoo
from multimodal_zoo.evaluation.class_vectors import build_classifier

MODEL = "ViT-B-32-quickgelu"
CLASSES = ["tench", "great white shark", "American robin", "black-footed ferret", "electric guitar", "paper towel"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=2, help=f"how many of {len(CLASSES)}")
    parser.add_argument("--batch", type=int, default=64, help="prompts per forward pass of ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    theirs = open_clip.create_model(MODEL).eval()
    ours = zoo.create("clip_vit_b32").eval()
    copy_open_clip(theirs, ours)
    tokenizer = open_clip.get_tokenizer(MODEL)
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    names = CLASSES[: options.classes]
    vectors: dict[str, torch.Tensor] = {}

    def by_open_clip() -> None:
        vectors["open_clip"] = open_clip.build_zero_shot_classifier(
            theirs, tokenizer, names, open_clip.OPENAI_IMAGENET_TEMPLATES
        ).T

    def by_ours() -> None:
        vectors["ours"] = build_classifier(ours, ours.processor, names, templates, options.batch)

    times = alternate({"ours": by_ours, "open_clip": by_open_clip}, options.repeats, warm_up=0)
    difference = float((vectors["ours"] - vectors["open_clip"]).abs().max())
    assert difference < 1e-5, f"the vectors differ by {difference}"
    seconds = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        {
            "classes": len(names),
            "prompts": len(names) * len(templates),
            "ours classes/s": len(names) / seconds["ours"],
            "open_clip classes/s": len(names) / seconds["open_clip"],
            "ratio": ratio(times["open_clip"], times["ours"]),
            "largest difference": difference,
        }
    ]
    record("zero_shot_classifier", rows, "python benchmarks/zero_shot_classifier.py")


if __name__ == "__main__":
    main()
