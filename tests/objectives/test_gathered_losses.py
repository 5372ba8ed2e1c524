"""Losses that look at all processes' samples, on three gloo processes against one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.nn.processes import rank, swap_blocks, world_size
from multimodal_zoo.objectives.nt_xent import nt_xent
from multimodal_zoo.objectives.self_supervision import MaskedWords
from multimodal_zoo.objectives.token_matching import token_similarity, token_wise_loss

WORLD, LOCAL, IMAGE, TEXT, WIDTH = 3, 4, 5, 8, 6
Job = Callable[[dict[str, Tensor]], Tensor]


def inputs() -> dict[str, Tensor]:
    """The whole batch, in float64; the texts of each process are shorter than those of the next."""
    generator, batch = torch.Generator().manual_seed(5), WORLD * LOCAL
    shapes = {"image": (batch, IMAGE, WIDTH), "text": (batch, TEXT, WIDTH), "first": (batch, 4), "second": (batch, 4)}
    found = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    longest = 1 + 2 * (1 + torch.arange(batch) // LOCAL)
    lengths = 1 + torch.randint(0, 1000, (batch,), generator=generator) % longest
    lengths[::LOCAL] = longest[::LOCAL]
    found["mask"] = torch.arange(TEXT) < lengths[:, None]
    found["concepts"] = torch.randint(-1, batch // 2, (batch,), generator=generator)
    return found


def own_part(whole: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[rank() * LOCAL : (rank() + 1) * LOCAL] for name, value in whole.items()}


def token_wise(top_k: int | None, masked: bool, known: bool, trimmed: bool = False) -> Job:
    def loss(part: dict[str, Tensor]) -> Tensor:
        text, mask = part["text"], part["mask"] if masked else None
        if trimmed and mask is not None:  # as a loader does: to the longest text of the process's batch
            longest = int(mask.sum(1).max())
            text, mask = text[:, :longest], mask[:, :longest]
        sides = F.normalize(part["image"], dim=-1), F.normalize(text, dim=-1)
        concepts = part["concepts"] if known else None
        return token_wise_loss(*sides, part["scale"].exp(), top_k, mask, concepts, block_size=3).loss

    return loss


def two_views(known: bool) -> Job:
    return lambda part: nt_xent(part["first"], part["second"], 0.3, part["concepts"] if known else None, 3)


def masked_words(part: dict[str, Tensor]) -> Tensor:
    """Words at the places of the mask, more of them on each process than on the one before."""
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, WIDTH), (7,)))
    head = SimpleNamespace(weight=weight, bias=bias, vocab_size=7)
    words, labels = part["text"][part["mask"]], (torch.arange(TEXT) % 7).expand_as(part["mask"])[part["mask"]]
    views: Any = SimpleNamespace(
        model=SimpleNamespace(heads={"masked_words": head}),
        text=lambda name: SimpleNamespace(words=words),
        labels=lambda name: labels,
    )
    return MaskedWords()(views)["loss"]


JOBS: dict[str, Job] = {
    "all tokens": token_wise(None, masked=False, known=False),
    "all tokens, concepts": token_wise(None, masked=False, known=True),
    "all tokens, mask": token_wise(None, masked=True, known=True),
    "all tokens, mask, trimmed": token_wise(None, masked=True, known=False, trimmed=True),
    "top 3": token_wise(3, masked=False, known=False),
    "top 4, mask": token_wise(4, masked=True, known=True),
    "top 4, mask, trimmed": token_wise(4, masked=True, known=False, trimmed=True),
    "views": two_views(known=False),
    "views, concepts": two_views(known=True),
    "masked words": masked_words,
}


#: Jobs that are also run with a loss that weighs differently on every process.
UNEQUAL = ("all tokens", "top 3")


def run(job: Job, weight: float = 1.0) -> dict[str, Tensor]:
    """Loss, and the gradient of each leaf from `weight` times it."""
    part = own_part(inputs()) if world_size() > 1 else inputs()
    part["scale"] = torch.tensor(1.5, dtype=torch.float64)
    leaves = {name: value.requires_grad_() for name, value in part.items() if value.is_floating_point()}
    loss = job(part)
    (loss * weight).backward()
    return {"loss": loss.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def work() -> dict[str, object]:
    """What one process finds."""
    number = rank()
    results: dict[str, object] = {name: run(job) for name, job in JOBS.items()}
    results["unequal"] = {name: run(JOBS[name], 1.0 + number) for name in UNEQUAL}
    own = (100.0 * number + torch.arange(WORLD * 2.0) + 10 * torch.arange(2.0)[:, None]).requires_grad_()
    swapped = swap_blocks(own)
    (swapped * (1 + number)).sum().backward()
    results["swapped"] = {"value": swapped.detach(), "gradient": own.grad}
    part = own_part(inputs())
    results["similarity"] = tuple(token_similarity(part["image"], part["text"], block_size=2))
    return results


@pytest.fixture(scope="module")
def runs() -> list[dict]:
    """What each process found."""
    return forked(WORLD, work)


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", JOBS)
def test_three_processes_are_as_one(runs: list[dict], name: str) -> None:
    whole, parts = run(JOBS[name]), [one[name] for one in runs]
    assert_close(torch.stack([part["loss"] for part in parts]).mean(), whole["loss"])
    assert parts[0].keys() == whole.keys()
    for leaf in whole.keys() - {"loss", "scale"}:
        assert_close(torch.cat([part[leaf] for part in parts]) / WORLD, whole[leaf])
    if "scale" in whole:
        assert_close(torch.stack([part["scale"] for part in parts]).mean(), whole["scale"])


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", UNEQUAL)
def test_each_process_may_weigh_its_loss_differently(runs: list[dict], name: str) -> None:
    whole = inputs()
    leaves = [whole["image"].requires_grad_(), whole["text"].requires_grad_()]
    target, weights = torch.arange(WORLD * LOCAL), 1.0 + torch.arange(WORLD)
    similarities = token_similarity(
        *(F.normalize(leaf, dim=-1) for leaf in leaves), top_k=3 if name == "top 3" else None
    )
    losses = sum(F.cross_entropy(side * torch.tensor(1.5).exp(), target, reduction="none") / 2 for side in similarities)
    (losses.reshape(WORLD, LOCAL).mean(1) * weights).sum().backward()  # type: ignore[union-attr]
    for leaf, side in zip(leaves, ("image", "text"), strict=True):
        assert_close(torch.cat([one["unequal"][name][side] for one in runs]), leaf.grad)


@pytest.mark.multiprocess
def test_swapping_blocks_transposes_the_whole_matrix(runs: list[dict]) -> None:
    rows = [100.0 * number + torch.arange(WORLD * 2.0) + 10 * torch.arange(2.0)[:, None] for number in range(WORLD)]
    assert_close(torch.cat([one["swapped"]["value"] for one in runs]), torch.cat(rows).T)
    weights = (1.0 + torch.arange(WORLD)).repeat_interleave(2).expand(2, -1)  # those of the columns' owners
    for one in runs:
        assert_close(one["swapped"]["gradient"], weights)


@pytest.mark.multiprocess
def test_similarities_are_rows_of_the_whole_batch(runs: list[dict]) -> None:
    whole = inputs()
    for number, expected in enumerate(token_similarity(whole["image"], whole["text"])):
        assert_close(torch.cat([one["similarity"][number] for one in runs]), expected)
