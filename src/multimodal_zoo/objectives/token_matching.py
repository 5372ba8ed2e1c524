"""Token-wise matching: images and texts compared patch by patch and word by word.

FILIP (Yao et al. 2021, arXiv:2111.07783, section 3.1): each token takes its best match among the other side's tokens,
and the mean over a sample's tokens is its similarity to the other side, one for each direction.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_zoo.nn.best_matches import Sequences, best_matches, mutual_matches
from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.processes import gather, gather_with_gradient, swap_blocks, world_size
from multimodal_zoo.objectives.contrastive import ContrastiveLoss
from multimodal_zoo.objectives.pairs import MASKED, check_concepts, check_scale, everyones_concepts, own_columns


class TokenSimilarity(NamedTuple):
    """Similarities between this process's samples and those of all processes.

    Attributes:
        image_to_text: (batch, processes * batch), own images (rows) and all texts.
        text_to_image: (batch, processes * batch), own texts (rows) and all images.
    """

    image_to_text: Tensor
    text_to_image: Tensor


class KeptTokens(NamedTuple):
    """Which tokens of each sample others may match, the most important first.

    Attributes:
        image: (batch, kept) long, places of image tokens.
        text: (batch, kept) long, places of text tokens.
    """

    image: Tensor
    text: Tensor


def token_wise_loss(
    image_tokens: Tensor,
    text_tokens: Tensor,
    scale: Tensor,
    top_k: int | None,
    text_mask: Tensor | None = None,
    concepts: Tensor | None = None,
    block_size: int = 16,
) -> ContrastiveLoss:
    """InfoNCE over token-wise similarities times `scale`, images to texts and texts to images, averaged.

    Exact under data parallelism as `contrastive_loss` is: parameter gradients averaged over processes are those of one
    process with the whole batch. Half-precision tokens are compared in float32.

    Args:
        image_tokens: (batch, tokens, width), L2-normalised; sample i belongs to sample i of `text_tokens`.
        text_tokens: (batch, words, width), L2-normalised.
        scale: scalar, inverse temperature.
        top_k: how many tokens of a sample are candidates (see `kept_tokens`); None: all of them.
        text_mask: (batch, words) bool, true at real words: padding then neither looks for a match nor is one. None:
            padding takes part, as in the published code.
        concepts: (batch,) long; pairs of one concept are not negatives of each other. Negative ids: no concept.
        block_size: pairs of either side compared at a time; changes memory and speed, not the result. 16 suits the
            caches of a processor.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a text without any real word, sizes below one.
    """
    check_scale(scale)
    check_concepts(concepts, len(image_tokens))
    known = everyones_concepts(concepts, len(image_tokens), image_tokens.device)
    similarity = token_similarity(image_tokens, text_tokens, text_mask, top_k, block_size)
    target = own_columns(len(image_tokens), image_tokens.device)
    losses, accuracies = [], []
    for side in similarity:
        logits = side * scale.to(side.dtype)
        if known is not None:
            logits = logits.masked_fill(known.same(slice(None), slice(None), target), MASKED)
        losses.append(F.cross_entropy(logits, target))
        accuracies.append(_accuracy(logits.detach(), target))
    return ContrastiveLoss((losses[0] + losses[1]) / 2, *accuracies)


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    own = logits.gather(1, target[:, None])
    rival = logits.scatter(1, target[:, None], MASKED).amax(1, keepdim=True)
    return (own > rival).to(logits.dtype).mean()


def token_similarity(
    image_tokens: Tensor,
    text_tokens: Tensor,
    text_mask: Tensor | None = None,
    top_k: int | None = None,
    block_size: int = 16,
) -> TokenSimilarity:
    """Mean over a sample's tokens of their best cosine with the other sample's tokens, both ways.

    With several processes the others' tokens are gathered with their gradients. Texts may differ in length between
    processes: what a shorter one lacks takes no part.

    Args:
        image_tokens: (batch, tokens, width), L2-normalised.
        text_tokens: (batch, words, width), L2-normalised.
        text_mask: (batch, words) bool, true at words that take part; None: all do.
        top_k: how many tokens of a sample are candidates (see `kept_tokens`); None: all of them.
        block_size: samples of either side compared at a time.

    Raises:
        ValueError: as `token_wise_loss`.
    """
    _check(image_tokens, text_tokens, text_mask, top_k, block_size)
    dtype = _precision(image_tokens, text_tokens)
    with torch.autocast(image_tokens.device.type, enabled=False):
        if top_k is None:
            texts = _everyones(text_tokens, text_mask, dtype)
            forth, back = mutual_matches(image_tokens.to(dtype), texts, block_size)
            return TokenSimilarity(forth, swap_blocks(back))
        kept = kept_tokens(image_tokens, text_tokens, top_k, text_mask)
        images = _everyones(image_tokens.take_along_dim(kept.image[..., None], 1), None, dtype)
        kept_mask = None if text_mask is None else text_mask.gather(1, kept.text)
        texts = _everyones(text_tokens.take_along_dim(kept.text[..., None], 1), kept_mask, dtype)
        forth = best_matches(Sequences(image_tokens.to(dtype)), texts, block_size)
        back = best_matches(Sequences(text_tokens.to(dtype), text_mask), images, block_size)
        return TokenSimilarity(forth, back)


def kept_tokens(image_tokens: Tensor, text_tokens: Tensor, top_k: int, text_mask: Tensor | None = None) -> KeptTokens:
    """The tokens of each sample that are most similar to its own partner: highest product with the sum of its tokens.

    The selection of the benchmark's last code (Cui et al. 2022, arXiv:2203.05796); all tokens still look for a match.

    Args:
        image_tokens: (batch, tokens, width), L2-normalised.
        text_tokens: (batch, words, width), L2-normalised.
        top_k: how many; a sample with fewer tokens keeps all of them.
        text_mask: (batch, words) bool, true at real words; others neither count nor are kept before all real ones.
    """
    dtype = _precision(image_tokens, text_tokens)
    image_tokens, text_tokens = image_tokens.detach().to(dtype), text_tokens.detach().to(dtype)
    if text_mask is not None:
        text_tokens = text_tokens * text_mask[..., None]
    image = torch.linalg.vecdot(image_tokens, text_tokens.sum(1, keepdim=True))
    text = torch.linalg.vecdot(text_tokens, image_tokens.sum(1, keepdim=True))
    if text_mask is not None:
        text = text.masked_fill(~text_mask, -torch.inf)
    return KeptTokens(*(side.topk(min(top_k, side.shape[1]), dim=1).indices for side in (image, text)))


def _precision(images: Tensor, texts: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(images.dtype, texts.dtype), torch.float32)


def _everyones(tokens: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Sequences:
    """All processes' tokens, in rank order; where their numbers differ, filled up to the largest and masked."""
    if world_size() == 1:
        return Sequences(tokens.to(dtype), mask)
    counts = gather(torch.tensor([tokens.shape[1]], device=tokens.device)).tolist()
    if len(set(counts)) > 1:
        mask = torch.ones_like(tokens[..., 0], dtype=torch.bool) if mask is None else mask
        missing = max(counts) - tokens.shape[1]
        tokens, mask = F.pad(tokens, (0, 0, 0, missing)), F.pad(mask, (0, missing))
    everyones = None if mask is None else gather(mask.to(torch.uint8)).bool()
    return Sequences(gather_with_gradient(tokens).to(dtype), everyones)


def _check(images: Tensor, texts: Tensor, mask: Tensor | None, top_k: int | None, block_size: int) -> None:
    shapes = f"image {tuple(images.shape)}, text {tuple(texts.shape)}"
    if images.ndim != 3 or texts.ndim != 3 or 0 in (*images.shape, *texts.shape):
        raise ValueError(f"tokens of both sides must be (batch, tokens, width), none of them 0, not {shapes}")
    if len(images) != len(texts) or images.shape[2] != texts.shape[2]:
        raise ValueError(f"both sides' tokens need the same batch and width, not {shapes}")
    if not (images.is_floating_point() and texts.is_floating_point()):
        raise ValueError(f"tokens must be floating-point, not {images.dtype} and {texts.dtype}")
    if mask is not None and (mask.shape != texts.shape[:2] or mask.dtype != torch.bool):
        expected = tuple(texts.shape[:2])
        raise ValueError(f"text_mask must be {expected} of torch.bool, not {tuple(mask.shape)} of {mask.dtype}")
    if mask is not None and may_look(mask) and not bool(mask.any(1).all()):
        raise ValueError(f"text {int(mask.any(1).long().argmin())} of the batch has no real word in text_mask")
    for key, value in (("top_k", top_k), ("block_size", block_size)):
        if value is not None and value < 1:
            raise ValueError(f"{key} is {value}; it must be at least 1 (configuration key: {key})")
