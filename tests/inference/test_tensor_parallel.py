"""A decoder split inside its layers over two gloo processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.tensor_parallel import tensor_parallel
from multimodal_zoo.zoo import create

WORLD = 2
ROWS = [torch.arange(5, 12), torch.arange(30, 33)]


class OneProcess:
    """A mesh as far as the checks look at it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def size(self) -> int:
        return self.count


def results(model: torch.nn.Module) -> dict[str, Tensor]:
    """Hidden states, generated ids and generated visual embeddings of a batch of unequal prompts."""
    torch.manual_seed(3)
    nothing = [torch.zeros(len(row), dtype=torch.bool) for row in ROWS]
    with torch.no_grad():
        hidden = model.decoder(torch.arange(10)[None])
        prompts = model.prompts(ROWS, nothing, None, 0)
        ids = model.generate(prompts, FreeText(5, None, 0), sampling=Sampling(greedy=True)).ids
        return {"hidden": hidden, "ids": ids, "visual": model.imagine(prompts, 4)}


def work() -> dict[str, Tensor]:
    """What one process finds, and how much of a matrix it holds."""
    model = tensor_parallel(create("emu2_tiny", seed=5).eval(), dist.init_device_mesh("cpu", (WORLD,)))
    held = model.decoder.blocks.layers[0].mlp.up.weight.to_local().shape
    return {**results(model), "held": torch.tensor(held)}


@pytest.mark.multiprocess
def test_two_processes_give_what_one_gives():
    processes = forked(WORLD, work)
    model = create("emu2_tiny", seed=5).eval()
    expected = results(model)
    for found in processes:
        rows, columns = model.decoder.blocks.layers[0].mlp.up.weight.shape
        assert found.pop("held").tolist() == [rows // WORLD, columns]
        assert torch.equal(found.pop("ids"), expected["ids"])
        for name, value in found.items():
            assert_close(value, expected[name], atol=1e-4, rtol=1e-4)


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match=r"heads is 4, kv_heads is 4.*3 processes"):
        tensor_parallel(create("emu2_tiny"), OneProcess(3))
    adapter = "+model.decoder.blocks.adapter={type: low_rank, rank: 2, alpha: 2, dropout: 0.0, layers: [attention.out]}"
    with pytest.raises(ValueError, match="merge_adapters"):
        tensor_parallel(create("emu2_tiny", overrides=[adapter]), OneProcess(2))
