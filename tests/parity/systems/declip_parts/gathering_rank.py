"""One process of several: its own samples' losses against everyone's, and what reaches its own leaves.

The published code divides each process's loss by their number and adds up parameter gradients. The library's losses are
undivided, for gradients that are averaged, so the division happens here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from multimodal_zoo.encoders.dual_encoder import LogitScale, StraightThroughLogitScale
from multimodal_zoo.nn.processes import gather
from multimodal_zoo.objectives.contrastive import contrastive_loss
from multimodal_zoo.objectives.nt_xent import nt_xent
from multimodal_zoo.objectives.token_matching import token_similarity, token_wise_loss


def temperature(part: nn.Module, logarithm: float) -> nn.Module:
    """A temperature part whose parameter has this value."""
    with torch.no_grad():
        part.weight.fill_(logarithm)
    return part


def clip(image: Tensor, text: Tensor, config: dict[str, Any], logit_scale: float) -> dict[str, Tensor]:
    """Global embeddings."""
    part = temperature(StraightThroughLogitScale(), logit_scale)
    sides, scale = (F.normalize(image, dim=-1), F.normalize(text, dim=-1)), part()
    loss = contrastive_loss(*sides, scale, block_size=2).loss
    (loss / config["world_size"]).backward()
    first = dist.get_rank() * len(image)
    return {
        "logits_per_image": scale * sides[0] @ gather(sides[1]).T,
        "logits_per_text": scale * sides[1] @ gather(sides[0]).T,
        "target": torch.arange(first, first + len(image)),
        "loss": loss,
        "grad_image": image.grad,
        "grad_text": text.grad,
        "grad_logit_scale": part.weight.grad.reshape(1),
    }


def filip(image: Tensor, text: Tensor, config: dict[str, Any], logit_scale_dense: float) -> dict[str, Tensor]:
    """Token-wise similarities."""
    part = temperature(LogitScale(maximum=torch.inf), logit_scale_dense)
    sides, scale = (F.normalize(image, dim=-1), F.normalize(text, dim=-1)), part()
    loss = token_wise_loss(*sides, scale, config["top_k"], block_size=2).loss
    (loss / config["world_size"]).backward()
    similarity = token_similarity(*sides, top_k=config["top_k"])
    return {
        "logits_per_image": scale * similarity.image_to_text,
        "logits_per_text": scale * similarity.text_to_image,
        "loss": loss,
        "grad_image_tokens": image.grad,
        "grad_text_tokens": text.grad,
        "grad_logit_scale_dense": part.weight.grad.reshape(1),
    }


def simclr(first: Tensor, second: Tensor, config: dict[str, Any]) -> dict[str, Tensor]:
    """Two views of an image."""
    loss = nt_xent(first, second, config["temperature"], block_size=4)
    (loss / config["world_size"]).backward()
    return {"loss": loss, "grad_sim_1": first.grad, "grad_sim_2": second.grad}


def results_of(jobs: Sequence[dict[str, Any]], tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """All calls of the case on this process's own samples."""
    results: dict[str, Tensor] = {}
    for job in jobs:
        prefix = job["outputs"].partition(".")[0]
        leaves = [tensors[name][dist.get_rank()].clone().requires_grad_() for name in job["inputs"]]
        found = {"clip": clip, "filip": filip, "simclr": simclr}[prefix](*leaves, config, **job["extra"])
        results |= {f"{prefix}.{name}": value.detach().contiguous() for name, value in found.items()}
    return results
