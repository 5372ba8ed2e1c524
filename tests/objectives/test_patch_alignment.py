"""Next-token prediction with patch alignment against its parts, computed one by one."""

from __future__ import annotations

import pytest
import torch
from eve_documents import Sample, Squares, packed, padded, sample, tiny, watched
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.decoders.patch_aligning import PatchAligning
from multimodal_zoo.encoders.masked_student import PatchFeatures
from multimodal_zoo.encoders.patch_teacher import PatchTeacher
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.patch_alignment import (
    DISTANCES,
    AlignedNextToken,
    boxed,
    cosine_distance,
    no_distance,
    picture_distances,
    squared_distance,
)


def objective(**more: object) -> AlignedNextToken:
    torch.manual_seed(3)
    return AlignedNextToken(NextToken(), PatchTeacher(Squares(), layer=-2), **more)


def model() -> Eve:
    return tiny(1, aligned=True).train()


def documents() -> list[Sample]:
    return [sample(2, (2, 3), 3), sample(5), sample((1, 1), 1, (4, 2), 2)]


def by_hand(model: Eve, batch: PictureTokenBatch, teacher: PatchTeacher) -> Tensor:
    """The mean over pictures of the mean over patches of 1 - cos, from all states of all layers."""
    stack: list[Tensor] = []
    model(**batch.inputs(), observe=lambda passed, stream: stack.append(stream))
    assert batch.pictures is not None
    places = batch.vision.flatten().nonzero().flatten().split(batch.pictures.tokens)
    features, means = teacher(batch.teacher).tokens.unflatten(1, (6, 6)), []
    for number, (rows, columns) in enumerate(batch.pictures.grids):
        own = places[number][1:].unflatten(0, (rows, columns + 1))[:, :-1].flatten()
        tapped = [stack[layer].flatten(0, 1)[own] for layer in model.aligner.taps]
        top, left, high, wide = batch.boxes[number]
        target = features[number, top : top + high, left : left + wide].flatten(0, 1)
        means.append((1 - torch.cosine_similarity(model.aligner(tapped), target, dim=-1)).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize("together", [False, True])
def test_the_loss_is_the_sum_of_its_parts(together: bool) -> None:
    """One picture of a row or several, one document of a row or several."""
    eve, aligned, own = model(), objective(weight=0.7), documents()
    batch = watched(packed([own]) if together else padded(own))
    found = aligned(eve, batch)
    language, alignment = NextToken()(eve, batch)["loss"], by_hand(eve, batch, aligned.teacher)
    assert_close(found["language_loss"], language.detach())
    assert_close(found["alignment_loss"], alignment.detach())
    parameters = list(eve.parameters())
    expected = torch.autograd.grad(language + 0.7 * alignment, parameters)
    assert_close(found["loss"], language + 0.7 * alignment)
    assert_close(torch.autograd.grad(found["loss"], parameters), expected, atol=1e-5, rtol=1e-4)


def test_packing_changes_nothing() -> None:
    eve, aligned, own = model(), objective(), documents()
    first, second = watched(padded(own)), watched(packed([own[:2], own[2:]]))
    second.teacher = first.teacher
    assert_close(aligned(eve, first)["loss"], aligned(eve, second)["loss"])


def test_cells_finer_than_the_teachers_patches_are_averaged() -> None:
    eve, aligned = model(), objective()
    batch = watched(padded([sample(1, (4, 2), 2)]), ratio=2)
    stack: list[Tensor] = []
    eve(**batch.inputs(), observe=lambda passed, stream: stack.append(stream))
    cells = [stack[layer][0, 2:14].unflatten(0, (4, 3))[:, :2] for layer in eve.aligner.taps]
    means = [one.unflatten(0, (2, 2)).mean((1, 2)) for one in cells]  # two patches, of 2 x 2 cells
    target = aligned.teacher(batch.teacher).tokens[0, [1, 7]]
    expected = (1 - torch.cosine_similarity(eve.aligner(means), target, dim=-1)).mean()
    assert_close(aligned(eve, batch)["alignment_loss"], expected.detach())


def test_the_papers_distance_is_twice_the_codes() -> None:
    prediction, target = torch.randn(2, 5, 8)
    assert_close(squared_distance(prediction, target), 2 * cosine_distance(prediction, target))
    assert set(DISTANCES) == {"cosine", "mse"}
    eve, batch = model(), watched(padded(documents()))
    losses = {name: objective(distance=name)(eve, batch)["alignment_loss"] for name in DISTANCES}
    assert_close(losses["mse"], 2 * losses["cosine"])
    half = cosine_distance(prediction.half(), target.half())
    assert half.dtype == torch.float32
    with pytest.raises(ValueError, match="'l1'; it takes cosine, mse"):
        objective(distance="l1")


def test_in_evaluation_there_is_language_only() -> None:
    eve, batch = model().eval(), padded(documents())
    found = objective()(eve, batch)
    assert_close(found["loss"], NextToken()(eve, batch)["loss"])
    assert "alignment_loss" not in found


def test_text_alone_adds_nothing_and_leaves_no_weight_without_gradient() -> None:
    eve, batch = model(), padded([sample(4), sample(6)])
    found = objective()(eve, batch)
    assert_close(found["loss"], NextToken()(eve, batch)["loss"])
    found["loss"].backward()
    assert all(p.grad is not None for p in eve.parameters())
    assert not any(p.grad.any() for p in eve.aligner.parameters())


def test_the_teacher_stays_out() -> None:
    eve, aligned = model(), objective()
    aligned(eve, watched(padded(documents())))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in aligned.teacher.parameters())
    assert not list(aligned.parameters())
    assert not aligned.state_dict()
    assert not aligned.train().teacher.training
    aligned.double()
    assert next(aligned.teacher.parameters()).dtype == torch.float64


def test_boxes_are_cut_row_by_row() -> None:
    features = torch.arange(2 * 6).reshape(2, 6, 1)
    found = boxed(features, (2, 3), [(0, 1, 2, 2), (1, 0, 1, 3)])
    assert found.flatten().tolist() == [1, 2, 4, 5, 9, 10, 11]


def test_what_does_not_fit_is_refused() -> None:
    aligned = objective()
    aligned.check(tiny(1, aligned=True))
    with pytest.raises(ValueError, match=r"needs model\.aligner"):
        aligned.check(tiny(1))
    other = tiny(1, aligned=True)
    other.aligner.teacher_width = 24
    with pytest.raises(ValueError, match=r"teacher_width is 24, the teacher's features are 8 wide"):
        aligned.check(other)
    with pytest.raises(ValueError, match=r"data\.teacher=true"):
        aligned(model(), padded(documents()))
    batch = watched(padded(documents()))
    batch.boxes[0] = (0, 0, 2, 2)
    with pytest.raises(ValueError, match="2 x 3 cells shows 2 x 2 patches"):
        aligned(model(), batch)


def test_processes_with_and_without_pictures_exchange_one_type() -> None:
    """In half precision the features are half, and what processes gather of both must be of one size."""
    aligner = PatchAligning(16, 8, 2, every=1).bfloat16()
    tapped = [torch.randn(1, 16, dtype=torch.bfloat16) for _ in aligner.taps]
    features = PatchFeatures(torch.randn(1, 1, 8, dtype=torch.bfloat16), (1, 1))
    found = picture_distances(aligner, tapped, features, [(0, 0, 1, 1)], "cosine")
    assert no_distance(aligner, tapped).dtype == found.dtype == torch.float32
