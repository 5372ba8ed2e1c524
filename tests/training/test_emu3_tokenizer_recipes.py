"""The recipes of Emu3's visual tokenizer: each composes, and trains for a few steps at a tiny size."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.evaluation.result import Result

TINY = [
    "model.encoder.width=32",
    "model.encoder.multipliers=[1,1]",
    "model.encoder.attention_levels=[1]",
    "model.encoder.depth=1",
    "model.quantizer.codebook_size=16",
    "threads=1",
    "logger=csv",
    "callbacks.checkpoint=null",
]


def video(path: Path) -> bytes:
    """A few grey frames."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in range(0, 200, 20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def shard(path: Path, members: list[tuple[str, bytes]]) -> str:
    """A tar file of members."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def test_pictures_and_clips_against_a_discriminator(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(encoded, "png")
    clip = video(tmp_path / "a.mp4")
    pictures = shard(tmp_path / "pictures.tar", [(f"{n}.png", encoded.getvalue()) for n in range(6)])
    clips = shard(tmp_path / "clips.tar", [m for n in range(6) for m in ((f"{n}.mp4", clip), (f"{n}.txt", b"a clip"))])
    words = [
        *TINY,
        f"data.train.sources.pictures.sources=[{pictures}]",
        f"data.train.sources.clips.sources=[{clips}]",
        "data.train.sources.pictures.streams=1",
        "data.train.sources.clips.streams=1",
        "data.train.samples_per_epoch=8",
        "data.train.sources.clips.media.count=4",
        "data.frames=4",
        "data.batch_size=2",
        "data.workers=0",
        "data.image_transform.size=16",
        "trainer=cpu",
        "trainer.max_steps=4",
        "trainer.log_every_n_steps=1",
        "schedule.warmup=0",
        "objective.perceptual=null",
        "objective.adversarial.start=1",
        "objective.adversarial.discriminator.pictures.width=32",
        "objective.adversarial.discriminator.pictures.depth=1",
        "objective.adversarial.discriminator.clips.width=32",
        "objective.adversarial.discriminator.clips.depth=1",
        f"run.dir={tmp_path / 'run'}",
    ]
    run(compose("emu3/tokenizer", words))
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all("train/discriminator" in row for row in rows[1:])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_emoji(tmp_path: Path) -> None:
    words = [
        *TINY,
        "data.batch_size=4",
        "data.train.styles=[twemoji]",
        "trainer.max_steps=2",
        "trainer.limit_val_batches=1",
        "evaluation.reconstruction.dataset.styles=[twemoji]",
        "evaluation.reconstruction.dataset.splits=[val]",
        f"run.dir={tmp_path / 'run'}",
    ]
    run(compose("emu3/emoji_tokenizer", words))
    result = Result.load(tmp_path / "run" / "evaluation" / "reconstruction.json")
    assert result.metrics["psnr"] > 0
    assert "sheet" in result.figures
