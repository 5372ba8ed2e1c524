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
    decoder: nn.Module, prompt: Sequence[int] | PromptBatch, continuations: Sequence[Sequence[int]], at_once: int = 32
) -> Tensor:
    """The `scores` of `likelihoods`."""
    return likelihoods(decoder, prompt, continuations, at_once).scores


@torch.no_grad()
def likelihoods(
    decoder: nn.Module, prompt: Sequence[int] | PromptBatch, continuations: Sequence[Sequence[int]], at_once: int = 32
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
    last = decoder(one.inputs, cache=start, vision=one.vision)[0, -1:]
    first = decoder.head(last)[0]  # behind the prompt, for all continuations
    order = sorted(range(len(continuations)), key=lambda place: len(continuations[place]))  # hardly any padding
    scores, greedy = torch.empty(len(continuations)), torch.empty(len(continuations), dtype=torch.bool)
    for begin in range(0, len(order), at_once):
        places = order[begin : begin + at_once]
        scores[places], greedy[places] = _likelihoods(decoder, start, first, [continuations[n] for n in places])
    return Likelihoods(scores, greedy)


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


def _likelihoods(decoder: Any, start: KVCache, first: Tensor, continuations: Sequence[Sequence[int]]) -> Likelihoods:
    """Those of a few; `first` are the logits behind the prompt, (vocab_size,)."""
    lengths = torch.tensor([len(tokens) for tokens in continuations], device=first.device)
    ids = nn.utils.rnn.pad_sequence([torch.tensor(list(tokens)) for tokens in continuations], batch_first=True)
    ids = ids.to(first.device)
    scores = first.log_softmax(-1)[ids[:, 0]]
    greedy = ids[:, 0] == first.argmax()
    longest = ids.shape[1]
    if longest > 1:
        cache = start.taken(torch.zeros_like(lengths), len(start) + longest - 1)
        rows, steps = (torch.arange(1, longest, device=ids.device) < lengths[:, None]).nonzero(as_tuple=True)
        logits = decoder.head(decoder(ids[:, :-1], cache=cache)[rows, steps])  # of real tokens alone
        wanted = ids[rows, steps + 1]
        found = logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1)
        scores = scores.index_add(0, rows, found)
        missed = torch.zeros_like(scores).index_add_(0, rows, (logits.argmax(-1) != wanted).float())
        greedy &= missed == 0
    return Likelihoods(scores.float().cpu(), greedy.cpu())
