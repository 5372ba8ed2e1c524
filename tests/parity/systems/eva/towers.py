"""Calls on EVA-CLIP's towers: embeddings, inner activations, rotary tables, training with dropped patches."""

from __future__ import annotations

import re

import torch
from harness.run import Outcome, Pair, Request
from harness.words import listed_names
from systems.eva.models import model_of, published, published_gradients, raw_image, raw_text
from torch import Tensor, nn

from multimodal_zoo.nn.masks import Causal


def encode_image(request: Request) -> Outcome:
    """Projected image embeddings, not normalised."""
    (images,), (output,) = request.case.take(request.call), request.call.outputs
    with torch.no_grad():
        return {output: raw_image(model_of(request.case), images)}


def encode_text(request: Request) -> Outcome:
    """Projected text embeddings, not normalised."""
    (ids,), (output,) = request.case.take(request.call), request.call.outputs
    with torch.no_grad():
        return {output: raw_text(model_of(request.case), ids)}


def image_pooled(request: Request) -> Outcome:
    """What goes into the projection."""
    (images,), (output,) = request.case.take(request.call), request.call.outputs
    tower = model_of(request.case).image
    with torch.no_grad():
        return {output: (tower(images).pooled, tower.pooled(images))}


def image_stream(request: Request) -> Outcome:
    """The residual stream after the last block, class token first."""
    (images,), (output,) = request.case.take(request.call), request.call.outputs
    tower = model_of(request.case).image
    with torch.no_grad():
        stream = tower.stream(images)
        return {output: (stream, torch.cat([stream[:, : tower.prefix_length], tower(images).tokens], 1))}


def text_tokens(request: Request) -> Outcome:
    """All text tokens after the last norm."""
    (ids,), (output,) = request.case.take(request.call), request.call.outputs
    with torch.no_grad():
        return {output: model_of(request.case).text(ids).tokens}


def vision_model(request: Request) -> Outcome:
    """The Hub's vision tower: the stream after chosen blocks and the pooled token."""
    (images,) = request.case.take(request.call)
    tower = model_of(request.case).image
    outcome: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in request.call.outputs:
            if found := re.fullmatch(r"vision_after_block(\d+)", name):
                outcome[name] = tower.intermediates(images, [int(found[1])])[0]
            elif name == "vision_last_hidden":
                outcome[name] = tower.stream(images)
            elif name == "vision_pooled":
                outcome[name] = tower(images).pooled
    return outcome


def activations(request: Request) -> Outcome:
    """Inner activations by name: `after_patch_embed`, `block0_attn`, `block0_mlp`, `after_block0`, ..."""
    (inputs,) = request.case.take(request.call)
    model = model_of(request.case)
    tower = model.text if request.call.inputs[0].startswith("ids") else model.image
    outcome: dict[str, Tensor] = {}
    with torch.no_grad():
        branches = sub_layers(tower, inputs)
        for name in request.call.outputs:
            if found := re.fullmatch(r"after_(?:block(\d+)|last_block)", name):
                outcome[name] = stream_after(tower, inputs, int(found[1] or -1))
            elif found := re.fullmatch(r"block(\d+)_(attn|mlp)", name):
                outcome[name] = branches[int(found[1]), found[2]]
            elif name == "after_patch_embed":
                outcome[name] = tower.patches(inputs)[0]
    return outcome


def stream_after(tower: nn.Module, inputs: Tensor, block: int) -> Tensor:
    """The residual stream after a block of either tower."""
    if hasattr(tower, "intermediates"):
        return tower.intermediates(inputs, [block])[0]
    return tower.blocks.intermediates(tower.embed(inputs), [block], mask=Causal())[0]


def sub_layers(tower: nn.Module, inputs: Tensor) -> dict[tuple[int, str], Tensor]:
    """Raw outputs of attention and MLP of every block, before layer scale, post-norm and residual."""
    seen: dict[tuple[int, str], Tensor] = {}
    hooks = []
    for number, block in enumerate(tower.blocks.layers):
        for key, module in (("attn", block.attention), ("mlp", block.mlp)):
            place = (number, key)
            hooks.append(module.register_forward_hook(lambda m, i, out, place=place: seen.__setitem__(place, out)))
    tower(inputs)
    for hook in hooks:
        hook.remove()
    return seen


def rotary_table(request: Request) -> Outcome:
    """Cosines and sines of every patch, row by row."""
    tower = model_of(request.case).image
    side = tower.image_size // tower.patches.patch_size
    rotation = tower.rotary((side, side), 0, torch.device("cpu"))
    return {"rope_cos": rotation.cos, "rope_sin": rotation.sin}


def loaded_state(request: Request) -> Outcome:
    """Tensors that were resized while loading, in the published shapes."""
    model = model_of(request.case)
    state = published(request.case, model.state_dict())
    names = {"pos_embed": "visual.pos_embed", "patch_embed_weight": "visual.patch_embed.proj.weight"}
    return {output: state[names[output]] for output in request.call.outputs}


class Keep(nn.Module):
    """Patch dropout that keeps given patches."""

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.keep = keep
        self.result: Tensor | None = None

    def forward(self, tokens: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
        index = (self.keep + prefix)[:, :, None].expand(-1, -1, tokens.shape[2])
        self.result = torch.cat((tokens[:, :prefix], tokens.gather(1, index)), 1)
        return self.result, self.keep


def keeping(request: Request, keep: Tensor) -> tuple[nn.Module, Keep, Outcome]:
    """The model in training mode with given kept patches, and whether our own dropout keeps as many."""
    model = model_of(request.case).train()
    own = request.case.once("patch dropout", lambda: model.image.patch_dropout)
    places = torch.zeros(1, model.image.positions.weight.shape[0], 1)
    (_, drawn), part = own(places, model.image.prefix_length), Keep(keep)
    model.image.patch_dropout = part
    return model, part, {"patches kept": Pair(drawn.shape[1], keep.shape[1])}


def restore(request: Request, model: nn.Module) -> None:
    """Give a model its own patch dropout back, in evaluation mode."""
    model.image.patch_dropout = request.case.once("patch dropout", lambda: model.image.patch_dropout)
    model.eval()


def train_with_kept_patches(request: Request) -> Outcome:
    """The training forward: tokens after patch dropout, and the embedding of those left."""
    images, keep = request.case.take(request.call)
    model, part, outcome = keeping(request, keep)
    features = model.image_projection(model.image(images).pooled).detach()
    restore(request, model)
    assert part.result is not None
    dropped, trained = request.call.outputs
    return {dropped: part.result.detach(), trained: features, **outcome}


def evaluate_all_patches(request: Request) -> Outcome:
    """The same tower in evaluation mode drops nothing."""
    (images,), (output,) = request.case.take(request.call), request.call.outputs
    with torch.no_grad():
        return {output: raw_image(model_of(request.case), images)}


def gradients_with_kept_patches(request: Request) -> Outcome:
    """Gradient norms, under the published names that the note lists."""
    images, keep, weights = request.case.take(request.call)
    names = listed_names(request.call.note, request.case.manifest)
    model, _, _ = keeping(request, keep)
    model.zero_grad()
    loss = (model.image_projection(model.image(images).pooled) * weights).sum()
    loss.backward()
    gradients = published_gradients(request.case, model)
    restore(request, model)
    return {"loss": loss.detach(), "grad_norms": torch.stack([gradients[name].norm() for name in names])}
