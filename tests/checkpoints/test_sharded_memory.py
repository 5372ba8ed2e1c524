"""Loading a sharded checkpoint holds the model and one shard at most, however many shards there are."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from multimodal_zoo.checkpoints.tables import find_naming
from multimodal_zoo.zoo import create

SIZES = {"width": 512, "blocks.depth": 6, "blocks.block.mlp.hidden": 2560}
SIZES |= {"blocks.block.attention.qkv.heads": 8, "blocks.block.attention.qkv.head_dim": 64}
TEXT = {"width": 64, "blocks.depth": 1, "blocks.block.attention.qkv.heads": 1, "blocks.block.mlp.hidden": 64}
WORDS = [
    "model.text.vocab_size=514",
    *(f"model.image.{key}={value}" for key, value in SIZES.items()),
    *(f"model.text.{key}={value}" for key, value in TEXT.items()),
]
PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from multimodal_zoo.zoo import create

folder = sys.argv[1]
create("eva_clip_tiny")
create("eva_clip_tiny", pretrained=folder + "/warm/" + sys.argv[2])  # imports what is imported once
torch.allclose(torch.ones(1), torch.ones(1))
words = sys.argv[3:]
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
before = status("VmRSS")
model = create("eva_clip_18b", pretrained=folder, overrides=words)
for parameter in model.parameters():
    parameter.detach().sum()  # touches every page
print(status("VmHWM") - before)
"""


def write(folder: Path, naming: str, suffix: str) -> tuple[int, int]:
    """Ten shards in a published naming; gives the bytes of the model and of the largest shard."""
    model = create("eva_clip_18b", overrides=WORDS)
    torch.nn.init.constant_(model.logit_scale.weight, math.log(100))
    state = {name: tensor.contiguous() for name, tensor in find_naming(naming).save(model.state_dict()).items()}
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in state.items():
        full = sum(t.nbytes for t in shards[-1].values()) >= sum(t.nbytes for t in state.values()) / 10
        if full and (naming == "eva_clip" or "k_proj" in name):  # between a query and its key
            shards.append({})
        shards[-1][name] = tensor
    placed = {}
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    for i, shard in enumerate(shards):
        file = f"{stem}-{i}.{suffix}"
        save_file(shard, folder / file) if suffix == "safetensors" else torch.save(shard, folder / file)
        placed.update(dict.fromkeys(shard, file))
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": placed}))
    largest = max(sum(t.nbytes for t in shard.values()) for shard in shards)
    return sum(p.nbytes for p in model.parameters()), largest


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("naming", "suffix"), [("eva_clip", "safetensors"), ("hf_eva_clip", "bin")])
def test_the_peak_is_the_model_and_a_shard(naming, suffix, tmp_path):
    model, shard = write(tmp_path, naming, suffix)
    assert 50e6 < model < 100e6
    warm = tmp_path / "warm" / f"model.{suffix}"
    warm.parent.mkdir()
    tiny = create("eva_clip_tiny").state_dict()
    save_file(tiny, warm) if suffix == "safetensors" else torch.save(tiny, warm)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), warm.name, *WORDS]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert peak <= model + 1.15 * shard, (peak, model, shard)
