"""The sheet of drawings: the same in every run, at the right steps, and without a trace on the model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.training.drawings import DrawingSheet
from multimodal_zoo.training.sharding import shard
from multimodal_zoo.training.sheets import Sheet

SMALL = ["model.decoder.width=32", "model.decoder.blocks.depth=1", "model.decoder.blocks.block.mlp.hidden=48"]
SMALL += ["model.decoder.blocks.block.attention.qkv.head_dim=8"]


class Coded:
    """Six pictures as codes, the fourth of which is broken."""

    def __init__(self) -> None:
        self.skips = Skips()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Document:
        if index == 3:
            raise UnusableError("broken picture", "3")
        return Document([Codes(np.full((8, 8), index)), Text(f"thing {index}")], {"key": str(index)})


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return zoo.create("emu3_tiny", overrides=SMALL).train()


def trainer(folder: Path, step: int, validation: Any) -> Any:
    return SimpleNamespace(
        global_step=step,
        is_global_zero=True,
        default_root_dir=str(folder),
        loggers=[],
        callbacks=[],
        datamodule=SimpleNamespace(validation=validation),
    )


def test_sheets_come_when_it_is_time(model, tmp_path) -> None:
    model.vision_tokenizer.eval()
    before = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    data, module = Coded(), SimpleNamespace(model=model)
    sheet = DrawingSheet(every_n_steps=2, pictures=2)
    for step in (1, 2, 3):
        sheet.on_train_batch_end(trainer(tmp_path, step, data), module, None, None, 0)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.glob("samples/*.png")] == ["step_00000002.png"]
    sheet.on_train_end(trainer(tmp_path, 3, data), module)  # type: ignore[arg-type]
    written = sorted(tmp_path.glob("samples/*.png"))
    assert len(written) == 2
    assert written[0].read_bytes() == written[1].read_bytes()  # nothing was trained in between
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), random)
    sheet.on_train_end(trainer(tmp_path / "again", 3, data), module)  # type: ignore[arg-type]
    assert not (tmp_path / "again").exists()


def test_broken_pictures_are_left_out_and_none_is_no_error(model, tmp_path) -> None:
    sheet = DrawingSheet(pictures=6)
    assert [d.key for d in sheet._choose(trainer(tmp_path, 0, Coded()))] == ["0", "1", "2", "4", "5"]
    DrawingSheet().draw(trainer(tmp_path, 1, None), SimpleNamespace(model=model))  # type: ignore[arg-type]
    assert not list(tmp_path.glob("samples/*"))


class Scores(Sheet):
    """What a decoder makes of some ids, in the place of a picture."""

    def prepare(self, trainer: Any, pl_module: Any) -> Any:
        with torch.no_grad():
            states = pl_module.model.decoder(torch.arange(6)[None])
        return lambda: states.numpy().tobytes()


def test_sheets_may_call_parts_of_a_sharded_model(model, tmp_path) -> None:
    models = {"whole": model, "sharded": deepcopy(model)}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        shard(models["sharded"], dist.init_device_mesh("cpu", (1,)))
        for name, one in models.items():
            module = SimpleNamespace(model=one)
            Scores(0, lambda *_: None).draw(trainer(tmp_path / name, 1, None), module)  # type: ignore[arg-type]
    finally:
        dist.destroy_process_group()
    whole, sharded = (tmp_path / name / "samples" / "step_00000001.png" for name in models)
    assert whole.read_bytes() == sharded.read_bytes()
