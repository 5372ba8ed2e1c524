"""Residual blocks and the stack that repeats one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_call

from multimodal_zoo.nn.cache import KVCache, LayerCache
from multimodal_zoo.nn.masks import Mask, pick
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.recompute import keep_attention
from multimodal_zoo.nn.regularize import DropPath, acted, check_rate
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.nn.route import Route
from multimodal_zoo.registry import ENCODERS

#: What is recomputed in the backward pass instead of kept: nothing, the inside of every block, or that without its
#: attention.
CHECKPOINT_POLICIES = ("none", "block", "around_attention")


#: Called with how many blocks a residual stream `(batch, tokens, width)` has passed, and with that stream.
Observer = Callable[[int, Tensor], None]


class _Block(nn.Module):
    """What both kinds of block hold; `norm` and `layer_scale` are prototypes, copied for each branch."""

    def __init__(
        self, attention: nn.Module, mlp: nn.Module, norm: nn.Module, layer_scale: nn.Module | None = None
    ) -> None:
        super().__init__()
        for name, part in (("mlp", mlp), ("norm", norm)):
            if getattr(part, "width", attention.width) != attention.width:
                raise ValueError(f"block.{name} has width {part.width}, block.attention has width {attention.width}")
        self.width: int = attention.width
        self.norm_1, self.attention = deepcopy(norm), attention
        self.norm_2, self.mlp = deepcopy(norm), mlp
        self.scale_1 = Identity() if layer_scale is None else deepcopy(layer_scale)
        self.scale_2 = Identity() if layer_scale is None else deepcopy(layer_scale)
        self.drop_path = DropPath()


@ENCODERS.register_module(name="pre_norm_block")
class PreNormBlock(_Block):
    """`x += scale attention(norm x)`, then `x += scale mlp(norm x)` (arXiv 2002.04745).

    Args:
        attention: the mixing of tokens.
        mlp: the mixing of channels.
        norm: prototype of both norms.
        layer_scale: prototype of what acts on both branches: factors (`layer_scale`), `branch_dropout`, or None.
    """

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """From `(batch, tokens, width)` to the same, or to `(batch, n, width)` at places `(batch, n)`."""
        branch = self.attention(self.norm_1(tokens), mask=mask, rotation=rotation, cache=cache, places=places)
        tokens = pick(tokens, places) + acted(self.drop_path, acted(self.scale_1, branch))
        return tokens + acted(self.drop_path, acted(self.scale_2, self.mlp(self.norm_2(tokens))))


@ENCODERS.register_module(name="post_norm_block")
class PostNormBlock(_Block):
    """`x += scale norm(attention(x))`, then `x += scale norm(mlp(x))` (EVA-02-CLIP-E, EVA-CLIP-18B).

    The norm sits inside the branch; the residual stream itself is never normalised.

    Args:
        attention: the mixing of tokens.
        mlp: the mixing of channels.
        norm: prototype of both norms.
        layer_scale: prototype of what acts on both branches: factors (`layer_scale`), `branch_dropout`, or None.
    """

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """From `(batch, tokens, width)` to the same, or to `(batch, n, width)` at places `(batch, n)`."""
        branch = self.attention(tokens, mask=mask, rotation=rotation, cache=cache, places=places)
        tokens = pick(tokens, places) + acted(self.drop_path, acted(self.scale_1, self.norm_1(branch)))
        return tokens + acted(self.drop_path, acted(self.scale_2, self.norm_2(self.mlp(tokens))))


def reset(module: nn.Module) -> None:
    """Draw the weights of a module and everything in it anew, each part by its own rule."""
    for part in module.modules():
        if callable(again := getattr(part, "reset_parameters", None)):
            again()


@ENCODERS.register_module(name="transformer")
class Transformer(nn.Module):
    """A stack of blocks: copies of one prototype, each with weights of its own.

    Args:
        block: the prototype.
        depth: number of blocks.
        drop_path: rate of the last block; the rates rise linearly from 0 at the first.
        checkpoint: a name of `CHECKPOINT_POLICIES`.
        init: draws the weights of the whole stack (`clip_init`, `scaled_init`); None leaves each part its own rule.
        adapter: puts further weights beside some of its layers (`low_rank`), or None.
    """

    def __init__(
        self,
        block: nn.Module,
        depth: int,
        drop_path: float = 0.0,
        checkpoint: str = "none",
        init: Callable[[Transformer], None] | None = None,
        adapter: Callable[[Transformer], None] | None = None,
    ) -> None:
        super().__init__()
        if checkpoint not in CHECKPOINT_POLICIES:
            raise ValueError(f"blocks.checkpoint is {checkpoint!r}; it takes {', '.join(CHECKPOINT_POLICIES)}")
        if depth < 1:
            raise ValueError(f"blocks.depth is {depth}; a stack has at least one block")
        self.width: int = block.width
        self.depth, self.checkpoint, self.init = depth, checkpoint, init
        self.layers = nn.ModuleList(deepcopy(block) for _ in range(depth))
        check_rate(drop_path, "blocks.drop_path")
        for i, layer in enumerate(self.layers):
            layer.drop_path.rate = drop_path * i / max(1, depth - 1)
        reset(self.layers)
        if init is not None:
            init(self)
        if adapter is not None:
            adapter(self)

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
        places: Tensor | None = None,
        route: Route | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """The residual stream after the last block, `(batch, tokens, width)`.

        Args:
            tokens: `(batch, tokens, width)`.
            mask: what each token may see.
            rotation: tables for the rotary positions of the tokens.
            cache: earlier keys and values of every block.
            places: `(batch, n)`, the tokens that are wanted; the last block then computes only these, with the same
                result, `(batch, n, width)`. None for all.
            route: which tokens take which weights, for blocks that have two sets (`decoupled_block`).
            observe: sees the stream in front of the first block and behind every one.
        """
        for i, layer in enumerate(self.layers):
            if observe is not None:
                observe(i, tokens)
            share = cache.layers[i] if cache is not None else None
            wanted = places if i == self.depth - 1 else None
            tokens = self._call(layer, tokens, mask, rotation, share, wanted, route)
        if observe is not None:
            observe(self.depth, tokens)
        return tokens

    def intermediates(
        self, tokens: Tensor, layers: Sequence[int], *, mask: Mask | None = None, rotation: Rotation | None = None
    ) -> list[Tensor]:
        """The residual stream after chosen blocks; blocks behind the last chosen one are not run.

        Args:
            tokens: `(batch, tokens, width)`.
            layers: block numbers from 0, or from the end when negative; the result is in this order.
            mask: as in `forward`.
            rotation: as in `forward`.

        Raises:
            ValueError: a block that does not exist.
        """
        wanted = [i + self.depth if i < 0 else i for i in layers]
        if not wanted or min(wanted) < 0 or max(wanted) >= self.depth:
            raise ValueError(f"layers {list(layers)} of a stack of depth {self.depth}: expected 0 to {self.depth - 1}")
        found: dict[int, Tensor] = {}
        for i, layer in enumerate(self.layers[: max(wanted) + 1]):
            tokens = found[i] = self._call(layer, tokens, mask, rotation)
        return [found[i] for i in wanted]

    def _call(
        self,
        layer: nn.Module,
        tokens: Tensor,
        mask: Mask | None,
        rotation: Rotation | None,
        cache: LayerCache | None = None,
        places: Tensor | None = None,
        route: Route | None = None,
    ) -> Tensor:
        given = {"mask": mask, "rotation": rotation, "cache": cache, "places": places}
        if route is not None:
            given["route"] = route
        # a frozen stack is in evaluation mode, and gradients may pass through it to what feeds it
        learning = torch.is_grad_enabled() and (self.training or tokens.requires_grad)
        if self.checkpoint == "none" or not learning:
            return layer(tokens, **given)
        kept = {"context_fn": keep_attention} if self.checkpoint == "around_attention" else {}
        return checkpoint_call(layer, tokens, use_reentrant=False, **kept, **given)
