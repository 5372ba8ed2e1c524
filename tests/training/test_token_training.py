"""Training a causal decoder on tokens: accumulated, resumed and validated batches count token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.config import compose
from multimodal_zoo.data.token_batches import rows_batch
from multimodal_zoo.data.token_sequences import TokenSample
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.objectives.batch import TokenBatch
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.registry import build
from multimodal_zoo.training.accumulation import Window

SIZES = ["width=32", "blocks.depth=2", "blocks.block.mlp.hidden=48", "blocks.block.attention.qkv.heads=2"]
SIZES += ["blocks.block.attention.qkv.head_dim=16", "blocks.block.attention.qkv.kv_heads=1"]


def small(*overrides: str) -> nn.Module:
    """A narrow Emu3 without visual tokenizer and dropout."""
    words = [*(f"model.decoder.{size}" for size in SIZES), "model.decoder.blocks.block.attention.dropout=0", *overrides]
    config = compose(None, ["+model=emu3_tiny", *words])
    node: Any = OmegaConf.to_container(config.model, resolve=True)
    torch.manual_seed(0)
    kept = {key: value for key, value in node.items() if key not in ("processor", "card", "vision_tokenizer")}
    return build(kept, path="model")


def samples(lengths: list[int], seed: int = 0) -> list[TokenSample]:
    """Random ids of which some count, visual ones a half."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number, length in enumerate(lengths):
        ids = torch.randint(0, 1747, (length,), generator=generator)
        weights = torch.randint(0, 3, (length,), generator=generator).float() / 2
        weights[0] = 0.0
        found.append(TokenSample(ids, weights, f"{seed}-{number}"))
    return found


def batch(*rows: list[TokenSample]) -> TokenBatch:
    return rows_batch(rows, pad_id=0)


TRAINER = {"max_steps": 3, "max_epochs": -1, "gradient_clip_val": 0.5}
PARTS = [samples([5, 30, 9], 1), samples([40], 2), samples([3, 4], 3), samples([17, 21], 4)]
CHANGES: dict[str, Any] = {
    "objective": {"type": "next_token"},
    "optim": {"_target_": "torch.optim.SGD", "lr": 0.5, "weight_decay": 0.0, "fused": False},
    "schedule": {"_target_": "multimodal_zoo.training.schedule.Constant", "warmup": 0},
}


@pytest.mark.parametrize("normalise", ["weights", "count"])
def test_accumulated_batches_are_one_large_batch(fit, tmp_path: Path, normalise: str) -> None:
    changes = {**CHANGES, "objective": {"type": "next_token", "normalise": normalise}}
    small_batches = [batch(part) for part in PARTS]
    parts, _ = fit(
        "parts", batches=small_batches, model=small(), trainer={**TRAINER, "accumulate_grad_batches": 4}, **changes
    )
    whole, _ = fit("whole", batches=[batch(*PARTS)], model=small(), trainer=TRAINER, **changes)
    norms = [
        [row["train/gradient_norm"] for row in read_metrics(tmp_path / name / "metrics.csv") if "train/loss" in row]
        for name in ("parts", "whole")
    ]
    assert norms[0][-1] == pytest.approx(norms[1][-1], rel=1e-4)
    for (name, mine), other in zip(parts.model.state_dict().items(), whole.model.state_dict().values(), strict=True):
        assert_close(mine, other, atol=1e-6, rtol=1e-5, msg=name)


def test_a_window_that_the_end_of_an_epoch_cuts_short(fit) -> None:
    """Three batches of a window of four: as if there were only these."""
    some = PARTS[:3]
    trainer = {**TRAINER, "max_steps": 2, "accumulate_grad_batches": 4}
    parts, _ = fit("parts", batches=[batch(part) for part in some], model=small(), trainer=trainer, **CHANGES)
    whole, _ = fit("whole", batches=[batch(*some)], model=small(), trainer={**TRAINER, "max_steps": 2}, **CHANGES)
    for mine, other in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_batches_without_anything_to_learn() -> None:
    window, gradient = Window(3), torch.ones(2)
    assert [float(window.weigh(torch.tensor(divisor))) for divisor in (0.0, 2.0, 4.0)] == [0.0, 2.0, 4.0]
    window.settle([gradient])
    assert_close(gradient, torch.full((2,), 3 / 6))
    window.settle([gradient])  # nothing was accumulated since
    assert_close(gradient, torch.full((2,), 3 / 6))
    window.weigh(torch.tensor(0.0))
    window.settle([gradient])
    assert_close(gradient, torch.zeros(2))


def test_validation_counts_every_token_once(fit, tmp_path: Path) -> None:
    model = small()
    validation = [batch(part) for part in PARTS]
    fit(batches=[batch(*PARTS)], validation=validation, model=model, trainer={**TRAINER, "max_steps": 1}, **CHANGES)
    (row,) = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "validation/loss" in row]
    with torch.no_grad():
        expected = NextToken()(model.eval(), batch(*PARTS))["loss"]
    assert row["validation/loss"] == pytest.approx(float(expected), rel=2e-2)  # divisors are rounded to whole tokens


def test_resuming_packed_batches_is_exact(fit, tmp_path: Path) -> None:
    """With dropout, in the middle of an epoch of packed rows: weights are bit-equal."""
    batches = [batch(part) for part in PARTS]
    keep = {"_target_": "multimodal_zoo.training.checkpointing.Checkpoints", "every_n_steps": 3, "keep": 9}
    changes = {**CHANGES, "optim": {"_target_": "torch.optim.AdamW", "lr": 1e-2, "fused": True}}
    dropout = "model.decoder.blocks.block.attention.dropout=0.2"
    trainer = {**TRAINER, "max_steps": 6}
    whole, _ = fit(
        "whole", batches=batches, model=small(dropout), trainer=trainer, callbacks={"checkpoint": keep}, **changes
    )
    (checkpoint,) = (tmp_path / "whole" / "checkpoints").glob("*3.ckpt")
    again, _ = fit(
        "again", checkpoint, batches=batches, model=small(dropout), trainer=trainer, callbacks={"checkpoint": keep},
        **changes,
    )  # fmt: skip
    for mine, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)
