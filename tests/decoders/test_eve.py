"""EVE, both versions: rows alone, padded and packed; gradients; generation one by one and together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from eve_documents import VOCAB, WIDTH, Sample, node, packed, padded, sample, tiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.movable import changed
from multimodal_zoo.nn.patch_cells import joined
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.registry import build

VERSIONS = pytest.mark.parametrize("version", [1, 2])


def rows() -> list[Sample]:
    """A picture between texts, a text alone, two pictures side by side, a picture at the end, one text token."""
    return [
        sample(3, (2, 3), 2),
        sample(6),
        sample(1, (1, 1), (2, 2), 4),
        sample(2, (3, 1)),
        sample((1, 2), 1),
        sample(1),
    ]


@VERSIONS
def test_padded_and_packed_rows_are_those_alone(version: int) -> None:
    model, documents = tiny(version), rows()
    alone = [model(**padded([one]).inputs())[0] for one in documents]
    for arrangement in ([[one] for one in documents], [documents[:3], documents[3:5], documents[5:]], [documents]):
        batch = packed(arrangement)
        found = model(**batch.inputs())
        rows_of = [
            found[number, batch.documents[number] == place]
            for number, row in enumerate(arrangement)
            for place in range(len(row))
        ]
        assert_close(rows_of, alone, atol=1e-4, rtol=1e-4)


@VERSIONS
def test_a_row_alone_needs_no_positions_or_documents(version: int) -> None:
    model, batch = tiny(version), padded([sample(3, (2, 3), 2)])
    found = model(batch.ids, vision=batch.vision, pictures=batch.pictures)
    assert_close(found, model(**batch.inputs()))


@VERSIONS
def test_pictures_stand_where_they_should(version: int) -> None:
    model, one = tiny(version), sample(2, (1, 2), 1, (2, 1), 1)
    embedded = model.embed(one.ids[None], one.vision[None], joined(one.pictures))[0]
    text = model.decoder.token_embedding.weight[one.ids]
    pictures = [model.vision_embedding(cells) for cells in one.pictures]
    assert_close(embedded, torch.cat((text[:2], pictures[0], text[6:7], pictures[1], text[12:])))


@VERSIONS
def test_gradients_of_a_packed_batch_are_those_of_its_documents(version: int) -> None:
    model, documents = tiny(version).double(), rows()
    for one in documents:
        one.pictures = [changed(cells, lambda pixels: pixels.double()) for cells in one.pictures]
    objective = NextToken()

    def gradients(batches: list[list[list[Sample]]]) -> dict[str, Tensor]:
        model.zero_grad()
        for arrangement in batches:
            batch = packed(arrangement)
            share = batch.weights.sum() / sum(packed(other).weights.sum() for other in batches)
            (objective(model, batch)["loss"] * share).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients([[[one]] for one in documents])
    found = gradients([[documents]])
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, gradient in found.items():
        assert_close(gradient, expected[name], atol=1e-7, rtol=1e-5, msg=name)  # token losses are float32


@VERSIONS
def test_without_pictures_every_weight_has_a_gradient_while_training(version: int) -> None:
    """Processes that train together wait for each other's gradients."""
    model, batch = tiny(version).train(), padded([sample(4), sample(7)])
    NextToken()(model, batch)["loss"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    unused = {name for name, gradient in gradients.items() if not gradient.any()}
    assert {name for name in unused if "vision" not in name} == set()
    assert {name for name in gradients if "vision" in name} == unused


@VERSIONS
def test_without_pictures_a_frozen_embedding_layer_is_left_alone(version: int) -> None:
    model, batch = tiny(version), padded([sample(4)])
    expected = model(**batch.inputs())
    assert torch.equal(model.train()(**batch.inputs()), expected)
    model.vision_embedding.requires_grad_(False)
    assert torch.equal(model(**batch.inputs()), expected)


def alone(model: Eve, one: Sample, steps: int) -> list[int]:
    """The most likely ids behind a prompt, the whole sequence read anew for each."""
    ids, vision = one.ids, one.vision
    pictures = joined(one.pictures) if one.pictures else None
    for _ in range(steps):
        hidden = model(ids[None], vision=vision[None], pictures=pictures)
        ids = torch.cat((ids, model.decoder.head(hidden[0, -1]).argmax()[None]))
        vision = torch.cat((vision, torch.tensor([False])))
    return ids[len(one) :].tolist()


@VERSIONS
def test_generating_together_is_generating_one_by_one(version: int) -> None:
    """Prompts of different lengths with no, one and several pictures; the cache against reading all anew."""
    model, steps = tiny(version), 6
    prompts = rows()
    expected = [alone(model, one, steps) for one in prompts]
    assert len({tuple(one) for one in expected}) > 2
    policy = FreeText(steps, None, 0)
    for group in (range(6), range(5, -1, -1), (1, 5), *[(number,) for number in range(6)]):
        chosen = [prompts[number] for number in group]
        pictures = [cells for one in chosen for cells in one.pictures]
        batch = model.prompts(
            [one.ids for one in chosen],
            [one.vision for one in chosen],
            joined(pictures) if pictures else None,
            0,
        )
        found = model.generate(batch, policy, sampling=Sampling(greedy=True)).ids
        assert found.tolist() == [expected[number] for number in group]


@VERSIONS
def test_rows_end_on_their_own(version: int) -> None:
    model, prompts = tiny(version), rows()[:4]
    expected = [alone(model, one, 6) for one in prompts]
    end = expected[0][2]
    pictures = joined([cells for one in prompts for cells in one.pictures])
    batch = model.prompts([one.ids for one in prompts], [one.vision for one in prompts], pictures, 0)
    found = model.generate(batch, FreeText(6, end, VOCAB - 1), sampling=Sampling(greedy=True)).ids.tolist()
    for row, whole in zip(found, expected, strict=True):
        stop = whole.index(end) + 1 if end in whole else 6
        assert row[:stop] == whole[:stop]
        assert set(row[stop:]) <= {VOCAB - 1}


@VERSIONS
def test_what_is_right_of_a_row_changes_nothing(version: int) -> None:
    """The other side of padding: states of rows padded on the right, whatever stands there."""
    model, documents = tiny(version), rows()
    batch = padded(documents)
    found = model(**batch.inputs())
    batch.ids[batch.documents < 0] = 7
    assert torch.equal(model(**batch.inputs())[batch.documents >= 0], found[batch.documents >= 0])


@VERSIONS
def test_saving_and_loading(version: int, tmp_path: Path) -> None:
    model, batch = tiny(version, aligned=version == 1), padded(rows())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = tiny(version, aligned=version == 1, seed=1)
    assert not torch.equal(other(**batch.inputs()), model(**batch.inputs()))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(**batch.inputs()), model(**batch.inputs()))


@VERSIONS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float16, 5e-2)])
def test_other_types(version: int, dtype: torch.dtype, tolerance: float) -> None:
    model, batch = tiny(version), padded(rows())
    expected = model(**batch.inputs())
    assert batch.pictures is not None
    batch.pictures = changed(batch.pictures, lambda pixels: pixels.to(dtype))
    found = model.to(dtype)(**batch.inputs())
    assert found.dtype == dtype
    assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


@VERSIONS
def test_on_meta_nothing_is_allocated(version: int) -> None:
    with torch.device("meta"):
        model = build(node(version), path="model")
    assert all(p.is_meta for p in (*model.parameters(), *model.buffers()))
    assert {name: p.shape for name, p in model.named_parameters()} == {
        name: p.shape for name, p in tiny(version).named_parameters()
    }


@VERSIONS
def test_places_and_pictures_that_do_not_fit(version: int) -> None:
    model, batch = tiny(version), padded(rows())
    assert batch.pictures is not None
    with pytest.raises(ValueError, match="5 pictures without places"):
        model(batch.ids, pictures=batch.pictures)
    fewer = batch.vision.clone()
    fewer[fewer.nonzero()[0, 0], fewer.nonzero()[0, 1]] = False
    count = int(batch.vision.sum())
    with pytest.raises(ValueError, match=f"{count - 1} places for {count} tokens of {len(batch.pictures)} pictures"):
        model(batch.ids, vision=fewer, pictures=batch.pictures)
    with pytest.raises(ValueError, match=r"ids run from .* decoder\.vocab_size is 40"):
        model(batch.ids + VOCAB, vision=batch.vision, pictures=batch.pictures)


def test_parts_of_other_widths_are_refused() -> None:
    config = node(1)
    config["vision_embedding"]["width"] = WIDTH + 1
    with pytest.raises(ValueError, match=r"model\.vision_embedding\.width is 17, model\.decoder\.width is 16"):
        build(config, path="model")
    config = node(2)
    config["aligner"] = {"type": "patch_aligning", "width": 8, "teacher_width": 8, "depth": 4}
    with pytest.raises(ValueError, match=r"model\.aligner\.width is 8"):
        build(config, path="model")
