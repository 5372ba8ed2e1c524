"""The quickstart against open_clip's own classes: same pairs, same processor time, same evaluation.

    python benchmarks/quickstart_vs_open_clip.py    # three seeds, 600 CPU-seconds each: 95 CPU-minutes
    python benchmarks/quickstart_vs_open_clip.py --budget 60 --seeds 0

Three arms, each run in a process of its own on one thread:

* `open_clip`: CLIP of 64 pixels, patch 16 (width 256, 7 layers), text width 112 (4 layers, context 32), its tokenizer,
  ClipLoss and training transform; AdamW 1e-3, betas 0.9/0.98, decay 0.1, clip 1, batch 128, 5 % warm-up, cosine.
* `quickstart`: the recipe `quickstart` through the whole training stack, callbacks included.
* `quickstart, Twemoji only`: the same without OpenMoji among the training pictures.

The budget counts processor time of training and its data, not of evaluation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _report import record

os.environ["OMP_NUM_THREADS"] = "1"

ARMS = ("open_clip", "quickstart", "quickstart, Twemoji only")
STYLES = {"quickstart, Twemoji only": ["twemoji"]}
BOTH = ["twemoji", "openmoji"]


def evaluate(model: Any, processor: Any) -> dict[str, float]:
    """The figures of `conf/benchmark/emoji.yaml` that the comparison is about."""
    import torch

    import multimodal_zoo as zoo
    from multimodal_zoo.registry import build

    suite = zoo.compose(None, ["+benchmark=emoji"]).benchmark
    found = {}
    for name in suite:
        if str(name).startswith(("seen", "unseen", "groups")):
            metrics = build(suite[name], path=str(name))(model, processor, torch.device("cpu")).metrics
            found |= {f"{name}/{key}": metrics[key] for key in ("R@1", "R@5", "mean_per_class") if key in metrics}
    return found


def train_ours(styles: list[str], seed: int, budget: float) -> tuple[Any, Any, dict[str, float]]:
    """Train the recipe with as many steps as the budget allows, measured on a short run first."""
    from omegaconf import OmegaConf

    import multimodal_zoo as zoo
    from multimodal_zoo.registry import build
    from multimodal_zoo.training import assemble
    from multimodal_zoo.training.initial import initial_model
    from multimodal_zoo.training.logs import quieten

    quieten()

    def fit(steps: int, folder: Path) -> tuple[Any, float, float]:
        overrides = [f"seed={seed}", f"trainer.max_steps={steps}", f"data.train.styles=[{','.join(styles)}]"]
        recipe: Any = OmegaConf.to_container(zoo.compose("quickstart", overrides), resolve=False)
        recipe["run"] = {"name": "quickstart", "dir": str(folder)}
        recipe.pop("hydra", None)
        recipe = OmegaConf.to_container(OmegaConf.create(recipe), resolve=True)
        model, _ = initial_model(recipe)
        data = build(recipe["data"], path="data", processor=model.processor)
        module = assemble.objective_module(recipe, model)
        callbacks = assemble.callbacks(recipe)
        trainer = assemble.trainer(recipe, folder, callbacks, assemble.loggers(recipe, folder))
        start = time.process_time()
        trainer.fit(module, datamodule=data)
        used = time.process_time() - start
        from multimodal_zoo.training.ema import find_ema

        average = find_ema(trainer)
        if average is not None:
            average.applied(module).__enter__()
        return module.model, used, float(recipe["data"]["batch_size"])

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").mkdir(), (Path(folder) / "b").mkdir(), (Path(folder) / "c").mkdir()
        _, once, _ = fit(5, Path(folder) / "a")  # what starting and ending cost
        _, short, _ = fit(45, Path(folder) / "b")
        per_step = (short - once) / 40
        steps = int((budget - once) / per_step * 0.98)
        model, used, batch = fit(steps, Path(folder) / "c")
    return model.eval(), model.processor, {"pairs_per_second": steps * batch / used, "seconds": used, "steps": steps}


def train_theirs(seed: int, budget: float) -> tuple[Any, Any, dict[str, float]]:
    """open_clip's model, tokenizer, loss and transform in a plain loop whose schedule follows the time used."""
    import open_clip
    import torch
    from PIL import Image

    from multimodal_zoo.data.emoji_pairs import EmojiPairs

    torch.manual_seed(seed), random.seed(seed)
    model = open_clip.CLIP(
        embed_dim=256,
        vision_cfg={"image_size": 64, "patch_size": 16, "width": 256, "layers": 7, "head_width": 64},
        text_cfg={"context_length": 32, "vocab_size": 49408, "width": 112, "heads": 4, "layers": 4},
    )
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    loss_of = open_clip.ClipLoss()
    transform = open_clip.image_transform(64, is_train=True)
    plain = open_clip.image_transform(64, is_train=False)
    pairs = EmojiPairs(BOTH, ["train"], image_size=72)
    documents = list(pairs)

    def on_white(pixels: Any) -> Image.Image:
        picture = Image.fromarray(pixels)
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")

    pictures = [on_white(document.image) for document in documents]
    texts = [document.text for document in documents]
    keywords = [list(document.meta["keywords"]) for document in documents]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    order: list[int] = []
    steps, start = 0, time.process_time()
    model.train()
    while (progress := (time.process_time() - start) / budget) < 1:
        if len(order) < 128:
            order += random.sample(range(len(texts)), len(texts))
        batch, order = order[:128], order[128:]
        captions = [
            " ".join(
                [texts[i], *(random.sample(keywords[i], min(2, len(keywords[i]))) if random.random() < 0.5 else [])]
            )
            for i in batch
        ]
        images = torch.stack([transform(pictures[i]) for i in batch])
        rate = 1e-3 * (progress / 0.05 if progress < 0.05 else (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        image, text, scale = model(images, tokenizer(captions))[:3]
        loss_of(image, text, scale).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        steps += 1
    used = time.process_time() - start

    class Adapter(torch.nn.Module):
        """open_clip's model behind the calls that evaluation makes."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.weights = model.eval(), "trained by this benchmark"

        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            return self.model.encode_image(images, normalize=True)

        def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model.encode_text(torch.nn.functional.pad(ids, (0, 32 - ids.shape[1])), normalize=True)

    class Processor:
        """open_clip's evaluation transform and tokenizer behind the calls that evaluation makes."""

        tokenizer = SimpleNamespace(pad_id=0)

        def images(self, images: list[Any]) -> torch.Tensor:
            return torch.stack([plain(on_white(image)) for image in images])

        def texts(self, texts: list[str]) -> torch.Tensor:
            return tokenizer(texts)

    return Adapter(), Processor(), {"pairs_per_second": 128 * steps / used, "seconds": used, "steps": steps}


def run_arm(arm: str, seed: int, budget: float) -> dict[str, Any]:
    """Train and evaluate one arm in this process."""
    import torch

    torch.set_num_threads(1)
    if arm == "open_clip":
        model, processor, facts = train_theirs(seed, budget)
    else:
        model, processor, facts = train_ours(STYLES.get(arm, BOTH), seed, budget)
    return {"arm": arm, "seed": seed, "budget": budget, **facts, **evaluate(model, processor)}


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Mean of a figure over seeds."""
    return statistics.mean(run[key] for run in runs)


def rows_of(results: list[dict[str, Any]]) -> list[dict[str, str | float]]:
    """One row per figure: both sides' means over the seeds, their ratio (or difference) and the goal."""
    theirs, ours, alone = ([r for r in results if r["arm"] == arm] for arm in ARMS)
    figures = [
        ("training pairs per CPU-second", "pairs_per_second", "ratio", 1.8),
        ("train concepts, Twemoji, R@1", "seen_twemoji/R@1", "ratio", 1.6),
        ("train concepts, OpenMoji, R@1", "seen_openmoji/R@1", "ratio", 1.6),
        ("unseen concepts, Twemoji, R@5", "unseen_twemoji/R@5", "ratio", 1.3),
        ("unseen concepts, OpenMoji, R@5", "unseen_openmoji/R@5", "ratio", 1.3),
        ("unseen, Twemoji, nine groups, mean recall", "groups_twemoji/mean_per_class", "points", 0.04),
        ("unseen, OpenMoji, nine groups, mean recall", "groups_openmoji/mean_per_class", "points", 0.04),
    ]
    rows: list[dict[str, str | float]] = []
    for title, key, kind, goal in figures:
        a, b = mean(theirs, key), mean(ours, key)
        value = f"{b / a:.2f}x" if kind == "ratio" else f"{100 * (b - a):+.1f} points"
        wanted = f"at least {goal}x" if kind == "ratio" else f"at least +{100 * goal:.0f} points"
        rows.append({"figure": title, "open_clip": a, "quickstart": b, "quickstart / open_clip": value, "goal": wanted})
    if alone:
        key = "seen_openmoji/R@1"
        title = "train concepts, OpenMoji, R@1, trained on Twemoji alone"
        rows.append({"figure": title, "quickstart": mean(alone, key), "goal": "at least 0.06"})
    seconds = {"figure": "CPU-seconds used", "open_clip": mean(theirs, "seconds"), "quickstart": mean(ours, "seconds")}
    return [*rows, seconds]


def main() -> None:
    """Run every arm and seed in processes of their own and record the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=float, default=600.0, help="CPU-seconds of training for each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--arm", choices=ARMS, help="run one arm here and print its figures as JSON")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(options.arm, options.seeds[0], options.budget)))
        return
    jobs = [(arm, seed) for seed in options.seeds for arm in ARMS]

    def job(arm: str, seed: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--arm", arm, "--seeds", str(seed), "--budget", str(options.budget)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{arm}, seed {seed}:\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        print(f"{arm}, seed {seed}: {result['pairs_per_second']:.0f} pairs per CPU-second", flush=True)
        return result

    with ThreadPoolExecutor(options.processes) as pool:
        results = list(pool.map(job, *zip(*jobs, strict=True)))
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/quickstart_vs_open_clip.py --budget {options.budget:g} --seeds {seeds}"
    record("quickstart_vs_open_clip", rows_of(results), command)


if __name__ == "__main__":
    main()
