"""The five methods' losses with their gradients: one step of training on given views, two where a queue goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from harness.cases import Case
from harness.run import Outcome, Pair, Request
from harness.words import take_known
from systems.declip_parts.models import MODEL_FIELDS, fresh_model, published_gradients
from systems.declip_parts.models import published as published_state
from torch import Tensor, nn

from multimodal_zoo.config import compose
from multimodal_zoo.objectives.batch import MultiViewBatch
from multimodal_zoo.objectives.contrastive import contrastive_loss
from multimodal_zoo.objectives.queue import Neighbours
from multimodal_zoo.objectives.supervisions import SupervisedContrast
from multimodal_zoo.objectives.token_matching import kept_tokens, token_similarity
from multimodal_zoo.objectives.views import Views
from multimodal_zoo.registry import build

#: The reference's names of loss weights -> our parts; what it calls clip_loss differs by method.
WEIGHTS = {
    "nn_text": "nearest_neighbour",
    "simsiam_loss": "simsiam",
    "masking_language": "masked_words",
    "filip": "token_wise",
    "clip_dense_loss": "token_wise",
    "simclr_loss": "simclr",
}
CONTRAST = {
    "clip": "image_text",
    "slip": "image_text",
    "filip": "image_text",
    "declip": "multi_view",
    "defilip": "multi_view",
}
#: The reference's names of views in those of outputs, and ours.
IMAGES, TEXTS = {"image1": "first", "image2": "second"}, {"text": "masked", "text_aug": "augmented"}
#: What a call may set anew, and our parameter.
SCALES = {
    "module.logit_scale": "logit_scale.weight",
    "module.logit_scale_dense": "heads.token_wise.logit_scale.weight",
}
#: Where the reference says how the loss is made.
LOSS_FIELDS = ("clip_simsiam_loss_weight", "loss_weight", "top_k")


@dataclass
class Step:
    """One step of training: what the objective read and gave, and what it left behind."""

    views: Views
    terms: dict[str, dict[str, Tensor]]
    total: Tensor
    objective: SupervisedContrast
    found_in_queue: dict[str, Neighbours]
    bank: tuple[Tensor, Tensor] | None
    state: dict[str, Tensor]
    gradients: dict[str, Tensor]
    heads: dict[str, list[Any]] = field(default_factory=dict)


def objective_of(case: Case, method: str) -> SupervisedContrast:
    """`conf/objective/<method>.yaml` with the case's weights and sizes."""
    config = take_known(case.config, {*MODEL_FIELDS, *LOSS_FIELDS}, "config")
    clip = config.get("clip", {})
    assert clip.get("nn_topk", 1) == 1, "the published code fails with more than one neighbour"
    values = []
    if method == "filip":  # the global loss is computed for the log, on the masked captions
        values += ["+supervision@objective.parts.image_text=image_text", "+objective.weights.image_text=0.0"]
        values += ["objective.parts.image_text.image=first", "objective.parts.image_text.text=masked"]
    if method in ("declip", "defilip"):
        flags = {"return_nn_bank": "nearest_neighbour", "text_mask_type": "masked_words"}
        values += [f"objective.parts.{part}=null" for flag, part in flags.items() if not clip.get(flag)]
    if clip.get("return_nn_bank"):
        queue = "objective.parts.nearest_neighbour.queue"
        values += [f"{queue}.size={clip['nn_size']}", f"{queue}.width={config['image_encode']['embed_dim']}"]
    if clip.get("dense_aug"):
        pairs = "[[first,masked],[first,augmented],[second,masked],[second,augmented]]"
        values.append(f"objective.parts.token_wise.pairs={pairs}")
    if "top_k" in config:
        values.append(f"objective.parts.token_wise.top_k={'null' if config['top_k'] is None else config['top_k']}")
    if given := config.get("clip_simsiam_loss_weight") or config.get("loss_weight"):  # what is not named counts nothing
        weights = dict.fromkeys(compose(None, [f"+objective={method}"]).objective.weights, 0.0)
        weights |= {CONTRAST[method] if name == "clip_loss" else WEIGHTS[name]: one for name, one in given.items()}
        values += [f"++objective.weights.{part}={weight}" for part, weight in weights.items()]
    return build(compose(None, [f"+objective={method}", *values]).objective, path="objective")


def batch_of(inputs: Mapping[str, Tensor], method: str) -> MultiViewBatch:
    """The views of a case: images lie on the channel axis."""
    names = {"clip": ["plain"], "slip": ["plain", "first", "second"]}.get(method, ["first", "second"])
    images = dict(zip(names, inputs["image"].split(3, dim=1), strict=True))
    texts = {"plain": "ids", "masked": "masked_ids", "augmented": "aug_ids"}
    if method not in ("clip", "slip") and "masked_ids" not in inputs:  # without masked words the first view is plain
        texts["masked"] = "ids"
    ids = {view: inputs[name] for view, name in texts.items() if name in inputs}
    labels = {"masked": inputs["labels"]} if "labels" in inputs else {}
    return MultiViewBatch(images, ids, labels, [str(i) for i in range(len(inputs["image"]))])


def take_step(model: nn.Module, objective: SupervisedContrast, batch: MultiViewBatch, case: Case) -> Step:
    """One training step without an update; the running statistics and the queue move."""
    model.train()
    model.zero_grad()
    heads: dict[str, list[Any]] = {}
    hooks = [
        head.register_forward_hook(lambda _, __, out, name=name: heads.setdefault(name, []).append(out))
        for name, head in model.heads.items()
    ]
    objective.check(model)
    views = Views(model, batch, objective.needs)
    neighbour = dict(objective.parts.items()).get("nearest_neighbour")
    looked_up = {}
    if neighbour is not None:  # before the step fills the queue
        texts = ("masked", "augmented")
        looked_up = {name: neighbour.queue.nearest(views.text(name).normalised.detach()) for name in texts}
    terms = objective.terms(views)
    total = sum(weight * terms[name]["loss"] for name, weight in objective.weights.items())
    total.backward()
    for hook in hooks:
        hook.remove()
    bank = (
        None if neighbour is None else (neighbour.queue.entries.T.clone(), neighbour.queue.pointer.reshape(1).clone())
    )
    state = {name: tensor.clone() for name, tensor in published_state(case, dict(model.state_dict())).items()}
    return Step(views, terms, total, objective, looked_up, bank, state, published_gradients(case, model), heads)


def step_of(request: Request, method: str, prefix: str) -> Step:
    """The step that a call belongs to; the next one goes on with statistics and queue, weights unchanged."""
    case, call = request.case, request.call

    def make() -> Step:
        model = case.once("trained model", lambda: fresh_model(case))
        objective = case.once("objective", lambda: objective_of(case, method))
        inputs = {name.removeprefix(prefix): value for name, value in zip(call.inputs, case.take(call), strict=True)}
        for name, value in (call.extra.get("fixed") or {}).items():
            assert name in SCALES, f"not understood: fixed {name}"
            model.get_parameter(SCALES[name]).data.fill_(torch.as_tensor(value).item())
        if "bank_start" in inputs:
            queue = objective.parts["nearest_neighbour"].queue
            queue.entries.copy_(inputs["bank_start"].T)
            queue.inverse_norms.copy_(1 / queue.entries.norm(dim=1))
            queue.pointer.zero_()
        return take_step(model, objective, batch_of(inputs, method), case)

    return case.once(f"step {prefix}", make)


def scaled(step: Step, rows: Tensor, columns: Tensor) -> Tensor:
    """Logits of a temperature."""
    return (step.views.model.scale() * rows @ columns.T).detach()


def image(step: Step, name: str) -> Tensor:
    """The normalised embeddings of an image view."""
    return step.views.image(name).normalised


def text(step: Step, name: str) -> Tensor:
    """The normalised embeddings of a text view."""
    return step.views.text(name).normalised


def met(step: Step, name: str) -> Tensor:
    """The neighbours that a view of the texts has met."""
    return F.normalize(step.found_in_queue[name].features, dim=-1)


def token_outputs(step: Step, views: tuple[str, str]) -> dict[str, Callable[[], Tensor]]:
    """What is compared of token-wise matching."""
    head, part = step.views.model.heads.token_wise, step.objective.parts["token_wise"]

    def tokens() -> tuple[Tensor, Tensor]:
        """Mapped, not normalised."""
        return head.image(step.views.image(views[0]).tokens), head.text(step.views.text(views[1]).tokens)

    def unit() -> tuple[Tensor, Tensor]:
        """Mapped and normalised."""
        return tuple(F.normalize(one, dim=-1) for one in tokens())

    def logits(side: int) -> Tensor:
        """Of one direction."""
        return head.scale() * token_similarity(*unit(), top_k=part.top_k)[side]

    def kept(side: int) -> Tensor:
        """Places of candidates, in ascending order."""
        count = part.top_k or sum(len(one[0]) for one in unit())
        return kept_tokens(*unit(), count)[side].sort(dim=1).values

    return {
        "image_tokens": lambda: tokens()[0],
        "text_tokens": lambda: tokens()[1],
        "dense_logits_per_image": lambda: logits(0),
        "dense_logits_per_text": lambda: logits(1),
        "filip_logits_per_image": lambda: logits(0),
        "filip_logits_per_text": lambda: logits(1),
        "kept_image_tokens": lambda: kept(0),
        "kept_text_tokens": lambda: kept(1),
    }


def four_pairs(step: Step) -> Tensor:
    """DeCLIP's contrast, pair by pair, in the published order: text view by text view."""
    pairs = sorted(step.objective.parts["multi_view"].pairs, key=lambda pair: ("masked", "augmented").index(pair[1]))
    scale = step.views.model.scale()
    return torch.stack([contrastive_loss(image(step, i), text(step, t), scale).loss for i, t in pairs])


def outputs_of(step: Step, method: str) -> dict[str, Callable[[], Tensor]]:
    """Every output that a method's calls may name, computed when it is asked for."""
    found: dict[str, Callable[[], Tensor]] = {"total": lambda: step.total, "loss": lambda: step.total}
    names = {ours: theirs for theirs, ours in WEIGHTS.items()} | {CONTRAST[method]: "clip_loss"}
    names["token_wise"] = "filip" if method == "defilip" else "dense_loss"
    for ours, term in step.terms.items():
        found |= {name: lambda term=term: term["loss"] for name in (names[ours], f"part.{names[ours]}")}
    if method in ("clip", "slip"):
        found["logits_per_image"] = lambda: scaled(step, image(step, "plain"), text(step, "plain"))
        found["logits_per_text"] = lambda: scaled(step, text(step, "plain"), image(step, "plain"))
        found |= {f"sim_{n + 1}": lambda n=n: step.heads["simclr"][n] for n in range(2)}
    if "token_wise" in step.objective.parts:
        found |= token_outputs(step, ("first", "masked"))
    if method in ("declip", "defilip"):
        found["clip_loss_four_pairs"] = lambda: four_pairs(step)
        for i, t in product(IMAGES, TEXTS):
            sides = partial(image, step, IMAGES[i]), partial(text, step, TEXTS[t])
            found[f"logits_{i}_{t}"] = lambda sides=sides: scaled(step, sides[0](), sides[1]())
            found[f"logits_{t}_{i}"] = lambda sides=sides: scaled(step, sides[1](), sides[0]())
            if step.found_in_queue:
                found[f"nn_logits_{i}_{t}"] = lambda sides=sides, t=t: scaled(step, sides[0](), met(step, TEXTS[t]))
        found |= {f"nn_index_{t}": lambda t=t: step.found_in_queue[TEXTS[t]].indices for t in TEXTS}
    if step.bank is not None:
        bank = step.bank
        found |= {"bank_after": lambda: bank[0], "bank_ptr_after": lambda: bank[1]}
    return found


def cut(step: Step, name: str) -> Tensor | None:
    """Outputs of which the first columns are kept: `z1_first16`, `running_mean.module.projector.bn1_first32`."""
    if not (match := re.fullmatch(r"(.+)_first(\d+)", name)):
        return None
    whole, count = match[1], int(match[2])
    if side := re.fullmatch(r"([zp])([12])", whole):
        return step.heads["simsiam"][int(side[2]) - 1][side[1] == "p"][:, :count]
    statistic, _, module = whole.partition(".")
    return step.state[f"{module}.{statistic}"][:count]


def loss_call(method: str) -> Callable[[Request], Outcome]:
    """The handler of one method's calls."""

    def handle(request: Request) -> Outcome:
        """Values, gradient norms and whole gradients, under the published names."""
        prefix = found[0] if (found := re.match(r"[A-Za-z_]+\d+\.", request.call.outputs[0])) else ""
        step = step_of(request, method, prefix)
        known = outputs_of(step, method)
        outcome: dict[str, Any] = {}
        if "module.visual.class_embedding" in step.gradients:  # a ResNet's first convolution learns
            frozen = "module.visual.conv1.weight" not in step.gradients
            outcome["the patch kernel has no gradient"] = Pair(frozen, True)
        for output in request.call.outputs:
            name = output.removeprefix(prefix)
            if name.startswith("grad_norm."):
                outcome[output] = step.gradients[name.removeprefix("grad_norm.")].norm()
            elif name.startswith("grad."):
                outcome[output] = step.gradients[name.removeprefix("grad.")]
            elif (value := cut(step, name)) is not None:
                outcome[output] = value.detach()
            else:
                outcome[output] = known[name]().detach()
        return outcome

    return handle
