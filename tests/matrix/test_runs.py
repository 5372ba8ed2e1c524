"""Some cells through `mmzoo train`: the run folder holds a model that is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interchange_slots import DUAL

import multimodal_zoo as zoo
from multimodal_zoo.commands.train import run

#: Every figure that makes a run long, made small.
SMALL = [
    *("trainer.max_steps=2", "trainer.limit_val_batches=0", "trainer.log_every_n_steps=1", "schedule.warmup=0"),
    *("data.batch_size=4", "data.workers=0", "logger=csv", "threads=1", "callbacks.checkpoint=null"),
    *("callbacks.samples=null", "evaluation=null"),
]


@pytest.mark.parametrize("kind", ["borrowed", "placed"])
def test_a_run_with_a_swapped_tower(kind: str, places: dict[str, Path], tmp_path: Path) -> None:
    if kind == "placed":
        words = [f"model.image=${{part:{places['RUN']},image}}", f"initial_weights={{image: {places['RUN']}}}"]
    else:
        words = ["encoder@model.image=timm_vit", "model.image.name=test_vit"]
        words += ["model.image.width=64", "model.image.image_size=64"]
    place = tmp_path / "run"
    run(zoo.compose("quickstart", [*SMALL, *DUAL.small, *words, "+data.train.share=0.02", f"run.dir={place}"]))
    model = zoo.from_pretrained(place)
    assert str(places["RUN"]) not in (place / "model/config.yaml").read_text().replace(f"trained: {place}", "")
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 32)
    if kind == "placed":
        before = zoo.from_pretrained(places["RUN"], part="image").state_dict()
        after = model.image.state_dict()
        moved = [float((after[name] - before[name]).abs().max()) for name in before if name.endswith("weight")]
        assert 0 < max(moved) < 0.5  # two steps from where the run ended, not from chance
