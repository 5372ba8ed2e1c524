"""Two and three gloo processes against one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.nn.processes import (
    from_first,
    gather,
    gather_with_gradient,
    rank,
    summed,
    summed_with_gradient,
    world_size,
)
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective, contrastive_loss

GOLDENS = Path(__file__).parents[1] / "goldens"
DECLIP = GOLDENS / "declip/ranks_gathered_gradient/io.safetensors"
LOCAL = 4
CHUNKS = (None, 3)


class TinyPair(nn.Module):
    """The calls of a dual encoder, over two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(12, 6), nn.Embedding(11, 6)
        self.logarithm = nn.Parameter(torch.tensor(2.0))

    def encode_image(self, images: Tensor) -> Tensor:
        return F.normalize(self.image(images.flatten(1)), dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        return F.normalize(self.text(ids).mean(1), dim=-1)

    def scale(self) -> Tensor:
        return self.logarithm.exp()

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode_image(images), self.encode_text(ids), self.scale()


class Step(nn.Module):
    """What DistributedDataParallel wraps: model and objective."""

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: ImageTextBatch) -> dict[str, Tensor]:
        return self.objective(self.model, batch)


def tiny_batch(world: int) -> ImageTextBatch:
    generator = torch.Generator().manual_seed(5)
    pairs = world * LOCAL
    images = torch.randn(pairs, 3, 2, 2, generator=generator)
    ids = torch.randint(0, 11, (pairs, 4), generator=generator)
    concepts = torch.randint(0, pairs // 2, (pairs,), generator=generator)  # shared within and across processes
    return ImageTextBatch(images, ids, [str(i) for i in range(pairs)], concepts)


def local_part(batch: ImageTextBatch) -> ImageTextBatch:
    own = slice(rank() * LOCAL, (rank() + 1) * LOCAL)
    assert batch.concepts is not None
    return ImageTextBatch(batch.images[own], batch.ids[own], batch.keys[own], batch.concepts[own])


def train_step(model: nn.Module, batch: ImageTextBatch, chunk_size: int | None) -> dict[str, Tensor]:
    objective = ContrastiveObjective(block_size=3, chunk_size=chunk_size)
    step: nn.Module = Step(model, objective)
    if world_size() > 1:
        step, batch = DistributedDataParallel(step), local_part(batch)
    output = step(batch)
    output["loss"].backward()
    return {name: value.detach() for name, value in output.items()} | {
        f"gradient.{name}": parameter.grad for name, parameter in model.named_parameters()
    }


def golden_inputs(world: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (processes, local, width) of each side and the logarithm of the scale."""
    if world == 3:
        case = load_file(GOLDENS / "eva_clip/contrastive_loss_gathered/io.safetensors")
        return case["image_embeds"], case["text_embeds"], case["logit_scale"]
    case = load_file(DECLIP)
    sides = (F.normalize(case[side], dim=-1) for side in ("image", "text"))
    return *sides, torch.tensor(2.659260036932778)


def golden_step(world: int) -> dict[str, Tensor]:
    image, text, logarithm = (tensor.clone() for tensor in golden_inputs(world))
    image, text = image[rank()].requires_grad_(), text[rank()].requires_grad_()
    logarithm.requires_grad_()
    output = contrastive_loss(image, text, logarithm.exp(), block_size=3)
    output.loss.backward()
    accuracy = torch.stack([output.image_to_text_accuracy, output.text_to_image_accuracy])
    return {
        "loss": output.loss.detach(),
        "accuracy": accuracy,
        "image": image.grad,
        "text": text.grad,
        "scale": logarithm.grad,
    }


def gathering() -> dict[str, Tensor]:
    own = (torch.arange(2.0) + 10 * rank()).requires_grad_()
    everyones = gather_with_gradient(own)
    (everyones * (1 + rank()) * torch.arange(len(everyones))).sum().backward()
    return {"gathered": everyones.detach(), "constant": gather(own), "gradient": own.grad}


def summing() -> dict[str, Tensor]:
    own = torch.tensor([1.0 + rank(), 2.0], requires_grad=True)
    (summed_with_gradient(own) * (1 + rank())).sum().backward()
    return {"sum": summed(own), "first": from_first(own), "own": own.detach(), "gradient": own.grad}


def uneven() -> str:
    try:
        contrastive_loss(torch.ones(2 + rank(), 3), torch.ones(2 + rank(), 3), torch.tensor(1.0))
    except ValueError as error:
        return str(error)
    return "accepted"


def unequal_weights(world: int) -> Tensor:
    """Gradient that this process's texts receive when every process weighs its loss differently."""
    image, text, logarithm = golden_inputs(world)
    own = text[rank()].clone().requires_grad_()
    (contrastive_loss(image[rank()], own, logarithm.exp(), block_size=2).loss * (1.0 + rank())).backward()
    assert own.grad is not None
    return own.grad


def partly_known(world: int) -> Tensor:
    """Loss where process 0 knows no concept of its pairs and all others show one and the same thing."""
    image, text, logarithm = golden_inputs(world)
    concepts = None if rank() == 0 else torch.zeros(image.shape[1], dtype=torch.long)
    return contrastive_loss(image[rank()], text[rank()], logarithm.exp(), concepts, block_size=2).loss


def work() -> dict[str, object]:
    """What one process finds."""
    world = world_size()
    results: dict[str, object] = {"golden": golden_step(world), "gathering": gathering(), "uneven": uneven()}
    results["summing"] = summing()
    results["unequal"], results["partly known"] = unequal_weights(world), partly_known(world)
    for chunk_size in CHUNKS:
        torch.manual_seed(rank())  # DistributedDataParallel must hand out the weights of process 0
        results[f"step {chunk_size}"] = train_step(TinyPair(), tiny_batch(world), chunk_size)
    return results


@pytest.fixture(scope="module", params=[2, 3])
def runs(request: pytest.FixtureRequest) -> list[dict]:
    """What each process of a world of 2 and of 3 found."""
    return forked(request.param, work)


@pytest.mark.multiprocess
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_data_parallel_step_is_the_step_of_one_process(runs: list[dict], chunk_size: int | None) -> None:
    torch.manual_seed(0)
    reference = train_step(TinyPair(), tiny_batch(len(runs)), chunk_size)
    steps = [run[f"step {chunk_size}"] for run in runs]
    for name in ("loss", "image_to_text_accuracy", "text_to_image_accuracy"):
        assert_close(torch.stack([step[name] for step in steps]).mean(), reference[name], atol=1e-6, rtol=1e-6)
    for step in steps:
        for name in (key for key in reference if key.startswith("gradient.")):
            assert_close(step[name], reference[name], atol=1e-6, rtol=1e-5)


@pytest.mark.multiprocess
def test_every_process_has_the_published_loss_and_gradients(runs: list[dict]) -> None:
    got = {name: torch.stack([run["golden"][name] for run in runs]) for name in runs[0]["golden"]}
    if len(runs) == 3:
        case = load_file(GOLDENS / "eva_clip/contrastive_loss_gathered/io.safetensors")
        names = {"loss": "loss", "image": "grad_image", "text": "grad_text", "scale": "grad_logit_scale"}
        for ours, theirs in (names | {"accuracy": "acc"}).items():
            assert_close(got[ours], case[f"local1_grad1_{theirs}"], atol=1e-5, rtol=1e-4)
        return
    case = load_file(DECLIP)
    assert_close(got["loss"], case["clip.loss"], atol=2e-5, rtol=5e-4)
    assert_close(got["scale"][:, None] / len(runs), case["clip.grad_logit_scale"], atol=2e-5, rtol=5e-4)
    for side in ("image", "text"):  # the case differentiates through the normalisation as well
        raw = case[side].requires_grad_()
        (gradient,) = torch.autograd.grad(F.normalize(raw, dim=-1), raw, got[side] / len(runs))
        assert_close(gradient, case[f"clip.grad_{side}"], atol=2e-5, rtol=5e-4)


@pytest.mark.multiprocess
def test_gather_sums_what_processes_send_back(runs: list[dict]) -> None:
    world = len(runs)
    everyones = torch.cat([torch.arange(2.0) + 10 * number for number in range(world)])
    factors = sum(range(1, world + 1)) * torch.arange(2.0 * world)
    for number, run in enumerate(runs):
        assert_close(run["gathering"]["gathered"], everyones)
        assert_close(run["gathering"]["constant"], everyones)
        assert_close(run["gathering"]["gradient"], factors[2 * number : 2 * number + 2])


@pytest.mark.multiprocess
def test_sums_and_their_gradients_are_those_of_all_processes(runs: list[dict]) -> None:
    world = len(runs)
    for number, run in enumerate(runs):
        found = run["summing"]
        assert_close(found["sum"], torch.tensor([world * (world + 1) / 2, 2.0 * world]))
        assert_close(found["first"], torch.tensor([1.0, 2.0]))
        assert_close(found["own"], torch.tensor([1.0 + number, 2.0]))  # what is given stays as it is
        assert_close(found["gradient"], torch.full((2,), world * (world + 1) / 2))


@pytest.mark.multiprocess
def test_processes_may_weigh_their_losses(runs: list[dict]) -> None:
    world = len(runs)
    image, text, logarithm = golden_inputs(world)
    image, text = image.flatten(0, 1), text.flatten(0, 1).requires_grad_()
    logits = logarithm.exp() * image @ text.T
    target = torch.arange(len(image))
    losses = (
        F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.T, target, reduction="none")
    ) / 2
    weights = torch.arange(1.0, world + 1)
    (losses.reshape(world, -1).mean(1) * weights).sum().backward()
    assert text.grad is not None
    assert_close(torch.cat([run["unequal"] for run in runs]), text.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.multiprocess
def test_one_process_may_know_no_concepts(runs: list[dict]) -> None:
    image, text, logarithm = golden_inputs(len(runs))
    concepts = torch.zeros(image.shape[:2], dtype=torch.long)
    concepts[0] = -1
    expected = contrastive_loss(image.flatten(0, 1), text.flatten(0, 1), logarithm.exp(), concepts.flatten()).loss
    assert_close(torch.stack([run["partly known"] for run in runs]).mean(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.multiprocess
def test_uneven_batches_are_refused(runs: list[dict]) -> None:
    sizes = [2 + number for number in range(len(runs))]
    for run in runs:
        assert f"the same number of pairs, not {sizes}" in run["uneven"]


def test_one_process_gathers_itself() -> None:
    tensor = torch.ones(3, requires_grad=True)
    assert gather(tensor) is tensor
    assert gather_with_gradient(tensor) is tensor
    assert summed_with_gradient(tensor) is tensor
    assert torch.equal(summed(tensor), tensor)
    assert (rank(), world_size()) == (0, 1)
