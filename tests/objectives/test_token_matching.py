"""Token-wise matching against the array of all products, the published cases and gradcheck."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from multimodal_zoo.nn import best_matches
from multimodal_zoo.objectives.token_matching import kept_tokens, token_similarity, token_wise_loss

GOLDENS = Path(__file__).parents[1] / "goldens/declip"
IMAGE, TEXT = 5, 7


def tokens(batch: int, width: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    sides = (F.normalize(torch.randn(batch, n, width, dtype=dtype), dim=-1).requires_grad_() for n in (IMAGE, TEXT))
    return *sides, torch.tensor(9.0, dtype=dtype, requires_grad=True)


def lengths(batch: int) -> Tensor:
    """A mask of texts of 2 to 7 words."""
    return torch.arange(TEXT) < 2 + torch.arange(batch)[:, None] * 3 % (TEXT - 1)


def written_out(
    image: Tensor, text: Tensor, top_k: int | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Both directions' similarities, from each text's real words alone, pair by pair."""
    texts = [row if mask is None else row[mask[i]] for i, row in enumerate(text)]
    images = list(image)
    if top_k is not None:
        own = [a @ b.T for a, b in zip(images, texts, strict=True)]
        images = [a[s.sum(1).topk(min(top_k, len(a))).indices] for a, s in zip(images, own, strict=True)]
        kept = [b[s.sum(0).topk(min(top_k, len(b))).indices] for b, s in zip(texts, own, strict=True)]
    else:
        kept = texts
    forth = torch.stack([torch.stack([(a @ b.T).amax(1).mean() for b in kept]) for a in image])
    return forth, torch.stack([torch.stack([(b @ a.T).amax(1).mean() for a in images]) for b in texts])


def reference(
    image: Tensor, text: Tensor, scale: Tensor, top_k: int | None, mask: Tensor | None, concepts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    target, losses, hits = torch.arange(len(image)), [], []
    for side in written_out(image, text, top_k, mask):
        logits = scale * side
        if concepts is not None:
            same = (concepts[:, None] == concepts) & (concepts >= 0) & ~torch.eye(len(image), dtype=torch.bool)
            logits = logits.masked_fill(same, -math.inf)
        losses.append(F.cross_entropy(logits, target))
        hits.append((logits.argmax(1) == target).double().mean())
    return (losses[0] + losses[1]) / 2, hits[0], hits[1]


@pytest.mark.parametrize(("dense", "kept"), [(False, math.inf), (True, math.inf), (False, 0.0)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("top_k", [None, 1, 6, 50])
@pytest.mark.parametrize(("batch", "block_size"), [(1, 16), (6, 1), (6, 4), (6, 100)])
def test_equals_the_array_of_all_products(
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    block_size: int,
    top_k: int | None,
    masked: bool,
    dense: bool,
    kept: float,
) -> None:
    monkeypatch.setattr(best_matches, "DENSE_FROM_THREADS", 0 if dense else 1000)
    monkeypatch.setattr(best_matches, "KEPT_SHARE", kept)
    inputs, mask = tokens(batch), lengths(batch) if masked else None
    concepts = torch.tensor([0, 1, 0, -1, -1, 2])[:batch]
    for known in (None, concepts):
        ours = token_wise_loss(*inputs, top_k, mask, known, block_size)
        theirs = reference(*inputs, top_k, mask, known)
        for mine, expected in zip(ours, theirs, strict=True):
            assert_close(mine, expected)
        gradients = (torch.autograd.grad(2.5 * loss, inputs) for loss in (ours.loss, theirs[0]))
        for mine, expected in zip(*gradients, strict=True):
            assert_close(mine, expected)


@pytest.mark.parametrize("top_k", [None, 2])
def test_gradcheck(top_k: int | None) -> None:
    torch.manual_seed(3)
    inputs, mask = tokens(3, width=3), lengths(3)
    assert torch.autograd.gradcheck(lambda i, t, s: token_wise_loss(i, t, s, top_k, mask, block_size=2).loss, inputs)


@pytest.mark.parametrize("name", ["loss_filip_top16", "loss_filip_all_tokens"])
def test_published_similarities(name: str) -> None:
    case, config = load_file(GOLDENS / name / "io.safetensors"), json.loads((GOLDENS / name / "case.json").read_text())
    sides = [F.normalize(case[side], dim=-1) for side in ("image_tokens", "text_tokens")]
    top_k = config["config"]["top_k"]
    found = token_similarity(*sides, top_k=top_k, block_size=3)
    assert_close(found.image_to_text / 0.07, case["dense_logits_per_image"], atol=1e-4, rtol=1e-4)
    assert_close(found.text_to_image / 0.07, case["dense_logits_per_text"], atol=1e-4, rtol=1e-4)
    loss = token_wise_loss(*sides, torch.tensor(1 / 0.07), top_k).loss
    assert_close(loss, case["dense_loss"], atol=1e-5, rtol=1e-4)
    if top_k is not None:
        for side, kept in zip(("image", "text"), kept_tokens(*sides, top_k), strict=True):
            assert torch.equal(kept.sort(1).values, case[f"kept_{side}_tokens"].sort(1).values)


def test_padding_is_as_if_it_were_not_there() -> None:
    image, text, scale = tokens(4)
    padded = torch.cat([text, torch.full_like(text[:, :2], 9.0)], dim=1)  # it would win every comparison
    mask = torch.arange(TEXT + 2).expand(4, -1) < TEXT
    for top_k in (None, 3, TEXT + 1):
        expected = token_wise_loss(image, text, scale, top_k)
        found = token_wise_loss(image, padded, scale, top_k, mask)
        assert_close(found.loss, expected.loss)
        gradients = (torch.autograd.grad(loss, (image, text, scale)) for loss in (found.loss, expected.loss))
        for mine, theirs in zip(*gradients, strict=True):
            assert_close(mine, theirs)


@pytest.mark.parametrize("count", [256, 257, 300])
def test_places_of_long_sequences_fit(count: int) -> None:
    image = F.normalize(torch.randn(2, count, 4, dtype=torch.float64), dim=-1).requires_grad_()
    text = F.normalize(torch.randn(2, 3, 4, dtype=torch.float64), dim=-1).requires_grad_()
    ours, theirs = token_similarity(image, text), written_out(image, text)
    weights = torch.randn(2, 2, dtype=torch.float64)
    gradients = (torch.autograd.grad((a * weights + b).sum(), (image, text)) for a, b in (ours, theirs))
    for mine, expected in zip(*gradients, strict=True):
        assert_close(mine, expected)


def test_smallest_integers() -> None:
    counts = {256: torch.uint8, 257: torch.int16, 2**15: torch.int16, 2**15 + 1: torch.int32}
    assert {count: best_matches._smallest_integer(count) for count in counts} == counts


@pytest.mark.parametrize("top_k", [None, 3])
def test_layout_and_frozen_sides_do_not_matter(top_k: int | None) -> None:
    image, text, scale = tokens(4)
    expected = torch.autograd.grad(token_wise_loss(image, text, scale, top_k).loss, (image, text))
    turned = [side.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_() for side in (image, text)]
    for mine, theirs in zip(
        torch.autograd.grad(token_wise_loss(*turned, scale, top_k).loss, turned), expected, strict=True
    ):
        assert_close(mine, theirs)
    frozen = token_wise_loss(image, text.detach(), scale.detach(), top_k).loss
    assert_close(torch.autograd.grad(frozen, image)[0], expected[0])
    frozen = token_wise_loss(image.detach(), text, scale.detach(), top_k).loss
    assert_close(torch.autograd.grad(frozen, text)[0], expected[1])


@pytest.mark.parametrize("top_k", [None, 3])
def test_without_gradients_no_places_are_kept(monkeypatch: pytest.MonkeyPatch, top_k: int | None) -> None:
    image, text, _ = tokens(4)
    expected = token_similarity(image, text, lengths(4), top_k)
    monkeypatch.setattr(best_matches, "_smallest_integer", lambda count: pytest.fail("places were kept"))
    for mine, theirs in zip(token_similarity(image.detach(), text.detach(), lengths(4), top_k), expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens_are_compared_in_float32(dtype: torch.dtype, top_k: int | None) -> None:
    image, text = (side.detach().to(dtype) for side in tokens(5)[:2])
    image.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = token_wise_loss(image, text, torch.tensor(50.0), top_k).loss
    expected = token_wise_loss(image.detach().float(), text.float(), torch.tensor(50.0), top_k).loss
    assert loss.dtype == torch.float32
    assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    assert image.grad is not None
    assert image.grad.dtype == dtype


def test_inputs_stay_as_they_are_and_nan_is_not_hidden() -> None:
    inputs, mask = tokens(4), lengths(4)
    before = [tensor.detach().clone() for tensor in (*inputs, mask)]
    for top_k in (None, 3):
        token_wise_loss(*inputs, top_k, mask).loss.backward()
        assert token_wise_loss(inputs[0] * math.nan, *inputs[1:], top_k, mask).loss.isnan()
    for tensor, copy in zip((*inputs, mask), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize(("kept", "tiles"), [(math.inf, 64), (0.0, 128)])
def test_tiles_are_all_that_is_held(monkeypatch: pytest.MonkeyPatch, kept: float, tiles: int) -> None:
    sizes: list[int] = []
    product = torch.mm

    def watched(*args: Tensor, out: Tensor) -> Tensor:
        sizes.append(out.numel())
        return product(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    monkeypatch.setattr(best_matches, "KEPT_SHARE", kept)
    token_wise_loss(*tokens(32), None, block_size=4).loss.backward()
    assert (len(sizes), max(sizes)) == (tiles, 4 * IMAGE * 4 * TEXT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 3, 4)), r"image \(2, 3\), text \(2, 3, 4\)"),
        ((torch.ones(0, 3, 4), torch.ones(0, 3, 4)), "none of them 0"),
        ((torch.ones(2, 3, 4), torch.ones(2, 0, 4)), "none of them 0"),
        ((torch.ones(2, 3, 4), torch.ones(3, 3, 4)), "same batch and width"),
        ((torch.ones(2, 3, 4), torch.ones(2, 3, 5)), "same batch and width"),
        ((torch.ones(2, 3, 4).long(), torch.ones(2, 3, 4)), "int64"),
        ((torch.ones(2, 3, 4), torch.ones(2, 5, 4), torch.ones(2, 3).bool()), r"text_mask must be \(2, 5\)"),
        ((torch.ones(2, 3, 4), torch.ones(2, 5, 4), torch.ones(2, 5)), "of torch.bool, not .* torch.float32"),
        ((torch.ones(2, 3, 4), torch.ones(2, 1, 4), torch.tensor([[True], [False]])), "text 1 of the batch"),
        ((torch.ones(2, 3, 4), torch.ones(2, 5, 4), None, 0), "top_k is 0"),
        ((torch.ones(2, 3, 4), torch.ones(2, 5, 4), None, 1, 0), "block_size is 0"),
    ],
)
def test_bad_input_names_the_value(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_similarity(*arguments)


def test_loss_refuses_other_shapes_of_scale_and_concepts() -> None:
    image, text, scale = tokens(3)
    with pytest.raises(ValueError, match=r"scale must be one number, not a tensor of shape \(2,\)"):
        token_wise_loss(image, text, torch.ones(2), None)
    with pytest.raises(ValueError, match=r"concepts must be \(3,\)"):
        token_wise_loss(image, text, scale, None, concepts=torch.zeros(4).long())
