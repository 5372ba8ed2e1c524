"""Attention: every kernel equals the definition, forward and backward, under every mask."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from multimodal_zoo.nn.attention import CrossAttention, SelfAttention, attend
from multimodal_zoo.nn.cache import KVCache
from multimodal_zoo.nn.kernels import KERNELS, usable_kernels
from multimodal_zoo.nn.masks import At, Bias, Causal, Document, Mask, Padding
from multimodal_zoo.nn.projections import KeylessBiasProjection, PackedProjection, SeparateProjection
from multimodal_zoo.nn.rotary import Rotary1d

TOKENS = 7
IDS = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
MASKS: dict[str, Mask | None] = {
    "none": None,
    "causal": Causal(),
    "lengths": Padding(torch.tensor([3, 7])),
    "booleans": Padding(torch.tensor([[True] * 5 + [False] * 2, [False] + [True] * 6])),
    "document": Document(IDS),
    "bias": Bias(torch.linspace(-2, 2, 4 * TOKENS * TOKENS).view(1, 4, TOKENS, TOKENS)),
    "packed causal": Causal() & Document(IDS),
    "everything": Causal() & Padding(torch.tensor([3, 7])) & Bias(torch.linspace(-1, 1, TOKENS)[None, None, None]),
    "an empty row": Padding(torch.tensor([0, 7])),
    "empty by bias": Bias(torch.where(torch.arange(TOKENS)[:, None] == 2, float("-inf"), 0.5)),
}


def draw(kv_heads: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(2, heads, TOKENS, 8, dtype=dtype, requires_grad=True) for heads in (4, kv_heads, kv_heads)]


def reference(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None) -> Tensor:
    """Row by row, key by key."""
    out = torch.zeros_like(query)
    groups = query.shape[1] // key.shape[1]
    allowed = mask.allowed(TOKENS, TOKENS, query.device) if mask is not None else None
    allowed = (
        torch.ones(2, 4, TOKENS, TOKENS, dtype=torch.bool) if allowed is None else allowed.expand(2, 4, TOKENS, TOKENS)
    )
    bias = mask.bias() if mask is not None else None
    bias = torch.zeros(2, 4, TOKENS, TOKENS) if bias is None else bias.expand(2, 4, TOKENS, TOKENS)
    for b in range(2):
        for h in range(4):
            for i in range(TOKENS):
                seen = [j for j in range(TOKENS) if allowed[b, h, i, j] and bias[b, h, i, j] > float("-inf")]
                if seen:
                    rows = key[b, h // groups, seen]
                    weights = (rows @ query[b, h, i] * 8**-0.5 + bias[b, h, i, seen]).softmax(0)
                    out[b, h, i] = weights @ value[b, h // groups, seen]
    return out


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", MASKS)
def test_forward_is_the_definition(name: str, kv_heads: int, kernel: str) -> None:
    query, key, value = draw(kv_heads)
    found = attend(query, key, value, mask=MASKS[name], kernel=kernel)
    assert_close(found, reference(query, key, value, MASKS[name]).detach(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("name", MASKS)
def test_sdpa_gradient_is_the_math_gradient(name: str, kv_heads: int) -> None:
    inputs = draw(kv_heads)
    gradients = []
    for kernel in ("sdpa", "math"):
        loss = attend(*inputs, mask=MASKS[name], kernel=kernel).pow(2).sum()
        gradients.append(torch.autograd.grad(loss, inputs))
    for found, expected in zip(*gradients, strict=True):
        assert torch.isfinite(found).all()
        assert_close(found, expected, atol=1e-7, rtol=1e-6)


def test_a_query_without_keys_gets_zero() -> None:
    query, key, value = draw()
    for kernel in ("sdpa", "math"):
        assert attend(query, key, value, mask=MASKS["an empty row"], kernel=kernel)[0].abs().max() == 0
        assert attend(query, key, value, mask=MASKS["empty by bias"], kernel=kernel)[:, :, 2].abs().max() == 0


def test_a_learned_bias_gets_its_gradient() -> None:
    query, key, value = draw()
    bias = torch.randn(1, 4, TOKENS, TOKENS, dtype=torch.float64, requires_grad=True)
    first, second = (
        torch.autograd.grad(attend(query, key, value, mask=Causal() & Bias(bias), kernel=k).pow(2).sum(), bias)[0]
        for k in ("sdpa", "math")
    )
    assert first.abs().sum() > 0
    assert_close(first, second)


def test_scale_replaces_the_default() -> None:
    query, key, value = draw()
    expected = attend(query * 8**0.5, key, value)
    assert_close(attend(query, key, value, scale=1.0), expected)


def test_dropout_drops_weights_only_where_asked() -> None:
    query, key, value = draw()
    assert not torch.equal(attend(query, key, value, dropout=0.5), attend(query, key, value))
    layer = SelfAttention(16, PackedProjection(16, 2, 8, 2, True), dropout=0.5).eval()
    tokens = torch.randn(1, 5, 16)
    assert_close(layer(tokens), layer(tokens))


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (lambda: Padding(torch.ones(2, 3)), "bool"),
        (lambda: Bias(torch.ones(2, 3, dtype=torch.bool)), "floating"),
    ],
)
def test_malformed_masks_are_refused(mask: object, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        mask()  # type: ignore[operator]


def test_masks_of_another_length_are_refused() -> None:
    query, key, value = draw()
    with pytest.raises(ValueError, match="5 keys"):
        attend(query, key, value, mask=Padding(torch.ones(2, 5, dtype=torch.bool)))
    with pytest.raises(ValueError, match="Document ids"):
        attend(query, key, value, mask=Document(torch.zeros(2, 5, dtype=torch.long)))


def test_heads_that_do_not_fit_are_refused() -> None:
    query, key, value = draw()
    with pytest.raises(ValueError, match="multiple of the key heads"):
        attend(query[:, :3], key[:, :2], value[:, :2])
    with pytest.raises(ValueError, match="heads 6 is not a multiple of kv_heads 4"):
        PackedProjection(48, heads=6, head_dim=8, kv_heads=4, bias=True)
    with pytest.raises(ValueError, match="width 32, the attention has width 48"):
        SelfAttention(48, PackedProjection(32, 4, 8, 4, True))


def test_an_unknown_kernel_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match="no attention kernel named 'flush'; known: sdpa, math, flash, xformers"):
        SelfAttention(16, PackedProjection(16, 2, 8, 2, True), kernel="flush")


@pytest.mark.parametrize("kernel", ["flash", "xformers"])
def test_an_absent_kernel_says_how_to_get_it(kernel: str) -> None:
    if not KERNELS[kernel].missing():
        pytest.skip("the kernel is usable here")
    with pytest.raises(LookupError, match=rf"kernel '{kernel}' .*; usable here: sdpa, math"):
        attend(*draw(), kernel=kernel)
    assert kernel not in usable_kernels()


@pytest.fixture
def stand_in_for_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, dropout_p: float, softmax_scale: float, causal: bool
    ) -> Tensor:
        lower = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        rows = [t.transpose(1, 2).float() for t in (q, k, v)]
        out = scaled_dot_product_attention(*rows, attn_mask=lower if causal else None, scale=softmax_scale)
        return out.transpose(1, 2).to(q.dtype)

    module = ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setitem(KERNELS, "flash", KERNELS["flash"]._replace(missing=lambda: ""))


@pytest.mark.usefixtures("stand_in_for_flash")
def test_flash_gets_what_it_understands() -> None:
    query, key, value = (t.detach().half() for t in draw())
    for mask, asked in ((None, query), (Causal(), query), (Causal(offset=TOKENS - 2), query[:, :, -2:])):
        found = attend(asked, key, value, mask=mask, kernel="flash")
        assert_close(found, attend(asked, key, value, mask=mask, kernel="math"), atol=2e-3, rtol=2e-3)
    with pytest.raises(ValueError, match="use 'sdpa'"):
        attend(query, key, value, mask=Padding(torch.tensor([1, 2])), kernel="flash")
    with pytest.raises(ValueError, match="float16 or bfloat16"):
        attend(query.float(), key.float(), value.float(), kernel="flash")


@pytest.mark.usefixtures("stand_in_for_flash")
def test_flash_computes_one_place_of_each_row() -> None:
    mask = At(Causal(), torch.tensor([[1], [TOKENS - 1]]))  # as the last block of a CLIP text tower
    start, grads = draw(), []
    for kernel in ("flash", "math"):
        query, key, value = (t.detach().half().requires_grad_() for t in start)
        found = attend(query[:, :, :1], key, value, mask=mask, kernel=kernel)
        found.float().square().sum().backward()
        grads.append((found.detach(), query.grad, key.grad, value.grad))
    for ours, exact in zip(*grads, strict=True):
        assert_close(ours, exact, atol=4e-3, rtol=4e-3)
    query, key, value = (t.detach().half() for t in draw())
    for refused in (At(Causal(), torch.tensor([[0, 1], [1, 2]])), At(Padding(torch.tensor([1, 2])), mask.places)):
        with pytest.raises(ValueError, match="use 'sdpa'"):
            attend(query[:, :, : refused.places.shape[1]], key, value, mask=refused, kernel="flash")


def test_xformers_gets_an_aligned_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory_efficient_attention(
        q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor | None, p: float, scale: float
    ) -> Tensor:
        assert attn_bias is None or (attn_bias.stride(-2) % 8 == 0 and attn_bias.shape == (2, 4, TOKENS, TOKENS))
        rows = [t.transpose(1, 2) for t in (q, k, v)]
        return scaled_dot_product_attention(*rows, attn_mask=attn_bias, scale=scale).transpose(1, 2)

    module = ModuleType("xformers.ops")
    module.memory_efficient_attention = memory_efficient_attention  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", module)
    monkeypatch.setitem(KERNELS, "xformers", KERNELS["xformers"]._replace(missing=lambda: ""))
    inputs = draw(kv_heads=2)
    for mask in MASKS.values():
        assert_close(attend(*inputs, mask=mask, kernel="xformers"), attend(*inputs, mask=mask, kernel="math"))


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
@pytest.mark.parametrize("steps", [[7], [1] * 7, [3, 1, 2, 1]])
def test_the_cache_gives_the_full_forward(steps: list[int], kernel: str) -> None:
    layer = SelfAttention(32, SeparateProjection(32, 4, 8, 2, ["query", "value"]), kernel=kernel).double()
    rotary = Rotary1d(8)
    tokens = torch.randn(2, TOKENS, 32, dtype=torch.float64)
    whole = layer(tokens, mask=Causal(), rotation=rotary(torch.arange(TOKENS)))
    cache = KVCache(1, 2, 2, capacity=TOKENS, head_dim=8, dtype=torch.float64)
    parts, start = [], 0
    with torch.no_grad():
        for count in steps:
            rotation = rotary(torch.arange(start, start + count))
            part = tokens[:, start : start + count]
            parts.append(layer(part, mask=Causal(offset=len(cache)), rotation=rotation, cache=cache.layers[0]))
            start += count
    assert_close(torch.cat(parts, 1), whole)
    with pytest.raises(ValueError, match="KV cache holds 7 tokens, 8 are needed"):
        layer(tokens[:, :1], cache=cache.layers[0])
    cache.reset()
    assert len(cache) == 0
    with pytest.raises(ValueError, match="cannot take"):
        cache.layers[0].append(torch.zeros(2, 4, 1, 8), torch.zeros(2, 4, 1, 8))


@pytest.mark.parametrize("name", MASKS)
def test_some_places_equal_the_same_rows_of_all(name: str) -> None:
    places = torch.tensor([[0, 6], [2, 3]])
    for qkv in (
        PackedProjection(32, 4, 8, 2, True),
        KeylessBiasProjection(32, 4, 8),
        SeparateProjection(32, 4, 8, 4, []),
    ):
        layer = SelfAttention(32, qkv).double()
        tokens = torch.randn(2, TOKENS, 32, dtype=torch.float64)
        rotation = Rotary1d(8)(torch.arange(TOKENS).repeat(2, 1))
        whole = layer(tokens, mask=MASKS[name], rotation=rotation)
        some = layer(tokens, mask=MASKS[name], rotation=rotation, places=places)
        assert_close(some, whole.gather(1, places[:, :, None].expand(-1, -1, 32)))


def test_bias_patterns_hold_the_published_tensors() -> None:
    assert {k: tuple(v.shape) for k, v in PackedProjection(16, 2, 8, 2, True).state_dict().items()} == {
        "weight": (48, 16),
        "bias": (48,),
    }
    assert set(KeylessBiasProjection(16, 2, 8).state_dict()) == {"weight", "q_bias", "v_bias"}
    names = set(SeparateProjection(16, 2, 8, 1, ["query", "value"]).state_dict())
    assert names == {"query.weight", "query.bias", "key.weight", "value.weight", "value.bias"}
    with pytest.raises(ValueError, match="it takes query, key, value"):
        SeparateProjection(16, 2, 8, 1, ["q"])


def test_packed_and_separate_projections_agree() -> None:
    packed, separate = PackedProjection(16, 4, 5, 2, True), SeparateProjection(16, 4, 5, 2, ["query", "key", "value"])
    for part, rows, bias in zip(
        (separate.query, separate.key, separate.value),
        packed.weight.split((20, 10, 10)),
        torch.randn(40).split((20, 10, 10)),
        strict=True,
    ):
        part.weight.data, part.bias.data = rows.data.clone(), bias
    packed.bias.data = torch.cat([p.bias.data for p in (separate.query, separate.key, separate.value)])
    tokens = torch.randn(3, 5, 16)
    for one, other in zip(packed(tokens), separate(tokens), strict=True):
        assert_close(one, other)


def test_cross_attention_reads_a_context_of_another_width() -> None:
    layer = CrossAttention(12, 20, heads=3, head_dim=8, bias=False, output_bias=False, scale=1.0)
    tokens, context = torch.randn(2, 4, 12), torch.randn(2, 6, 20)
    query, key, value = layer.query(tokens), layer.key(context), layer.value(context)
    heads = []
    for h in range(3):
        part = slice(8 * h, 8 * h + 8)
        heads.append((query[..., part] @ key[..., part].mT).softmax(-1) @ value[..., part])
    assert_close(layer(tokens, context), layer.out(torch.cat(heads, -1)))
    short = layer(tokens, context, mask=Padding(torch.tensor([2, 6])))
    assert_close(short[0], layer(tokens[:1], context[:1, :2])[0])
    assert not [name for name in layer.state_dict() if "bias" in name]


def test_agrees_with_torch_multihead_attention() -> None:
    peer = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    layer = SelfAttention(24, PackedProjection(24, 3, 8, 3, True))
    layer.qkv.weight.data, layer.qkv.bias.data = peer.in_proj_weight.data, peer.in_proj_bias.data + 0.1
    peer.in_proj_bias.data = layer.qkv.bias.data
    layer.out.load_state_dict(peer.out_proj.state_dict())
    tokens = torch.randn(2, 5, 24)
    assert_close(layer(tokens), peer(tokens, tokens, tokens, need_weights=False)[0])
