"""Class vectors from the 80 ImageNet prompts of CLIP, against open_clip: same weights, same vectors."""

from __future__ import annotations

import argparse
import logging
import statistics

import open_clip
import torch
from _report import alternate, ratio, record, use_threads
from _weights import copy_open_clip

import multimodal_zoo as zoo
from multimodal_zoo.evaluation.class_vectors import build_classifier

CLASSES = ["tench", "great white shark", "American robin", "black-footed ferret", "electric guitar", "paper towel"]


def main(name: str = "zero_shot_classifier", variant: str = "clip_vit_b32", peer: str = "ViT-B-32-quickgelu") -> None:
    """Measure one variant.

    Args:
        name: of the benchmark that is recorded.
        variant: ours.
        peer: the same architecture in open_clip.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=2, help=f"how many of {len(CLASSES)}")
    parser.add_argument("--batch", type=int, default=64, help="prompts per forward pass of ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one class, 8 templates, once; records nothing")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that its weights are random
    use_threads(options.threads)
    theirs = open_clip.create_model(peer).eval()
    ours = zoo.create(variant).eval()
    copy_open_clip(theirs, ours)
    tokenizer = open_clip.get_tokenizer(peer)
    known = open_clip.OPENAI_IMAGENET_TEMPLATES[: 8 if options.quick else None]
    templates = [template("{}") for template in known]
    names = CLASSES[: 1 if options.quick else options.classes]
    repeats = 1 if options.quick else options.repeats
    vectors: dict[str, torch.Tensor] = {}

    def by_open_clip() -> None:
        vectors["open_clip"] = open_clip.build_zero_shot_classifier(theirs, tokenizer, names, known).T

    def by_ours() -> None:
        vectors["ours"] = build_classifier(ours, ours.processor, names, templates, options.batch)

    times = alternate({"ours": by_ours, "open_clip": by_open_clip}, repeats, warm_up=0)
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
            "ratio of least": min(times["open_clip"]) / min(times["ours"]),
            "largest difference": difference,
        }
    ]
    record(name, rows, f"python benchmarks/{name}.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
