"""A block with weights of their own for tokens of pictures (EVE v2, arXiv 2502.06788, "divide and conquer")."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.attention import SelfAttention, attend
from multimodal_zoo.nn.cache import LayerCache
from multimodal_zoo.nn.masks import At, Mask, pick
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.regularize import DropPath
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.nn.route import Route
from multimodal_zoo.nn.transformer import PreNormBlock
from multimodal_zoo.registry import ENCODERS

#: What of a block may have weights of its own for pictures -> the modules of the block.
DECOUPLED = {"norm": ("norm_1", "norm_2"), "attention": ("attention",), "mlp": ("mlp",)}


@ENCODERS.register_module(name="decoupled_block")
class DecoupledBlock(nn.Module):
    """A pre-norm block whose tokens of pictures take weights of their own; attention runs over both kinds together.

    Each token is multiplied by its own weights only, so that a step costs what it costs with one set of weights.

    Args:
        block: the block of the text tokens.
        parts: names of `DECOUPLED` that exist twice; the others are shared.

    Raises:
        ValueError: an unknown name, or a block that has more than norms, attention and an MLP.
    """

    def __init__(self, block: PreNormBlock, parts: Sequence[str] = ("norm", "attention", "mlp")) -> None:
        super().__init__()
        if unknown := sorted(set(parts) - set(DECOUPLED)):
            raise ValueError(f"blocks.block.parts names {unknown}; it takes {', '.join(DECOUPLED)}")
        if not isinstance(block.scale_1, Identity) or not isinstance(block.attention, SelfAttention):
            raise ValueError("blocks.block.block: a decoupled block takes self_attention and layer_scale=null")
        self.width: int = block.width
        self.text = block
        names = [name for part in parts for name in DECOUPLED[part]]
        self.vision = nn.ModuleDict({name: deepcopy(getattr(block, name)) for name in names})

    @property
    def attention(self) -> nn.Module:
        """The attention of the text tokens."""
        return self.text.attention

    @property
    def drop_path(self) -> DropPath:
        """What drops branches, with a route and without one."""
        return self.text.drop_path

    @torch.no_grad()
    def copy_text_weights(self) -> None:
        """Let the weights for pictures begin anew as those for text (EVE v2, after its first stage)."""
        for name, part in self.vision.items():
            part.load_state_dict(getattr(self.text, name).state_dict())

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        places: Tensor | None = None,
        route: Route | None = None,
    ) -> Tensor:
        """From `(batch, tokens, width)` to the same, or to `(batch, n, width)` at places `(batch, n)`.

        Without a route all tokens are text, as in decoding. Arguments as of `pre_norm_block`.
        """
        if route is None:
            return self.text(tokens, mask=mask, rotation=rotation, cache=cache, places=places)
        branch = self._attend(tokens, route, mask, rotation, cache, places)
        tokens, route = pick(tokens, places) + self.drop_path(branch), route.at(places)
        rows = [self._mlp(pictures, part) for pictures, part in enumerate(route.split(tokens))]
        return tokens + self.drop_path(route.merge(*rows))

    def _part(self, name: str, pictures: int) -> nn.Module:
        return self.vision[name] if pictures and name in self.vision else getattr(self.text, name)

    def _mlp(self, pictures: int, rows: Tensor) -> Tensor:
        return self._part("mlp", pictures)(self._part("norm_2", pictures)(rows))

    def _attend(
        self,
        tokens: Tensor,
        route: Route,
        mask: Mask | None,
        rotation: Rotation | None,
        cache: LayerCache | None,
        places: Tensor | None,
    ) -> Tensor:
        """The attention branch, `(batch, tokens, width)` or `(batch, n, width)`."""
        shared = self.text.attention
        sides = []
        for pictures, rows in enumerate(route.split(tokens)):
            normed = self._part("norm_1", pictures)(rows)
            heads = self._part("attention", pictures).qkv(normed[None])  # each (1, heads, rows, head_dim)
            sides.append([one[0].transpose(0, 1) for one in heads])
        query, key, value = (route.merge(*pair).transpose(1, 2) for pair in zip(*sides, strict=True))
        if places is not None:
            query = query.gather(2, places[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
            mask = None if mask is None else At(mask, places)
        if rotation is not None:
            query, key = rotation.at(places)(query), rotation(key)
        if cache is not None:
            key, value = cache.append(key, value)
        dropout = shared.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask=mask, scale=shared.scale, dropout=dropout, kernel=shared.kernel)
        wanted = route.at(places)
        rows = []
        for pictures, part in enumerate(wanted.split(mixed.transpose(1, 2).flatten(2))):
            attention = self._part("attention", pictures)
            rows.append(attention.out(attention.inner_norm(part)))
        return wanted.merge(*rows)
