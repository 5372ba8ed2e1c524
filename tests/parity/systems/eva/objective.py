"""EVA-CLIP's two towers together: embeddings, logits, contrastive loss and gradients, on one process and several."""

from __future__ import annotations

import torch
from harness.run import Outcome, Request
from harness.words import listed_names, take_known, written_call
from systems.eva.gathering_rank import all_modes
from systems.eva.models import model_of, published_gradients
from torch import Tensor, nn

from forked import forked
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective, contrastive_loss


def forward(request: Request) -> Outcome:
    """Normalised embeddings of both sides and the scale."""
    images, ids = request.case.take(request.call)
    with torch.no_grad():
        return dict(zip(request.call.outputs, model_of(request.case)(images, ids), strict=True))


def scale(request: Request) -> Outcome:
    """The inverse temperature."""
    (output,) = request.call.outputs
    return {output: model_of(request.case).scale().detach()}


def logits(request: Request) -> Outcome:
    """Scaled similarities, a row for each image."""
    (images, ids), (output,) = request.case.take(request.call), request.call.outputs
    with torch.no_grad():
        image, text, factor = model_of(request.case)(images, ids)
    return {output: factor * image @ text.T}


def losses(request: Request) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """The objective of the case's batch in one block, and in blocks and chunks; gradients are those of the last."""
    images, ids = request.case.take(request.call)
    batch = ImageTextBatch(images, ids, [str(i) for i in range(len(images))], None)
    model = model_of(request.case)
    found = []
    for objective in (ContrastiveObjective(block_size=2, chunk_size=2), ContrastiveObjective()):
        model.zero_grad()
        found.append(objective(model, batch))
        found[-1]["loss"].backward()
    return model, found


def loss(request: Request) -> Outcome:
    """The loss and both accuracies."""
    _, found = losses(request)
    names = {"loss": "loss", "acc_i2t": "image_to_text_accuracy", "acc_t2i": "text_to_image_accuracy"}
    return {ours: tuple(one[theirs].detach() for one in found) for ours, theirs in names.items()}


def gradients(request: Request) -> Outcome:
    """Gradient norms, under the published names that the note lists, and the temperature's gradient."""
    names = listed_names(request.call.note, request.case.manifest)
    model, _ = losses(request)
    found = published_gradients(request.case, model)
    norms = torch.stack([found[name].norm() for name in names])
    (scale,) = (name for name in found if name.endswith("logit_scale"))
    return {"grad_norms": norms, "grad_logit_scale": found[scale]}


def whole_batch(request: Request) -> Outcome:
    """The loss of all ranks' pairs on one process."""
    image, text, logarithm = (tensor.requires_grad_() for tensor in request.case.take(request.call))
    result = contrastive_loss(image.flatten(0, 1), text.flatten(0, 1), logarithm.exp(), block_size=5)
    result.loss.backward()
    outcome = {"full_loss": result.loss.detach()}
    for name, leaf in (("image", image), ("text", text), ("logit_scale", logarithm)):
        assert leaf.grad is not None, name
        outcome[f"full_grad_{name}"] = leaf.grad
    return outcome


def gathered(request: Request) -> Outcome:
    """What every rank has after backward, in one of the four gather modes."""
    known = {"world_size", "batch_per_rank", "dim", "backend"}
    config = take_known(request.case.config, known, "config")
    assert config.get("backend", "gloo") == "gloo", "only gloo runs on any machine"
    mode = take_known(written_call(request.call.method).kwargs, {"local_loss", "gather_with_grad"}, "mode")
    ranks = request.case.once("ranks", lambda: run_ranks(request, config["world_size"]))
    prefix = f"local{mode['local_loss']:d}_grad{mode['gather_with_grad']:d}_"
    names = [name.removeprefix(prefix) for name in request.call.outputs]
    return {prefix + name: torch.stack([rank[prefix + name] for rank in ranks]) for name in names}


def run_ranks(request: Request, world: int) -> list[dict[str, Tensor]]:
    """What each of `world` gloo processes finds, in all four modes."""
    inputs = dict(zip(("image", "text", "logarithm"), request.case.take(request.call), strict=True))
    return forked(world, all_modes, inputs)
