"""Attention: one function over the kernel table, and the two modules that call it."""

from __future__ import annotations

from torch import Tensor, nn

from multimodal_zoo.nn.cache import LayerCache
from multimodal_zoo.nn.kernels import check_kernel_name, find_kernel
from multimodal_zoo.nn.linear import LinearLayer
from multimodal_zoo.nn.masks import At, Mask
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.regularize import acted
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.registry import ENCODERS


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    kernel: str = "sdpa",
) -> Tensor:
    """Scaled dot-product attention, `softmax(scale q k^T + bias) v` (arXiv 1706.03762).

    Args:
        query: `(batch, heads, queries, head_dim)`; any strides.
        key: `(batch, kv_heads, keys, head_dim)`; `heads` is a multiple of `kv_heads` (grouped-query attention) and
            each key head serves consecutive query heads.
        value: `(batch, kv_heads, keys, value_dim)`.
        mask: a description from `nn.masks`; None lets every query see every key.
        scale: factor on the logits; None stands for `head_dim ** -0.5`.
        dropout: probability of dropping an attention weight; pass 0 outside training.
        kernel: a name of `nn.kernels.KERNELS`.

    Returns:
        `(batch, heads, queries, value_dim)`; a query that may see no key at all gets 0.

    Raises:
        LookupError: a kernel that does not exist or cannot run here.
        ValueError: shapes that do not fit.
    """
    if query.shape[-1] != key.shape[-1] or key.shape[:3] != value.shape[:3] or query.shape[1] % key.shape[1]:
        raise ValueError(
            f"attention shapes do not fit: query {tuple(query.shape)}, key {tuple(key.shape)}, value "
            f"{tuple(value.shape)}; expected (batch, heads, tokens, head_dim), heads a multiple of the key heads"
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return find_kernel(kernel)(query, key, value, mask, scale, dropout)


@ENCODERS.register_module(name="self_attention")
class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: width of the tokens.
        qkv: the projections to queries, keys and values (`packed_qkv`, `packed_qkv_keyless`, `separate_qkv`).
        output_bias: whether the output layer has a bias.
        inner_norm: a norm over the concatenated heads before the output layer (sub-LN of EVA-02), or None.
        scale: factor on the logits; None stands for `head_dim ** -0.5`, T5 takes 1.
        dropout: probability of dropping an attention weight while training.
        kernel: a name of `nn.kernels.KERNELS`.
    """

    def __init__(
        self,
        width: int,
        qkv: nn.Module,
        output_bias: bool = True,
        inner_norm: nn.Module | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
        kernel: str = "sdpa",
    ) -> None:
        super().__init__()
        if qkv.width != width:
            raise ValueError(f"self_attention.qkv has width {qkv.width}, the attention has width {width}")
        self.width, self.scale, self.dropout = width, scale, dropout
        self.kernel = check_kernel_name(kernel)
        self.qkv = qkv
        self.inner_norm = inner_norm if inner_norm is not None else Identity()
        self.out = LinearLayer(int(qkv.heads) * int(qkv.head_dim), width, output_bias)

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens `(batch, tokens, width)`.

        Args:
            tokens: the sequence.
            mask: what each token may see.
            rotation: tables for the rotary positions of the tokens.
            cache: earlier keys and values, to which these are added.
            places: `(batch, n)`, the tokens whose result is wanted, `(batch, n, width)`; None for all.
        """
        query, key, value = self.qkv(tokens, places)  # (batch, heads, tokens, head_dim)
        if rotation is not None:
            query, key = rotation.both(query, key) if places is None else (rotation.at(places)(query), rotation(key))
        if cache is not None:
            key, value = cache.append(key, value)
        if places is not None and mask is not None:
            mask = At(mask, places)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask=mask, scale=self.scale, dropout=dropout, kernel=self.kernel)
        return self.out(acted(self.inner_norm, mixed.transpose(1, 2).flatten(2)))


@ENCODERS.register_module(name="cross_attention")
class CrossAttention(nn.Module):
    """Multi-head attention from tokens to a context of another width.

    Args:
        width: width of the tokens.
        context_width: width of the context.
        heads: number of heads.
        head_dim: width of a head.
        bias: whether the three input layers have a bias.
        output_bias: whether the output layer has a bias.
        scale: factor on the logits; None stands for `head_dim ** -0.5`, T5 takes 1.
        dropout: probability of dropping an attention weight while training.
        kernel: a name of `nn.kernels.KERNELS`.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        heads: int,
        head_dim: int,
        bias: bool,
        output_bias: bool = True,
        scale: float | None = None,
        dropout: float = 0.0,
        kernel: str = "sdpa",
    ) -> None:
        super().__init__()
        self.width, self.context_width, self.heads, self.head_dim = width, context_width, heads, head_dim
        self.scale, self.dropout = scale, dropout
        self.kernel = check_kernel_name(kernel)
        self.query = LinearLayer(width, heads * head_dim, bias)
        self.key = LinearLayer(context_width, heads * head_dim, bias)
        self.value = LinearLayer(context_width, heads * head_dim, bias)
        self.out = LinearLayer(heads * head_dim, width, output_bias)

    def forward(self, tokens: Tensor, context: Tensor, *, mask: Mask | None = None) -> Tensor:
        """Let tokens `(batch, tokens, width)` read a context `(batch, keys, context_width)`."""
        query, key, value = (
            layer(source).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
            for layer, source in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask=mask, scale=self.scale, dropout=dropout, kernel=self.kernel)
        return self.out(mixed.transpose(1, 2).flatten(2))
