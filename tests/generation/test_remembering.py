"""Reading on gives what reading anew gives, and reads less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import multimodal_zoo as zoo
from multimodal_zoo.generation.loop import generate
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.generation.remembering import Remembering
from multimodal_zoo.generation.sampling import Sampling

SMALL = ["model.decoder.width=32", "model.decoder.blocks.depth=2", "model.decoder.blocks.block.mlp.hidden=48"]
SMALL += ["model.decoder.blocks.block.attention.qkv.head_dim=8"]
BEGIN = [7, 11, 13, 2, 5, 6]


@pytest.fixture(scope="module")
def decoder() -> nn.Module:
    part = zoo.create("emu3_tiny", overrides=SMALL).decoder.eval()
    for parameter in part.parameters():
        parameter.data.mul_(8.0)  # far from uniform, so that rounding does not decide
    return part


def written(decoder: nn.Module | Remembering, prompts: PromptBatch, steps: int = 6) -> Tensor:
    return generate(decoder, prompts, FreeText(steps, None, 0), sampling=Sampling(greedy=True)).ids


def of(*rows: list[int]) -> PromptBatch:
    return left_padded(list(rows), 0)


def test_only_what_is_new_is_read(decoder: nn.Module) -> None:
    reader = Remembering(decoder)
    first = written(reader, of(BEGIN))
    assert torch.equal(first, written(decoder, of(BEGIN)))
    assert reader.read == 6 + 5
    conversation = [*BEGIN, *first[0].tolist(), 21, 22]  # the last id of the answer was not read
    found = written(reader, of(conversation))
    assert torch.equal(found, written(decoder, of(conversation)))
    assert reader.read == 11 + 3 + 5
    other = [*BEGIN[:4], 30, 31]
    assert torch.equal(written(reader, of(other)), written(decoder, of(other)))
    assert reader.read == 19 + 2 + 5


def test_the_same_prompt_again_reads_its_last_token(decoder: nn.Module) -> None:
    reader = Remembering(decoder)
    first = written(reader, of(BEGIN))
    assert torch.equal(written(reader, of(BEGIN)), first)
    assert reader.read == 11 + 1 + 5
    assert torch.equal(written(reader, of(BEGIN[:3])), written(decoder, of(BEGIN[:3])))
    assert reader.read == 17 + 1 + 5


def test_embeddings_are_compared_with_their_kind(decoder: nn.Module) -> None:
    reader, states = Remembering(decoder), decoder.embed(torch.tensor([BEGIN]))
    vision = torch.tensor([[False, True, True, False, False, False]])
    real = torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        expected = written(decoder, PromptBatch(states, real, vision))
        assert torch.equal(written(reader, PromptBatch(states, real, vision)), expected)
        assert torch.equal(written(reader, PromptBatch(states, real, vision)), expected)
        assert reader.read == 11 + 1 + 5
        written(reader, PromptBatch(states, real, ~vision))
        assert reader.read == 17 + 11


def test_padded_rows_with_nothing_in_common_are_read_as_ever(decoder: nn.Module) -> None:
    reader = Remembering(decoder)
    written(reader, of(BEGIN))
    assert torch.equal(written(reader, of(BEGIN, BEGIN[:2])), written(decoder, of(BEGIN, BEGIN[:2])))
    assert reader.read == 11 + 2 * (6 + 5)
    before = reader.read
    assert torch.equal(written(reader, of(BEGIN)), written(decoder, of(BEGIN)))
    assert reader.read == before + 1 + 5  # the row before is still known


def test_what_rows_have_in_common_is_read_once(decoder: nn.Module) -> None:
    reader = Remembering(decoder)
    first = of([*BEGIN, 31, 32, 33], [*BEGIN, 41], [*BEGIN, 51, 52])
    plain = written(decoder, first)
    assert torch.equal(written(reader, first.aligned()), plain)
    assert reader.read == 6 + 3 * (3 + 5)
    before = reader.read
    second = of([*BEGIN, 61], [*BEGIN, 71, 72])
    assert torch.equal(written(reader, second.aligned()), written(decoder, second))
    assert reader.read == before + 1 + 2 * (2 + 5)  # of what is known the last token is read for its state
    before = reader.read
    alike = of([*BEGIN, 61, 62], [*BEGIN, 71, 72])  # of one length: there is no padding
    assert torch.equal(written(reader, alike.aligned()), written(decoder, alike))
    assert reader.read == before + 1 + 2 * (2 + 5)


def test_aligned_prompts_are_not_aligned_again() -> None:
    """Their padding is inside, where a second time would take it for words."""
    once = of([7, 8, 9, 1], [7, 8, 2]).aligned()
    assert once.real.tolist() == [[True] * 4, [True, True, False, True]]
    again = once.aligned()
    assert torch.equal(again.inputs, once.inputs)
    assert torch.equal(again.real, once.real)


def test_aligned_prompts_are_the_same_prompts() -> None:
    rows = [[7, 8, 9, 1], [7, 8, 2], [7, 8, 9, 1, 3, 4]]
    plain = of(*rows)
    found = plain.aligned()
    assert [row[real].tolist() for row, real in zip(found.inputs, found.real, strict=True)] == rows
    assert found.inputs[:, :2].tolist() == [[7, 8]] * 3
    assert bool(found.real[:, :2].all())
    for one, other in zip(found.positions, found.real, strict=True):
        assert one[other].tolist() == list(range(int(other.sum())))
    states = torch.randn(100, 4)
    embedded = PromptBatch(states[plain.inputs], plain.real, plain.inputs == 8).aligned()
    assert torch.equal(embedded.inputs[embedded.real], states[found.inputs[found.real]])
    assert torch.equal(embedded.vision[embedded.real], (found.inputs == 8)[found.real])
    assert of([5, 6], [6]).aligned().real.tolist() == [[True, True], [False, True]]
