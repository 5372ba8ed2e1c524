"""The LAMB that conf/optim/lamb.yaml names takes the published steps."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build

GOLDEN = Path(__file__).parent / "goldens" / "eva_clip" / "lamb_steps"


def test_three_steps() -> None:
    case, tensors = json.loads((GOLDEN / "case.json").read_text()), load_file(GOLDEN / "io.safetensors")
    config = case["config"]
    groups = [
        {"params": [nn.Parameter(tensors[f"param{i}"].clone())], "lr": config["lr"][i], "weight_decay": decay}
        for i, decay in enumerate(config["weight_decay"])
    ]
    node = compose(None, ["+optim=lamb", "optim.max_grad_norm=1.0", "optim.eps=1e-8", "optim.betas=[0.9,0.999]"]).optim
    plain = {key: value for key, value in OmegaConf.to_container(node).items() if key != "groups"}
    optimizer = build(plain, params=groups)
    for step in range(3):
        for i, group in enumerate(groups):
            group["params"][0].grad = tensors[f"grad{i}_step{step}"]
        optimizer.step()
        for i, group in enumerate(groups):
            torch.testing.assert_close(
                group["params"][0].detach(), tensors[f"param{i}_after{step}"], atol=1e-6, rtol=1e-5
            )
