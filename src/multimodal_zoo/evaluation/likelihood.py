"""How likely a language model finds given continuations: forced choice among texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.nn.cache import KVCache


class Likelihoods(NamedTuple):
    """How likely continuations are.

    Attributes:
        scores: (continuations,) float32, logarithms of probabilities, summed over the tokens of each.
        greedy: (continuations,) bool, whether each token is the likeliest behind those before it.
    """

    scores: Tensor
    greedy: Tensor


def continuation_scores(
    decoder: nn.Module, prompt: Sequence[int] | PromptBatch, continuations: Sequence[Sequence[int]], at_once: int = 64
) -> Tensor:
    """The `scores` of `likelihoods`."""
    return likelihoods(decoder, prompt, continuations, at_once).scores


@torch.no_grad()
def likelihoods(
    decoder: nn.Module, prompt: Sequence[int] | PromptBatch, continuations: Sequence[Sequence[int]], at_once: int = 64
) -> Likelihoods:
    """How likely continuations are behind one prompt, which is read once.

    Args:
        decoder: a causal decoder (`CausalDecoder`).
        prompt: ids, one at least; or a batch of one prompt, embedded where it holds pictures.
        continuations: ids of each, one at least.
        at_once: continuations computed together.

    Raises:
        ValueError: an empty prompt or continuation, or a batch of several prompts.
    """
    if not len(prompt) or not all(continuations):
        raise ValueError("a prompt and each continuation need one token at least")
    one = prompt if isinstance(prompt, PromptBatch) else left_padded([prompt], 0)
    if len(one) > 1 or not bool(one.real.all()):
        raise ValueError(f"{len(one)} prompts, or one with padding; likelihoods are of continuations of one prompt")
    one = one.to(decoder.head_weight.device)
    start = decoder.cache(1, one.inputs.shape[1])
    last = decoder(one.inputs, cache=start, vision=one.vision)[:, -1:]
    found = [
        _likelihoods(decoder, start, last, continuations[first : first + at_once])
        for first in range(0, len(continuations), at_once)
    ]
    return Likelihoods(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))


def picture_scores(model: Any, processor: Any, prompts: Sequence[str], codes: Tensor) -> Tensor:
    """Logarithms of the probabilities of pictures behind their prompts for drawing, per code.

    Line ends and what closes a picture are part of it, and are certain for a model that has learnt to draw.

    Args:
        model: a model that draws (`Emu3`).
        processor: its processor.
        prompts: one per picture.
        codes: (pictures, rows, columns).

    Returns:
        (pictures,) float32.
    """
    rows, columns = codes.shape[1:]
    scores = torch.empty(len(codes))
    for prompt in dict.fromkeys(prompts):  # equal prompts are read once
        places = [place for place, other in enumerate(prompts) if other == prompt]
        wholes = [processor.image_ids(codes[place]) for place in places]
        start = wholes[0].index(processor.ids.image_token) + 1
        before = processor.generation_prompt(prompt, (rows, columns))
        scores[places] = continuation_scores(model.decoder, before, [whole[start:] for whole in wholes])
    return scores / (rows * columns)


def _likelihoods(decoder: Any, start: KVCache, last: Tensor, continuations: Sequence[Sequence[int]]) -> Likelihoods:
    longest = max(map(len, continuations))
    ids = torch.zeros(len(continuations), longest, dtype=torch.long, device=last.device)
    real = torch.zeros_like(ids, dtype=torch.bool)
    for row, tokens in enumerate(continuations):
        ids[row, : len(tokens)] = torch.tensor(tokens, device=ids.device)
        real[row, : len(tokens)] = True
    hidden = last.expand(len(ids), -1, -1)
    if longest > 1:
        cache = start.taken(torch.zeros(len(ids), dtype=torch.long, device=ids.device), len(start) + longest - 1)
        hidden = torch.cat([hidden, decoder(ids[:, :-1], cache=cache)], dim=1)
    logits = decoder.head(hidden)
    found = logits.log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]
    greedy = (logits.argmax(dim=-1) == ids) | ~real
    return Likelihoods((found * real).sum(dim=1), greedy.all(dim=1))
