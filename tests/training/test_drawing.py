"""Training a visual decoder: only its network learns, behind a trained model, on one process and on two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emu_stages import EMU, EMU2, SMALL, sample_of, shard
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.cli import main
from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.folder import find_checkpoint

UNET = "model.visual_decoder.unet.config"
#: A network for pictures of 16 pixels, behind either model.
NETWORK = [
    *("visual_decoder@model.visual_decoder=tiny", "model.visual_decoder.size=16", f"{UNET}.norm_num_groups=4"),
    *(f"{UNET}.block_out_channels=[8,16]", f"{UNET}.down_block_types=[DownBlock2D,CrossAttnDownBlock2D]"),
    *(f"{UNET}.up_block_types=[CrossAttnUpBlock2D,UpBlock2D]", f"{UNET}.attention_head_dim=2"),
]
MODELS = {
    "visual_decoder": [*EMU, *NETWORK, f"{UNET}.cross_attention_dim=32", "data.captions.type=text_caption"],
    "emu2_visual_decoder": [*EMU2, *NETWORK, f"{UNET}.cross_attention_dim=128"],
}
BEFORE = {"visual_decoder": "pretrain", "emu2_visual_decoder": "emu2_stage2"}


def pairs(folder: Path, count: int = 16) -> list[str]:
    """Overrides that read captioned pictures from two shards."""
    for number in range(2):
        draw = np.random.default_rng(number)
        shard(folder / f"{number}.tar", [sample_of("pairs", draw) for _ in range(count // 2)])
    places = ",".join(str(folder / f"{number}.tar") for number in range(2))
    return [f"data.train.sources=[{places}]", "data.train.streams=1", "data.train.samples_per_epoch=16"]


def weights(run_folder: Path) -> dict[str, Tensor]:
    """What a run left."""
    return load_file(run_folder / "model" / "model.safetensors")


def small() -> list[str]:
    """As `SMALL`, for data that are not batched by tokens."""
    return [word for word in SMALL if not word.startswith("data.batching")]


@pytest.mark.parametrize("name", MODELS)
def test_only_the_network_learns(name: str, tmp_path: Path) -> None:
    """It begins anew behind a run that had none; everything else stays as that run left it."""
    model = EMU if name == "visual_decoder" else EMU2
    given = ["data=emu_conversations", f"data.train.table={tmp_path / 'table.json'}", f"data.train.folder={tmp_path}"]
    (tmp_path / "table.json").write_text(
        '[{"conversations": [{"from": "human", "value": "hm?"}, {"from": "gpt", "value": "a cat"}]}]'
    )
    start = ["initial_weights=null", "data.batch_size=1", "trainer.max_steps=1", f"run.dir={tmp_path / 'start'}"]
    assert main(["train", f"emu/{BEFORE[name]}", *SMALL, *model, *given, *start]) == 0
    words = [*small(), *MODELS[name], *pairs(tmp_path), "data.batch_size=4", "data.smallest=1"]
    words += [f"initial_weights.model={tmp_path / 'start'}", f"run.dir={tmp_path / 'run'}"]
    assert main(["train", f"emu/{name}", *words]) == 0
    before, now = weights(tmp_path / "start"), weights(tmp_path / "run")
    new = now.keys() - before.keys()
    assert all(one.startswith("visual_decoder.unet.") for one in new)
    assert new
    for one, tensor in before.items():
        assert_close(now[one], tensor, atol=0, rtol=0)
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/noise_loss" in row]
    assert len(rows) == 2
    assert all(row["train/noise_loss"] > 0 and 0 <= row["train/dropped"] <= 1 for row in rows)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_are_one_and_resume(tmp_path: Path) -> None:
    """The very pictures, noise and steps of each sample, however many processes there are."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "table.json").write_text(
        "\n".join(f'{{"filename": "{number}.png", "caption": "cat"}}' for number in range(16))
    )
    draw = np.random.default_rng(0)
    for number in range(16):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(sample_of("pairs", draw)["png"])
    reader = [
        "reader@data.train=line_pairs",
        "~data.train.samples_per_epoch",
        f"data.train.table={tmp_path / 'table.json'}",
    ]
    words = [
        *(word for word in small() if not word.startswith(("callbacks.", "trainer.max_steps"))),
        *MODELS["emu2_visual_decoder"], *reader, f"data.train.folder={tmp_path / 'pictures'}", "data.smallest=1",
        "initial_weights=null", "optim.eps=1.0e-3", "trainer.max_steps=4", "trainer.devices=2",
        "callbacks.checkpoint.every_n_steps=2", "callbacks.checkpoint.keep=9", "objective.drop=0.5",
    ]  # fmt: skip
    command = [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", "emu/emu2_visual_decoder", *words]
    shared = ["trainer=fsdp_cpu", "data.batch_size=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = ["trainer=cpu", "trainer.devices=1", "data.batch_size=4", f"run.dir={tmp_path / 'one'}"]
    two = subprocess.run([*command, *shared, "run.dir=two"], cwd=tmp_path, env=environment, capture_output=True)
    assert two.returncode == 0, two.stdout + two.stderr
    run(compose("emu/emu2_visual_decoder", [*words, *alone]))
    one, both = (
        [row for row in read_metrics(tmp_path / name / "metrics.csv") if "train/gradient_norm" in row]
        for name in ("one", "two")
    )
    assert len(one) == len(both) == 4
    for mine, theirs in zip(one, both, strict=True):
        for key in ("train/loss", "train/noise_loss", "train/gradient_norm", "train/dropped"):
            assert theirs[key] == pytest.approx(mine[key], rel=5e-5), key
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in first.items():
        assert_close(second[name], tensor, atol=5e-6, rtol=1e-4)
    checkpoint = find_checkpoint("last", tmp_path / "two")
    assert checkpoint is not None
    resumed = [f"resume={checkpoint.with_name('step_00000002.ckpt')}", "run.dir=again"]
    again = subprocess.run([*command, *shared, *resumed], cwd=tmp_path, env=environment, capture_output=True)
    assert again.returncode == 0, again.stdout + again.stderr
    third = weights(tmp_path / "again")
    assert all(bool((third[name] == tensor).all()) for name, tensor in second.items())
