"""Small data in every published layout, and overrides with which Emu's stages train in a second."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
from PIL import Image

WORDS = ["red", "blue", "cat", "dog", "sun", "tree"]
#: Every figure that makes a stage large, made small.
SMALL = [
    *("trainer=cpu", "trainer.devices=1", "trainer.num_nodes=1", "trainer.accumulate_grad_batches=1"),
    *("trainer.max_steps=2", "trainer.log_every_n_steps=1", "schedule.warmup=0", "logger=csv", "threads=1"),
    *("data.workers=0", "callbacks.checkpoint=null", "data.batching.batches_per_epoch=4"),
]
#: Sources whose readers take shards.
SHARDS = ("pairs", "grounded", "clips", "pages", "storyboards")


def picture(draw: np.random.Generator) -> Image.Image:
    """Noise of some size."""
    height, width = draw.integers(12, 40, 2)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(draw: np.random.Generator, form: str = "PNG") -> bytes:
    """Such a picture as a file."""
    held = io.BytesIO()
    picture(draw).save(held, form)
    return held.getvalue()


def words(draw: np.random.Generator) -> str:
    """A few words."""
    return " ".join(draw.choice(WORDS, int(draw.integers(1, 7))))


def clip(draw: np.random.Generator, frames: int = 10) -> bytes:
    """A short film of flat pictures."""
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for _ in range(frames):
            flat = np.full((24, 32, 3), draw.integers(0, 256), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(flat, format="rgb24")))
        container.mux(stream.encode())
    return held.getvalue()


def shard(path: Path, samples: list[Mapping[str, bytes]]) -> Path:
    """A tar of samples, the members of each by suffix."""
    with tarfile.open(path, "w") as held:
        for number, sample in enumerate(samples):
            for suffix, content in sample.items():
                entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                entry.size = len(content)
                held.addfile(entry, io.BytesIO(content))
    return path


def sample_of(source: str, draw: np.random.Generator) -> dict[str, bytes]:
    """A sample of one of `SHARDS`."""
    text = words(draw)
    if source == "clips":
        return {"mp4": clip(draw), "txt": text.encode()}
    if source == "pairs":
        return {"png": encoded(draw), "txt": text.encode()}
    if source == "grounded":
        phrases = [[0, 3, 0.1, 0.2, 0.8, 0.9, 1.0]]
        facts = {"caption": f"cat {text}", "noun_chunks": phrases, "ref_exps": phrases}
        return {"png": encoded(draw), "txt": text.encode(), "json": json.dumps(facts).encode()}
    if source == "storyboards":
        numbered = [(str(n), words(draw).encode(), encoded(draw)) for n in range(3)]
        return {name: part for n, told, shown in numbered for name, part in ((f"{n}.txt", told), (f"{n}.png", shown))}
    told = [words(draw) for _ in range(3)]
    record = {"text_list": told, "image_info": [{"image_name": f"{n}.png", "matched_text_index": n} for n in range(2)]}
    return {"json": json.dumps(record).encode(), "0.png": encoded(draw), "1.png": encoded(draw)}


def conversations(folder: Path, count: int = 16, text_share: float = 0.4, kind: str = "image") -> list[dict]:
    """Records of LLaVA's form, some of words alone; pictures or clips are written, the table is not."""
    draw = np.random.default_rng(1)
    records = []
    for number in range(count):
        record = {"id": str(number)}
        asked = "what is it?"
        if draw.random() >= text_share:
            clips = kind == "video"
            record[kind] = f"{number}.{'mp4' if clips else 'png'}"
            (folder / record[kind]).write_bytes(clip(draw) if clips else encoded(draw))
            asked = f"<image>\n{asked}"
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": words(draw)}]
        records.append({**record, "conversations": turns})
    return records


def table(folder: Path, records: list[dict], key: str = "data.train") -> list[str]:
    """Overrides that name a table of these records."""
    (folder / "table.json").write_text(json.dumps(records))
    return [f"{key}.table={folder / 'table.json'}", f"{key}.folder={folder}"]


def edits(folder: Path, count: int = 4) -> None:
    """Pictures and instructions that change them."""
    draw = np.random.default_rng(3)
    for number in range(count):
        (folder / str(number)).mkdir()
        (folder / str(number) / "prompt.json").write_text(json.dumps({"edit": words(draw)}))
        for one in (0, 1):
            (folder / str(number) / f"7_{one}.jpg").write_bytes(encoded(draw, "JPEG"))
    (folder / "seeds.json").write_text(json.dumps([[str(number), ["7"]] for number in range(count)]))


def source(name: str, folder: Path) -> list[str]:
    """Overrides that give one source of a mixture a few samples."""
    place, key, draw = folder / name, f"data.train.sources.{name}", np.random.default_rng(len(name))
    place.mkdir()
    if name in SHARDS:
        path = shard(place / "0.tar", [sample_of(name, draw) for _ in range(5)])
        return [f"{key}.sources={path}", f"{key}.streams=1"]
    if name == "edits":
        edits(place)
        return [f"{key}.folder={place}"]
    (place / "lines.jsonl").write_text("\n".join(json.dumps({"text": words(draw)}) for _ in range(4)))
    return [f"{key}.table={place / 'lines.jsonl'}"]


def talk(name: str, folder: Path) -> list[str]:
    """Overrides that give one source of conversations a few records."""
    place = folder / f"talk_{name}"
    place.mkdir()
    share = {"texts": 1.0}.get(name, 0.0)
    records = conversations(place, 4, share, "video" if name == "clips" else "image")
    return table(place, records, f"data.train.sources.{name}")


def _thin(queries: int) -> list[str]:
    attention = "model.decoder.blocks.block.attention.qkv"
    return [
        *("model.decoder.width=32", "model.decoder.blocks.depth=2", "model.decoder.blocks.block.mlp.hidden=48"),
        *(f"{attention}.heads=2", f"{attention}.head_dim=16", f"{attention}.kv_heads=2"),
        *("model.image_encoder.blocks.depth=2", "model.image_encoder.image_size=48"),
        *("model.processor.images.size=48", f"model.processor.image_tokens={queries}"),
    ]


#: Models that train in a moment.
EMU = ["model=emu_tiny", *_thin(8), "model.connector.width=32"]
EMU2 = ["model=emu2_tiny", *_thin(9)]
