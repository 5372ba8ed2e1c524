"""torch.compile takes EVA towers whole: no graph break, forward and backward, and no new graph for each batch size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import multimodal_zoo as zoo

SHORT = ["model.image.blocks.depth=1", "model.text.blocks.depth=1"]
POST_NORM = [
    "encoder@model.image=eva_vit_18b",
    "model.image.width=64",
    "model.image.image_size=42",
    "model.image.blocks.depth=1",
    "model.image.blocks.block.attention.qkv.heads=4",
    "model.image.blocks.block.attention.qkv.head_dim=16",
    "model.image.blocks.block.mlp.hidden=96",
    "model.text.blocks.depth=1",
]
TOWERS = {
    "rotary, sub-LN, SwiGLU": ("eva_clip_tiny", SHORT),
    "post-norm, RMS": ("eva_clip_tiny", POST_NORM),
}


def inputs(model: nn.Module, batch: int, tokens: int = 9) -> tuple[Tensor, Tensor]:
    side = int(model.image.image_size)
    return torch.randn(batch, 3, side, side), torch.randint(1, int(model.text.vocab_size), (batch, tokens))


def gradients(model: nn.Module, call: nn.Module, images: Tensor, ids: Tensor) -> list[Tensor]:
    model.zero_grad()
    out = call(images, ids)
    (out.logit_scale * out.image @ out.text.T).logsumexp(1).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", TOWERS)
def test_one_graph_for_all_batches_forward_and_backward(name: str) -> None:
    variant, overrides = TOWERS[name]
    model = zoo.create(variant, overrides=overrides).train()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)  # a graph break is an error
    for batch in (4, 3, 6):
        images, ids = inputs(model, batch)
        expected = gradients(model, model, images, ids)
        found = gradients(model, compiled, images, ids)
        assert len(found) == len(expected) > 0
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5 * float(1 + b.abs().max()))
    assert counter.frame_count <= 2  # the first batch with its own size, all others with an open one


@pytest.mark.parametrize(
    "more",
    [
        ["model.image.patch_dropout.rate=0.5", "model.image.blocks.drop_path=0.2"],
        ["model.image.blocks.checkpoint=block"],
    ],
)
def test_dropping_and_recomputing_break_no_graph(more: list[str]) -> None:
    words = ["model.text.blocks.depth=1", "model.image.blocks.depth=2", *more]
    model = zoo.create("eva_clip_tiny", overrides=words).train()
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model)(*inputs(model, 3))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def test_one_graph_for_texts_of_any_length() -> None:
    model = zoo.create("eva_clip_tiny", overrides=SHORT).eval()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model.encode_text, backend=counter, fullgraph=True)
    for tokens in (9, 5, 16, 7):
        ids = inputs(model, 4, tokens)[1]
        torch.testing.assert_close(compiled(ids), model.encode_text(ids))
    assert counter.frame_count <= 2
