"""The contrastive loss against open_clip, published golden cases, gradcheck and the written-out matrix."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective, contrastive_loss
from multimodal_zoo.registry import build

GOLDENS = Path(__file__).parents[1] / "goldens"


def features(batch: int, width: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    image, text = (F.normalize(torch.randn(batch, width, dtype=dtype), dim=-1).requires_grad_() for _ in range(2))
    return image, text, torch.tensor(14.3, dtype=dtype, requires_grad=True)


def written_out(image: Tensor, text: Tensor, scale: Tensor, concepts: Tensor | None = None) -> Tensor:
    logits = scale * image @ text.T
    if concepts is not None:
        same = (concepts[:, None] == concepts) & (concepts >= 0) & ~torch.eye(len(image), dtype=torch.bool)
        logits = logits.masked_fill(same, -math.inf)
    target = torch.arange(len(image))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@pytest.mark.parametrize("batch", [1, 2, 7, 16])
@pytest.mark.parametrize("block_size", [1, 3, 16, 100])
def test_equals_open_clip(batch: int, block_size: int) -> None:
    inputs = features(batch)
    ours = contrastive_loss(*inputs, block_size=block_size).loss
    theirs = ClipLoss()(*inputs)
    assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    for mine, reference in zip(
        torch.autograd.grad(2.5 * ours, inputs), torch.autograd.grad(2.5 * theirs, inputs), strict=True
    ):
        assert_close(mine, reference, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("concepts", [None, [0, 1, 0, 2, 1, 0, 3], [5] * 7, [-1, -1, 2, 2, -1, 3, 4]])
@pytest.mark.parametrize("block_size", [2, 100])
def test_pairs_of_one_concept_are_not_negatives(concepts: list[int] | None, block_size: int) -> None:
    inputs = features(7, dtype=torch.float64)
    ids = None if concepts is None else torch.tensor(concepts)
    ours, reference = contrastive_loss(*inputs, ids, block_size).loss, written_out(*inputs, ids)
    assert_close(ours, reference)
    gradients = torch.autograd.grad(ours, inputs), torch.autograd.grad(reference, inputs)
    for mine, expected in zip(*gradients, strict=True):
        assert_close(mine, expected)


def test_one_concept_in_the_whole_batch_leaves_nothing_to_learn() -> None:
    inputs = features(4)
    loss, image_hits, text_hits = contrastive_loss(*inputs, torch.zeros(4, dtype=torch.long), block_size=1)
    assert (loss.item(), image_hits.item(), text_hits.item()) == (0.0, 1.0, 1.0)
    for gradient in torch.autograd.grad(loss, inputs):
        assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("block_size", [2, 5])
def test_gradcheck(block_size: int) -> None:
    concepts = torch.tensor([0, 1, 0, 2, 3])
    inputs = features(5, width=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda i, t, s: contrastive_loss(i, t, s, concepts, block_size).loss, inputs)


def test_only_the_scale_may_ask_for_a_gradient() -> None:
    image, text, scale = features(5)
    expected = torch.autograd.grad(written_out(image, text, scale), scale)
    frozen = contrastive_loss(image.detach(), text.detach(), scale, block_size=2).loss
    assert_close(torch.autograd.grad(frozen, scale), expected)
    one_sided = contrastive_loss(image, text.detach(), scale.detach()).loss
    assert_close(torch.autograd.grad(one_sided, image), torch.autograd.grad(written_out(image, text, scale), image))


def test_large_scale_and_far_apart_rows_do_not_overflow() -> None:
    image = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    scale = torch.tensor(400.0)
    for dtype in (torch.float32, torch.float64):
        loss = contrastive_loss(image.to(dtype), text.to(dtype), scale, block_size=1).loss
        assert_close(loss.double(), written_out(image, text, scale.double()), atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype: torch.dtype) -> None:
    image, text, _ = features(9)
    image, text = image.detach().to(dtype), text.detach().to(dtype)
    scale = torch.tensor(100.0)
    image.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(image, text, scale, block_size=4).loss
    assert loss.dtype == torch.float32
    assert_close(loss, written_out(image.float(), text.float(), scale), atol=1e-5, rtol=1e-5)
    loss.backward()
    assert image.grad is not None
    assert image.grad.dtype == dtype


def test_accuracies_count_strict_wins() -> None:
    image = torch.eye(4)
    text = torch.eye(4)[[0, 1, 3, 2]]
    output = contrastive_loss(image, text, torch.tensor(10.0), block_size=3)
    assert (output.image_to_text_accuracy.item(), output.text_to_image_accuracy.item()) == (0.5, 0.5)
    collapsed = contrastive_loss(torch.ones(4, 2), torch.ones(4, 2), torch.tensor(1.0), block_size=3)
    assert collapsed.image_to_text_accuracy.item() == collapsed.text_to_image_accuracy.item() == 0.0
    image, text, scale = features(40)
    logits = image @ text.T
    output = contrastive_loss(image, text, scale, block_size=7)
    assert_close(output.image_to_text_accuracy, (logits.argmax(1) == torch.arange(40)).float().mean())
    assert_close(output.text_to_image_accuracy, (logits.argmax(0) == torch.arange(40)).float().mean())


def test_inputs_stay_as_they_are() -> None:
    inputs = features(6)
    concepts = torch.tensor([0, 0, 1, 2, 3, 4])
    before = [tensor.detach().clone() for tensor in (*inputs, concepts)]
    contrastive_loss(*inputs, concepts, block_size=4).loss.backward()
    for tensor, copy in zip((*inputs, concepts), before, strict=True):
        assert torch.equal(tensor, copy)


def test_nan_is_not_hidden() -> None:
    image, text, scale = features(5)
    assert contrastive_loss(image * math.nan, text, scale, block_size=2).loss.isnan()


def test_no_block_is_ever_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = torch.mm

    def watched(*args: Tensor, out: Tensor) -> Tensor:
        sizes.append(out.numel())
        return product(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    contrastive_loss(*features(64), block_size=4).loss.backward()
    assert max(sizes) == max(4 * 64, 4 * 8)


@pytest.mark.parametrize(("call", "logarithm"), [("scale0", 2.659260036932778), ("scale1", 5.0)])
def test_golden_loss_from_published_logits(call: str, logarithm: float) -> None:
    """Texts that are the unit vectors make any matrix of logits a matrix of similarities."""
    case = load_file(GOLDENS / "declip/loss_clip/io.safetensors")
    scale = torch.tensor(min(math.exp(logarithm), 100.0), requires_grad=True)
    similarities = case[f"{call}.logits_per_image"] / scale.item()
    loss = contrastive_loss(similarities, torch.eye(5), scale).loss
    loss.backward()
    assert_close(loss, case[f"{call}.loss"], atol=1e-5, rtol=1e-3)
    assert scale.grad is not None
    through = scale.grad * math.exp(logarithm)  # the limit of 100 acts on the value only
    assert_close(through.reshape(1), case[f"{call}.grad.module.logit_scale"], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4), torch.tensor(1.0)), r"image \(2, 3\), text \(2, 4\)"),
        ((torch.ones(0, 3), torch.ones(0, 3), torch.tensor(1.0)), r"batch > 0, not image \(0, 3\)"),
        ((torch.ones(3), torch.ones(3), torch.tensor(1.0)), r"\(batch, width\)"),
        ((torch.ones(2, 3).long(), torch.ones(2, 3).long(), torch.tensor(1.0)), "int64"),
        ((torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)), r"scale .* shape \(2,\)"),
        ((torch.ones(2, 3), torch.ones(2, 3), torch.tensor(1.0), torch.zeros(3).long()), r"concepts must be \(2,\)"),
        ((torch.ones(2, 3), torch.ones(2, 3), torch.tensor(1.0), None, 0), "objective.block_size"),
    ],
)
def test_bad_input_names_the_value(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive_loss(*arguments)


class TinyPair(nn.Module):
    """The calls of a dual encoder, over two linear layers."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.image, self.text, self.norm = nn.Linear(12, 6), nn.Embedding(11, 6), norm
        self.logarithm = nn.Parameter(torch.tensor(2.0))

    def encode_image(self, images: Tensor) -> Tensor:
        return F.normalize(self.norm(self.image(images.flatten(1))), dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        return F.normalize(self.text(ids).mean(1), dim=-1)

    def scale(self) -> Tensor:
        return self.logarithm.exp()

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode_image(images), self.encode_text(ids), self.scale()


def tiny_batch(pairs: int = 7) -> ImageTextBatch:
    ids = torch.randint(0, 11, (pairs, 4))
    return ImageTextBatch(torch.randn(pairs, 3, 2, 2), ids, [str(i) for i in range(pairs)], torch.arange(pairs) // 2)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 50])
def test_objective_in_chunks_has_the_gradient_of_the_whole_batch(chunk_size: int) -> None:
    model, batch = TinyPair(nn.LayerNorm(6)), tiny_batch()
    gradients = []
    for chunks in (None, chunk_size):
        output = build({"type": "contrastive", "block_size": 4, "chunk_size": chunks})(model, batch)
        gradients.append(torch.autograd.grad(output["loss"], list(model.parameters())))
    for mine, whole in zip(*gradients, strict=True):
        assert_close(mine, whole, atol=1e-6, rtol=1e-5)


def test_objective_in_chunks_on_a_real_dual_encoder() -> None:
    model = zoo.create("clip_tiny").eval()
    side = model.image.image_size
    ids = model.processor.texts([f"{word} face" for word in ("happy", "sad", "angry", "sleepy", "grinning squinting")])
    batch = ImageTextBatch(torch.randn(5, 3, side, side), ids, list("abcde"))
    gradients = []
    for chunk_size in (None, 2):
        output = ContrastiveObjective(chunk_size=chunk_size)(model, batch)
        gradients.append(torch.autograd.grad(output["loss"], list(model.parameters())))
    for mine, whole in zip(*gradients, strict=True):
        assert_close(mine, whole, atol=1e-6, rtol=1e-4)


def test_objective_reports_metrics_without_gradient() -> None:
    model = TinyPair(nn.Identity())
    output = ContrastiveObjective()(model, tiny_batch())
    assert set(output) == {"loss", "image_to_text_accuracy", "text_to_image_accuracy", "logit_scale"}
    assert output["loss"].requires_grad
    assert not any(value.requires_grad for key, value in output.items() if key != "loss")
    assert_close(output["logit_scale"], model.logarithm.detach().exp())


def test_objective_refuses_chunks_under_batch_norm() -> None:
    model = TinyPair(nn.BatchNorm1d(6))
    with pytest.raises(ValueError, match=r"objective\.chunk_size=2 with batch norm in 'norm'"):
        ContrastiveObjective(chunk_size=2)(model, tiny_batch())
    model.norm.eval()
    assert ContrastiveObjective(chunk_size=2)(model, tiny_batch())["loss"].isfinite()


@pytest.mark.parametrize("key", ["block_size", "chunk_size"])
def test_objective_refuses_sizes_below_one(key: str) -> None:
    with pytest.raises(ValueError, match=f"objective.{key}"):
        build({"type": "contrastive", key: 0})
