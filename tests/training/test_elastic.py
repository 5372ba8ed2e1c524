"""Checkpoints of another number of processes: refused as they are, taken up on request, shards never."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from multimodal_zoo.data.datamodule import ImageTextData
from multimodal_zoo.training import rng
from multimodal_zoo.training.groups import by_names
from multimodal_zoo.training.rank_state import RankState, rank_buffers
from multimodal_zoo.training.rng import RandomState


def test_random_states() -> None:
    first = rng.capture()
    checkpoint = {"random_states": [first, first]}
    trainer: Any = SimpleNamespace(global_rank=0)
    with pytest.raises(ValueError, match=r"written by 2 processes and this run has 1.*elastic=true"):
        RandomState(0).on_load_checkpoint(trainer, trainer, checkpoint)
    elastic = RandomState(0, elastic=True)
    elastic.on_load_checkpoint(trainer, trainer, checkpoint)
    torch.rand(3)
    elastic.on_train_batch_start(trainer, trainer, None, 0)
    assert torch.equal(torch.get_rng_state(), first["torch"])


def test_queues_of_each_process() -> None:
    objective = torch.nn.Module()
    objective.register_buffer("entries", torch.zeros(3))
    objective.rank_buffers = ("entries",)  # type: ignore[assignment]
    module: Any = SimpleNamespace(objective=objective)
    stored = [torch.full((3,), 1.0), torch.full((3,), 2.0)]
    with pytest.raises(ValueError, match=r"holds entries of 2 processes and this run has 1.*elastic=true"):
        RankState().on_load_checkpoint(module, module, {"rank_buffers": {"entries": stored}})
    state = RankState(elastic=True)
    state.on_load_checkpoint(module, module, {"rank_buffers": {"entries": stored}})
    state.on_train_start(module, module)
    assert torch.equal(rank_buffers(objective)["entries"], stored[0])


def test_places_in_shards_are_refused() -> None:
    data = ImageTextData(*[None] * 5, batch_size=4, workers=0, seed=0)  # type: ignore[arg-type]
    place = {"epoch": 0, "batch": 1, "streams": {"places": [[0, 5]]}, "global_batch": 4, "processes": 2}
    with pytest.raises(ValueError, match=r"dealt to 2 process\(es\), this run has 1: .*initial_weights=RUN"):
        data.load_state_dict(place)
    data.load_state_dict({**place, "streams": None})
    assert data.position.batch == 1


def test_states_of_optimisers_go_by_names_whatever_they_were_numbered_by() -> None:
    groups = [{"params": [7, 3], "names": ["a.weight", "objective.b"]}, {"params": [5], "names": ["c"]}]
    found = by_names({"state": {3: {"step": 1}, 5: {"step": 2}}, "param_groups": groups})
    assert found["state"] == {"objective.b": {"step": 1}, "model.c": {"step": 2}}
    assert [group["params"] for group in found["param_groups"]] == [["model.a.weight", "objective.b"], ["model.c"]]
    assert by_names(found) == found
