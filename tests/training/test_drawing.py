"""Training a visual decoder: only its network learns, behind a trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emu_stages import EMU, EMU2, SMALL, sample_of, shard
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.cli import main
from multimodal_zoo.evaluation.history import read_metrics

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
