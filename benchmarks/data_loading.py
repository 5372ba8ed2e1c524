"""Pairs per second out of tar shards: our stream loader against open_clip's webdataset pipeline, on the same shards.

The shards look like img2dataset's: JPEG photographs (scikit-image's) of a given shorter side, caption and JSON. Both
sides read them with one thread and no worker process, crop at random to 224 pixels, tokenise and batch. The second part
gives the speed of the embedded emoji with the quickstart's augmentation.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import skimage.data
import torch
import webdataset as wds
from _report import alternate, ratio, record, use_threads
from PIL import Image

from multimodal_zoo.data.image_text_data import image_text_data
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import compose, create

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
)
CAPTION = "a photograph of {}, number {} of a series taken for a benchmark of data loading"


def write_shards(folder: Path, short: int, shards: int, samples: int) -> list[str]:
    """Shards of JPEG files with the given shorter side."""
    root = Path(skimage.data.__file__).parent
    files = []
    for name in PHOTOGRAPHS:
        image = Image.open(root / name).convert("RGB")
        scale = short / min(image.size)
        buffer = io.BytesIO()
        image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS).save(
            buffer, "JPEG", quality=95
        )
        files.append((name.split(".")[0], buffer.getvalue()))
    paths = []
    for shard in range(shards):
        paths.append(str(folder / f"{shard:05d}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for i in range(samples):
                name, content = files[i % len(files)]
                caption = CAPTION.format(name, i)
                members = {"jpg": content, "txt": caption.encode(), "json": json.dumps({"caption": caption}).encode()}
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f"{shard:05d}{i:04d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return paths


def their_batches(paths: list[str], batch: int) -> Iterator[Any]:
    """open_clip's training pipeline, step by step."""
    transform = open_clip.image_transform(224, is_train=True, mean=MEAN, std=STD)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    pipeline = wds.DataPipeline(
        wds.SimpleShardList(paths),
        wds.shuffle(len(paths)),
        wds.split_by_worker,
        wds.tarfile_to_samples(handler=wds.warn_and_continue),
        wds.shuffle(1000, initial=1000),
        wds.select(lambda sample: "txt" in sample and ("jpg" in sample or "png" in sample)),
        wds.decode("pilrgb", handler=wds.warn_and_continue),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: tokenizer(text)[0]),
        wds.to_tuple("image", "text"),
        wds.batched(batch, partial=False),
    )
    return iter(pipeline)


def our_batches(paths: list[str], batch: int) -> Iterator[Any]:
    """`image_text_data` over `webdataset_pairs`, with the same shuffle, crop and length limit."""
    processor = ImageTextProcessor(ImageTransform(224, MEAN, STD), build({"type": "clip_bpe", "context_length": 77}))
    train = {"type": "webdataset_pairs", "sources": paths, "streams": 1, "shuffle": 1000, "samples_per_epoch": None}
    data = image_text_data(
        processor=processor,
        train=build(train),
        batch_size=batch,
        captions=build({"type": "text_caption"}),
        image_transform=build({"type": "random_resized_crop", "size": 224, "scale": [0.9, 1.0]}),
        augment=[],
        order=build({"type": "shuffled_order"}),
    )
    return iter(data.train_dataloader())


def drain(batches: Callable[[], Iterator[Any]], expected: int) -> None:
    count = sum(1 for _ in batches())
    if count != expected:
        raise RuntimeError(f"expected {expected} batches, got {count}")


def emoji_row() -> dict[str, Any]:
    """Speed of the quickstart's data: whole batches with captions and augmentation."""
    config = compose("quickstart")
    model = create("clip_tiny")
    loader = build(config.data, processor=model.processor).train_dataloader()
    sum(1 for _ in loader)
    start, pairs = time.process_time(), 0
    for _ in range(3):
        pairs += sum(len(batch) for batch in loader)
    speed = pairs / (time.process_time() - start)
    size = model.processor.transform.size
    return {"data": f"emoji, quickstart's augmentation, {size} px", "ours, pairs/CPU-s": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    use_threads(1)
    torch.manual_seed(0)
    pairs = given.shards * given.samples
    rows = []
    for short in (256, 512):
        with tempfile.TemporaryDirectory() as folder:
            paths = write_shards(Path(folder), short, given.shards, given.samples)
            rivals = {
                "ours": partial(drain, partial(our_batches, paths, given.batch), pairs // given.batch),
                "theirs": partial(drain, partial(their_batches, paths, given.batch), pairs // given.batch),
            }
            times = alternate(rivals, given.repeats)
        rows.append(
            {
                "data": f"JPEG shards, shorter side {short}, to 224 px",
                "ours, pairs/CPU-s": pairs / min(times["ours"]),
                "open_clip, pairs/CPU-s": pairs / min(times["theirs"]),
                "ratio": ratio(times["theirs"], times["ours"]),
            }
        )
    rows.append(emoji_row())
    record("data_loading", rows, "python benchmarks/data_loading.py")


if __name__ == "__main__":
    main()
