"""What layers ask of tensors does not split a compiler's graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from multimodal_zoo.nn.linear import linear
from multimodal_zoo.nn.norms import RMSNorm

NORM, MATRIX = RMSNorm(512, eps=1e-5), torch.randn(512, 512, requires_grad=True)


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("layer", [NORM, lambda tokens: linear(tokens, MATRIX)], ids=["norm", "linear"])
def test_few_rows_and_many_share_a_graph(layer: Callable[[Tensor], Tensor], learning: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    with torch.set_grad_enabled(learning):
        for rows in (3, 5, 70):
            compiled(torch.randn(rows, 512, requires_grad=learning))
    assert counter.frame_count == 1
