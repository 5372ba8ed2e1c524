"""Emu3's cases: supervised fine-tuning, its samples, its loss and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from harness.cases import Call, Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.emu3_parts.models import DECODER_KEYS, decoder
from torch import Tensor

from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.nn.masks import Padding
from multimodal_zoo.objectives.batch import TokenBatch
from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy
from multimodal_zoo.objectives.next_token import NextToken, supervised
from multimodal_zoo.tokenizers.emu3_ids import numbered_ids

#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"texts": None, "grad_names": None}
#: Label of a token that is not learnt.
UNLEARNT = -100


def _model(case: Case) -> Emu3:
    return case.once("trained model", lambda: _build(case))


def _build(case: Case) -> Emu3:
    config = take_known(case.config, DECODER_KEYS | {"tokenizer", "codebook_size"}, "config")
    tokenizer = take_known(
        config.pop("tokenizer"),
        {"vocabulary", "vision_tokens", "special_start_id", "model_max_length", "padding_side"},
        "config.tokenizer",
    )
    ids = numbered_ids(tokenizer["special_start_id"], config.pop("codebook_size"))
    assert (ids.pad, ids.bos, ids.eos) == tuple(config[f"{name}_token_id"] for name in ("pad", "bos", "eos"))
    return Emu3(decoder(config, case.state), ids)


def _batch(ids: Tensor, real: Tensor, weights: Tensor) -> TokenBatch:
    """Right-padded rows of one document each."""
    documents = torch.where(real, 0, -1)
    positions = torch.where(real, real.cumsum(1) - 1, 0)
    return TokenBatch(ids, weights * (positions > 0), documents, positions, [str(row) for row in range(len(ids))])


def _packed(batch: TokenBatch) -> TokenBatch:
    """The same documents one behind the other in one row, padding at its end."""
    real = batch.documents >= 0
    rows = torch.arange(len(batch))[:, None].expand_as(batch.ids)
    fields = [torch.cat((field[real], field[~real]))[None] for field in (batch.ids, batch.weights, rows)]
    ids, weights, documents = fields
    padding = torch.arange(ids.shape[1]) >= real.sum()
    positions = torch.cat((batch.positions[real], batch.positions[~real]))[None]
    return TokenBatch(ids, weights, documents.masked_fill(padding, -1), positions, batch.keys)


def _gradients(case: Case, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss under the published names."""
    model = _model(case)
    model.zero_grad()
    loss.backward()
    return LLAMA.save({name: p.grad for name, p in model.decoder.named_parameters() if p.grad is not None})


def _outcome(request: Request, losses: list[Tensor]) -> Outcome:
    """What a call of several ways to one loss asks for."""
    names, found = request.case.fields["grad_names"], [_gradients(request.case, loss) for loss in losses]
    outcome: dict[str, Any] = {}
    for output in request.call.outputs:
        if output.endswith("grad_norms"):
            outcome[output] = tuple(torch.stack([one[name].norm() for name in names]) for one in found)
        elif output == "grad_k_proj_rows":
            outcome[output] = tuple(one[names[1]][:4] for one in found)
        elif output.endswith("loss"):
            outcome[output] = tuple(loss.detach() for loss in losses)
    return outcome


def learnt(request: Request) -> Outcome:
    """The loss of labelled tokens: rows padded, and packed into one."""
    ids, *mask, labels = request.case.take(request.call)
    model = _model(request.case)
    real = mask[0].bool() if mask else ids != model.ids.pad
    wanted = labels != UNLEARNT
    assert torch.equal(labels[wanted], ids[wanted]), "labels are the ids themselves"
    batch = _batch(ids, real, wanted.float())
    ways = [(NextToken(), batch), (NextToken("count", held_logits=500), batch), (NextToken(), _packed(batch))]
    return _outcome(request, [objective(model, given)["loss"] for objective, given in ways])


def everything_learnt(request: Request) -> Outcome:
    """The loss of every token, padding too: the reference's, for comparison; our batches never count padding."""
    ids, mask, labels = request.case.take(request.call)
    assert torch.equal(labels, ids)
    model = _model(request.case)
    hidden = model.decoder(ids, mask=Padding(mask.bool()))
    found = supervised(hidden, ids, torch.ones_like(ids, dtype=torch.float32))
    return _outcome(
        request, [linear_cross_entropy(found.hidden, model.decoder.head_weight, None, found.targets).losses.mean()]
    )


@torch.no_grad()
def weighted(request: Request) -> Outcome:
    """Cross-entropy of every token, and the weighted loss in both readings."""
    ids, mask = request.case.take(request.call)
    model, real = _model(request.case), mask.bool()
    visual = model.ids.is_visual(ids)
    batch = _batch(ids, real, torch.where(visual, 0.5, 1.0) * real)
    hidden = model(batch.ids, batch.positions, batch.documents)
    whole = F.cross_entropy(model.decoder.head(hidden)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    found = supervised(hidden, ids, batch.weights)
    losses = torch.zeros_like(whole)
    losses[batch.weights[:, 1:] != 0] = linear_cross_entropy(
        found.hidden, model.decoder.head_weight, None, found.targets
    ).losses
    readings = [
        tuple(NextToken(reading)(model, given)["loss"] for given in (batch, _packed(batch)))
        for reading in ("weights", "count")
    ]
    return {
        "token_ce": (whole * real[:, 1:], losses),
        "is_vision": visual[:, 1:],
        "valid": real[:, 1:],
        "weighted_sum_over_weight": readings[0],
        "weighted_sum_over_count": readings[1],
    }


def _is_training(case: Case, call: Call) -> bool:
    return "grad_names" in case.fields


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"loss and backward(, null prompts)?", _is_training)(learnt)
    system.call(r"loss and backward, labels = input_ids", _is_training)(everything_learnt)
    system.call(r"derived: weighted loss of the report", _is_training)(weighted)
