"""A causal decoder by itself."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.decoders.causal_decoder import CausalDecoder


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return zoo.create("capsfus_llama_tiny").eval()


@torch.no_grad()
def test_it_is_its_decoder(model: torch.nn.Module) -> None:
    ids = torch.randint(0, 1027, (2, 9), generator=torch.Generator().manual_seed(0))
    assert isinstance(model.decoder, CausalDecoder)
    assert torch.equal(model(ids), model.decoder(ids))


@torch.no_grad()
def test_documents_in_one_row_do_not_see_each_other(model: torch.nn.Module) -> None:
    ids = torch.randint(0, 1027, (1, 9), generator=torch.Generator().manual_seed(1))
    documents, positions = torch.tensor([[0] * 4 + [1] * 5]), torch.tensor([[*range(4), *range(5)]])
    found = model(ids, positions=positions, documents=documents)
    assert_close(found[:, :4], model(ids[:, :4]), atol=1e-5, rtol=1e-4)
    assert_close(found[:, 4:], model(ids[:, 4:]), atol=1e-5, rtol=1e-4)


def test_the_published_student_has_one_row_more_than_llama() -> None:
    student = zoo.create("capsfus_llama_13b", device="meta")
    assert student.decoder.vocab_size == 32001
    assert student.decoder.head_weight.shape == (32001, 5120)
    assert sum(parameter.numel() for parameter in student.parameters()) == 13_015_874_560
