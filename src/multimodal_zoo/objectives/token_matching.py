"""Token-wise matching: images and texts compared patch by patch and word by word.

FILIP (Yao et al. 2021, arXiv:2111.07783, section 3.1): each token takes its best match among the other side's tokens,
and the mean over a sample's tokens is its similarity to the other side, one for each direction.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_zoo.objectives.blockwise import MASKED, everyones_concepts
from multimodal_zoo.objectives.gather import gather, gather_with_gradient, rank


class TokenWiseLoss(NamedTuple):
    """A token-wise contrastive loss and how often it was right.

    Attributes:
        loss: scalar, mean over this process's pairs of the cross-entropies of both directions.
        image_to_text_accuracy: share of images nearest to their own text among all texts; a tie is a miss.
        text_to_image_accuracy: share of texts nearest to their own image.
    """

    loss: Tensor
    image_to_text_accuracy: Tensor
    text_to_image_accuracy: Tensor


class Kept(NamedTuple):
    """Candidate tokens of each pair, most important first.

    Attributes:
        image: (batch, k) long, places of image tokens.
        text: (batch, k) long, places of text tokens.
    """

    image: Tensor
    text: Tensor


def kept_tokens(image_tokens: Tensor, text_tokens: Tensor, top_k: int, text_mask: Tensor | None = None) -> Kept:
    """The `top_k` tokens of each sample that are most similar to the sum of their partner's tokens."""
    image_tokens, text_tokens = image_tokens.detach(), text_tokens.detach()
    if text_mask is not None:
        text_tokens = text_tokens * text_mask[..., None]
    image = (image_tokens @ text_tokens.sum(1)[..., None]).squeeze(-1)
    text = (text_tokens @ image_tokens.sum(1)[..., None]).squeeze(-1)
    if text_mask is not None:
        text = text.masked_fill(~text_mask, MASKED)
    return Kept(image.topk(min(top_k, image.shape[1])).indices, text.topk(min(top_k, text.shape[1])).indices)


def _best(queries: Tensor, candidates: Tensor, query_mask: Tensor | None, mask: Tensor | None) -> Tensor:
    found = torch.einsum("bnd,lmd->blnm", queries, candidates)
    if mask is not None:
        found = found.masked_fill(~mask[None, :, None], MASKED)
    best = found.amax(-1)
    if query_mask is None:
        return best.mean(-1)
    return (best * query_mask[:, None]).sum(-1) / query_mask.sum(-1)[:, None]


def token_similarity(
    image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor | None = None, top_k: int | None = None
) -> tuple[Tensor, Tensor]:
    """(image_to_text (batch, all), text_to_image (batch, all))."""
    images, texts, masks = image_tokens, text_tokens, text_mask
    if top_k is not None:
        kept = kept_tokens(image_tokens, text_tokens, top_k, text_mask)
        images = images.take_along_dim(kept.image[..., None], 1)
        texts = texts.take_along_dim(kept.text[..., None], 1)
        masks = None if text_mask is None else text_mask.gather(1, kept.text)
    images, texts = gather_with_gradient(images), gather_with_gradient(texts)
    masks = None if masks is None else gather(masks)
    return _best(image_tokens, texts, None, masks), _best(text_tokens, images, text_mask, None)


def token_wise_loss(
    image_tokens: Tensor,
    text_tokens: Tensor,
    scale: Tensor,
    top_k: int | None,
    text_mask: Tensor | None = None,
    concepts: Tensor | None = None,
    block_size: int = 16,
) -> TokenWiseLoss:
    """InfoNCE over both directions' similarities."""
    own, everyones = everyones_concepts(concepts, len(image_tokens), image_tokens.device)
    similarities = token_similarity(image_tokens, text_tokens, text_mask, top_k)
    target = rank() * len(image_tokens) + torch.arange(len(image_tokens), device=image_tokens.device)
    losses, accuracies = [], []
    for similarity in similarities:
        logits = similarity * scale
        if own is not None and everyones is not None:
            same = (own[:, None] == everyones) & (own[:, None] >= 0)
            logits = logits.masked_fill(same.scatter(1, target[:, None], False), MASKED)
        losses.append(F.cross_entropy(logits, target))
        rivals = logits.detach().scatter(1, target[:, None], MASKED).amax(1)
        accuracies.append((logits.detach().gather(1, target[:, None]).squeeze(1) > rivals).to(logits.dtype).mean())
    return TokenWiseLoss((losses[0] + losses[1]) / 2, *accuracies)
