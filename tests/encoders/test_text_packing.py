"""Packed texts give what padded ones give, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.encoders.text_packing import locate, pack_texts, spread
from multimodal_zoo.encoders.text_transformer import ClipTextTransformer
from multimodal_zoo.nn.attention import SelfAttention
from multimodal_zoo.nn.mlp import Mlp
from multimodal_zoo.nn.norms import LayerNorm
from multimodal_zoo.nn.projections import PackedProjection
from multimodal_zoo.nn.transformer import PreNormBlock, Transformer

LENGTHS = [3, 12, 1, 5, 4, 2, 7]


def tower() -> ClipTextTransformer:
    torch.manual_seed(0)
    attention = SelfAttention(16, PackedProjection(16, 2, 8, 2, bias=True))
    block = PreNormBlock(attention, Mlp(16, 32, "gelu"), LayerNorm(16, 1e-5))
    return ClipTextTransformer(16, 12, 50, Transformer(block, 3), LayerNorm(16, 1e-5), 1.0, 1.0)


def batch() -> torch.Tensor:
    ids = torch.zeros(len(LENGTHS), 12, dtype=torch.long)
    for text, length in enumerate(LENGTHS):
        ids[text, : length - 1] = torch.randint(1, 49, (length - 1,))
        ids[text, length - 1] = 49
    return ids


def test_every_text_finds_a_row_and_rows_are_even() -> None:
    rows = spread(LENGTHS, 12)
    assert sorted(text for row in rows for text in row) == list(range(len(LENGTHS)))
    assert [sum(LENGTHS[text] for text in row) for row in rows] == [12, 11, 11]
    assert spread([4], 12) == [[0]]


def test_a_packing_points_at_every_token_once() -> None:
    packing = pack_texts(LENGTHS, 20, 12)
    real = packing.texts >= 0
    assert int(real.sum()) == sum(LENGTHS)
    assert torch.equal(packing.source[real], packing.texts[real] * 20 + packing.places[real])
    rows = torch.arange(len(packing.last))[:, None].expand_as(packing.last).flatten()[packing.order]
    last = packing.last.flatten()[packing.order]
    assert packing.texts[rows, last].tolist() == list(range(len(LENGTHS)))
    assert (packing.places[rows, last] + 1).tolist() == LENGTHS


def test_a_packed_batch_gives_what_a_padded_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tower(), batch()
    seen: list[torch.Size] = []
    model.blocks.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    weights, found = torch.randn(len(LENGTHS), 16), []
    for share in (0.9, 0.0):
        monkeypatch.setattr("multimodal_zoo.encoders.text_transformer._FULL", share)
        model.zero_grad()
        pooled = model.pooled(ids)
        (pooled * weights).sum().backward()
        found.append((pooled, [p.grad for p in model.parameters() if p.grad is not None]))
    assert seen == [(3, 12, 16), (7, 12, 16)]
    assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert_close(found[0][0], model(ids).pooled, atol=1e-5, rtol=1e-5)


def test_a_full_batch_is_left_as_it_is() -> None:
    model, ids = tower(), batch()[1:2]
    shapes: list[torch.Size] = []
    model.blocks.layers[0].register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    model.pooled(ids)
    assert shapes == [(1, 12, 16)]


def test_ids_outside_the_vocabulary_are_refused_when_packed() -> None:
    with pytest.raises(ValueError, match="ids run from 0 to 50"):
        tower().pooled(batch().index_fill(1, torch.tensor([0]), 50))


def test_texts_of_one_row_are_dropped_apart() -> None:
    """Stochastic depth is drawn for each text, so a batch in training is not packed where there is any."""
    model, ids = tower(), batch()
    shapes: list[torch.Size] = []
    model.blocks.layers[0].register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    model.blocks.layers[2].drop_path.rate = 0.5
    model.train().pooled(ids)
    model.eval().pooled(ids)
    assert [tuple(shape) for shape in shapes] == [(7, 12, 16), (3, 12, 16)]


def test_chosen_tokens_are_those_of_the_whole_tower() -> None:
    model, ids = tower().double(), batch()
    torch.manual_seed(3)
    wanted = torch.rand(ids.shape) < 0.3
    wanted[2], wanted[1, 11] = False, True  # nothing of one text, the last place of another
    found, whole = model.chosen(ids, wanted), model(ids).tokens[wanted]
    assert_close(found, whole)
    assert_close(*(torch.autograd.grad(one.square().sum(), model.positions)[0] for one in (found, whole)))


def test_chosen_tokens_of_full_texts_and_of_none() -> None:
    model, ids = tower(), torch.randint(1, 49, (3, 12))
    assert_close(model.chosen(ids, torch.ones(3, 12, dtype=torch.bool)), model(ids).tokens.flatten(0, 1))
    assert model.chosen(ids, torch.zeros(3, 12, dtype=torch.bool)).shape == (0, 16)


def test_places_of_chosen_tokens_in_packed_rows() -> None:
    packing = pack_texts(LENGTHS, 12, 12)
    wanted = torch.zeros(len(LENGTHS), 12, dtype=torch.bool)
    for text, length in enumerate(LENGTHS):
        wanted[text, [0, length - 1]] = True
    places, order = locate(packing, wanted)
    rows = torch.arange(len(places))[:, None].expand_as(places).flatten()[order]
    found = packing.source[rows, places.flatten()[order]]
    assert found.tolist() == wanted.flatten().nonzero()[:, 0].tolist()
