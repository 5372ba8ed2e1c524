"""Small data and overrides with which EVE's published stages train in a second, shared by several tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ["red", "blue", "cat", "dog", "sun", "tree"]
#: Every figure that makes a stage large, made small.
SMALL = [
    *("trainer=cpu", "trainer.devices=1", "trainer.num_nodes=1", "trainer.accumulate_grad_batches=1"),
    *("trainer.max_steps=2", "trainer.log_every_n_steps=1", "schedule.warmup=0", "logger=csv", "threads=1"),
    *("data.batch_size=2", "data.workers=0", "callbacks.checkpoint=null"),
]
V1 = [
    *("model=eve_tiny", "model.decoder.width=32", "model.decoder.blocks.block.mlp.hidden=48"),
    *("model.decoder.blocks.block.attention.qkv.heads=2", "model.decoder.blocks.block.attention.qkv.head_dim=16"),
    *("model.decoder.blocks.block.attention.qkv.kv_heads=2", "model.vision_embedding.hidden=16"),
]
#: A teacher with eight patches to a side less: what the small processor shows.
TEACHER = [
    *("model@teacher.model=eva_clip_tiny", "teacher.weights=random", "teacher.model.image.image_size=32"),
    *("teacher.model.image.blocks.depth=2", "teacher.model.text.blocks.depth=1", "model.aligner.teacher_width=128"),
]
V2 = [
    "model=eve_v2_tiny",
    "model.processor.images.max_size=32",
    "model.decoder.width=32",
    "model.vision_embedding.hidden=16",
]
_BRANCHES = "model.decoder.blocks.block.block"
V2_DECODER = [
    *(f"{_BRANCHES}.mlp.hidden=48", f"{_BRANCHES}.attention.qkv.heads=2", f"{_BRANCHES}.attention.qkv.head_dim=16"),
    f"{_BRANCHES}.attention.qkv.kv_heads=1",
]
#: Stage 0 has the same decoder without weights for pictures.
V2_PLAIN = [
    "decoder@model.decoder=eve_tiny",
    *(word.replace(".block.block", ".block") for word in V2_DECODER),
    "model.decoder.blocks.block.attention.qkv.biased=[query,key,value]",
]


def picture(draw: np.random.Generator) -> Image.Image:
    """Noise of some size."""
    height, width = draw.integers(12, 40, 2)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def words(draw: np.random.Generator) -> str:
    """A few words."""
    return " ".join(draw.choice(WORDS, int(draw.integers(1, 7))))


def captions(folder: Path, count: int = 8) -> Path:
    """A shard of pictures with captions, as img2dataset writes it."""
    draw, path = np.random.default_rng(0), folder / "pairs.tar"
    with tarfile.open(path, "w") as shard:
        for number in range(count):
            encoded = io.BytesIO()
            picture(draw).save(encoded, "PNG")
            for suffix, content in (("png", encoded.getvalue()), ("txt", words(draw).encode())):
                entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))
    return path


def conversations(folder: Path, count: int = 16, text_share: float = 0.4) -> list[dict]:
    """Records of LLaVA's form, some without a picture; the pictures are written, the table is not."""
    draw = np.random.default_rng(1)
    (folder / "pictures").mkdir(exist_ok=True)
    records = []
    for number in range(count):
        record = {"id": str(number)}
        asked = "what is it?"
        if draw.random() >= text_share:
            record["image"] = f"{number}.png"
            picture(draw).save(folder / "pictures" / record["image"])
            asked = f"<image>\n{asked}"
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": words(draw)}]
        records.append({**record, "conversations": turns})
    return records


def table(folder: Path, records: list[dict]) -> list[str]:
    """Overrides that name a table of these records."""
    (folder / "table.json").write_text(json.dumps(records))
    return [f"data.train.table={folder / 'table.json'}", f"data.train.folder={folder / 'pictures'}"]
