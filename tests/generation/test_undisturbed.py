"""What decoding gives may take part in training afterwards, however it ran."""

from __future__ import annotations

import torch
from torch import nn

from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.undisturbed import undisturbed
from multimodal_zoo.zoo import create


def mode(decoder: object) -> bool:
    """Whether tensors made inside count no changes."""
    with undisturbed(decoder):
        return torch.ones(1).is_inference()


def test_plain_weights_run_without_bookkeeping_and_others_as_torch_has_it() -> None:
    model = nn.Linear(3, 3)
    assert mode(model)
    assert not mode(object())
    model._hf_hook = None  # weights come and go
    assert not mode(model)
    other = nn.Linear(3, 3)
    other.weight = type("Shrunk", (nn.Parameter,), {})(other.weight.data)
    assert not mode(other)


def test_results_are_ordinary_tensors() -> None:
    model = create("emu2_tiny", seed=1).eval()
    prompts = model.prompts([torch.arange(3, 9)], [torch.zeros(6, dtype=torch.bool)], None, 0)
    ids = model.generate(prompts, FreeText(4, None, 0)).ids
    visual = model.imagine(prompts, 3)
    assert not ids.is_inference()
    assert not visual.is_inference()
    assert not any(parameter.is_inference() for parameter in model.parameters())
    model.train()
    loss = model.decoder(ids).square().mean() + model.decoder(model.project(visual)).square().mean()
    loss.backward()
    assert model.input_projection.weight.grad.abs().sum() > 0
    assert model.decoder.token_embedding.weight.grad.abs().sum() > 0
