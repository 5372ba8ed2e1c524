"""One process of several that compare their pairs with everyone's, in the four gather modes of EVA-CLIP's code.

The library offers one of them for training, local loss with gradients gathered (all published runs): averaged over
processes its parameter gradients are those of one process with the whole batch. The others are not offered:
`local_loss=False` computes all logits on every process for the same gradient up to a factor, and `local_loss=True`
without gathered gradients leaves a part of the gradient out. Their numbers are still reproduced, from the library's two
collectives and a written-out cross-entropy, because they show what the collectives do.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from multimodal_zoo.nn.processes import gather, gather_with_gradient
from multimodal_zoo.objectives.contrastive import contrastive_loss

MODES = [(local, gathered) for local in (False, True) for gathered in (False, True)]


def rank_step(image: Tensor, text: Tensor, scale: Tensor, local: bool, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """Loss and both accuracies of this process in one mode."""
    if local and with_gradient:
        result = contrastive_loss(image, text, scale, block_size=3)
        return result.loss, torch.stack([result.image_to_text_accuracy, result.text_to_image_accuracy])
    collect = gather_with_gradient if with_gradient else gather
    own = slice(dist.get_rank() * len(image), (dist.get_rank() + 1) * len(image))
    sides = []
    for side in (image, text):
        everyones = collect(side)
        if not local and not with_gradient:  # the own rows keep their gradient
            everyones = torch.cat([everyones[: own.start], side, everyones[own.stop :]])
        sides.append(everyones)
    rows = (image, text) if local else sides
    target = torch.arange(len(sides[0]))[own if local else slice(None)]
    logits = [scale * mine @ others.T for mine, others in zip(rows, reversed(sides), strict=True)]
    accuracy = torch.stack([(one.argmax(1) == target).float().mean() for one in logits])
    return (F.cross_entropy(logits[0], target) + F.cross_entropy(logits[1], target)) / 2, accuracy


def all_modes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What this process finds on its own part of the batch."""
    results: dict[str, Tensor] = {}
    for local, with_gradient in MODES:
        image, text = (tensors[side][dist.get_rank()].clone().requires_grad_() for side in ("image", "text"))
        logarithm = tensors["logarithm"].clone().requires_grad_()
        value, accuracy = rank_step(image, text, logarithm.exp(), local, with_gradient)
        value.backward()
        found = {"loss": value, "grad_image": image.grad, "grad_text": text.grad, "grad_logit_scale": logarithm.grad}
        prefix = f"local{local:d}_grad{with_gradient:d}_"
        results |= {prefix + name: one.detach() for name, one in {**found, "acc": accuracy}.items() if one is not None}
    return results
