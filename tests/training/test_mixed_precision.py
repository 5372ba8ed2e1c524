"""Training in bfloat16 autocast stays close to float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from multimodal_zoo import zoo
from multimodal_zoo.objectives.batch import ImageTextBatch

SMALL = [
    "encoder@model.image=clip_vit_tiny",
    "model.embed_dim=16",
    "model.image.width=32",
    "model.image.image_size=32",
    "model.image.blocks.depth=1",
    "model.text.width=32",
    "model.text.blocks.depth=1",
]
VOCABULARY = 4531


@pytest.fixture
def tiny() -> Callable[[], nn.Module]:
    return lambda: zoo.create("clip_tiny", overrides=SMALL)


def pairs() -> list[ImageTextBatch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    ids = torch.randint(1, VOCABULARY - 1, (4, 5), generator=generator)
    ids[:, -1] = VOCABULARY - 1  # the end of the text
    return [ImageTextBatch(images, ids, list("abcd"))]


def test_two_steps_in_bfloat16(fit, tiny) -> None:
    computed: set[torch.dtype] = set()

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, nn.Linear) and isinstance(output, torch.Tensor):
            computed.add(output.dtype)

    def train(precision: str) -> tuple[float, torch.Tensor]:
        computed.clear()
        hook = nn.modules.module.register_module_forward_hook(watch)
        try:
            trainer = {"precision": precision, "max_steps": 2, "max_epochs": -1}
            module, trained = fit(precision, batches=pairs(), trainer=trainer, optim={"lr": 1e-3})
        finally:
            hook.remove()
        assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
        weights = torch.cat([parameter.detach().flatten() for parameter in module.model.parameters()])
        return float(trained.callback_metrics["train/loss"]), weights

    loss, weights = train("32-true")
    assert computed == {torch.float32}
    rough_loss, rough_weights = train("bf16-mixed")
    assert torch.bfloat16 in computed
    assert rough_loss == pytest.approx(loss, rel=0.05)
    assert rough_loss != loss
    assert torch.isfinite(rough_weights).all()
    torch.testing.assert_close(rough_weights, weights, rtol=0, atol=5e-3)  # two steps of Adam move a weight by 2 lr
