"""The names of the tensors of Emu3's visual tokenizer, in the published file and in both namings of transformers.

The published one is `EMU3_VISION`; the language model's folders of transformers hold the tokenizer too, under a prefix,
with inner names of its own: `TRANSFORMERS_VISION`, to be put `under` that prefix.
"""

from __future__ import annotations

from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import COUNTERS, Rule, rename


def _matrix(theirs: str, ours: str) -> Rule:
    """A 1x1 convolution of theirs, `[out, in, 1, 1]`, is a linear layer of ours."""

    def to_ours(tensors: list[Tensor]) -> list[Tensor]:
        """Without the axes of the kernel."""
        if tensors[0].shape[2:] != (1, 1):
            raise CheckpointError(f"{theirs} has shape {tuple(tensors[0].shape)}; expected a kernel of 1 x 1")
        return [tensors[0][:, :, 0, 0]]

    return Rule((theirs,), (ours,), to_ours, lambda tensors: [tensors[0][:, :, None, None]])


def _norm(theirs: str, ours: str, decoder: bool) -> list[Rule]:
    if not decoder:
        return [rename(f"{theirs}.*", f"{ours}.*")]
    names = {"norm_layer": "norm", "conv_y": "scale", "conv_b": "shift"}
    return [rename(f"{theirs}.{a}.*", f"{ours}.{b}.*") for a, b in names.items()]


def _residual(theirs: str, ours: str, decoder: bool) -> list[Rule]:
    return [
        *_norm(f"{theirs}.norm1", f"{ours}.norm_1", decoder),
        rename(f"{theirs}.conv1.*", f"{ours}.conv_1.*"),
        *_norm(f"{theirs}.norm2", f"{ours}.norm_2", decoder),
        rename(f"{theirs}.conv2.*", f"{ours}.conv_2.*"),
        rename(f"{theirs}.nin_shortcut.*", f"{ours}.shortcut.*"),
    ]


def _attention(theirs: str, ours: str, norm: str, decoder: bool, convolved: bool) -> list[Rule]:
    """Attention; `convolved` says whether its layers are kept as 1x1 convolutions."""
    rules = _norm(norm, f"{ours}.norm", decoder)
    short = ("q", "k", "v", "proj_out") if convolved else ("q_proj", "k_proj", "v_proj", "out_proj")
    for a, b in zip(short, ("query", "key", "value", "out"), strict=True):
        weight = _matrix if convolved else rename
        rules.append(weight(f"{theirs}.{a}.weight", f"{ours}.{b}.weight"))
        rules.append(rename(f"{theirs}.{a}.bias", f"{ours}.{b}.bias"))
    return rules


def _temporal(theirs: str, ours: str) -> list[Rule]:
    stack = f"{theirs}.time_res_stack.{{}}", f"{ours}.temporal.blocks.{{}}"
    return [
        rename(f"{theirs}.time_conv.{{}}.conv.conv.*", f"{ours}.temporal.convs.{{}}.conv.*"),
        *(rename(f"{stack[0]}.norm{i}.*", f"{stack[1]}.norm_{i}.*") for i in (1, 2)),
        *(rename(f"{stack[0]}.conv{i}.conv.*", f"{stack[1]}.conv_{i}.conv.*") for i in (1, 2)),
    ]


def _half(part: str, convolved: bool) -> list[Rule]:
    """The rules of `encoder` or `decoder`."""
    decoder, ours = part == "decoder", f"{part}.levels.{{}}"
    way, change = ("up", "upsample") if decoder else ("down", "downsample")
    level = f"{part}.{way}.{{}}" if convolved else f"{part}.{way}_block.{way}.{{}}"
    norm = f"{level}.attn.{{}}.norm" if convolved else f"{level}.attn_norms.{{}}"
    middle = f"{part}.mid" if convolved else f"{part}.middle_block"
    middle_norm = f"{middle}.attn_1.norm" if convolved else f"{middle}.attn_norm"
    return [
        rename(f"{part}.conv_in.*", f"{part}.conv_in.*"),
        *_residual(f"{level}.block.{{}}", f"{ours}.blocks.{{}}", decoder),
        *_attention(f"{level}.attn.{{}}", f"{ours}.attentions.{{}}", norm, decoder, convolved),
        rename(f"{level}.{change}.conv.*", f"{ours}.resample.conv.*"),
        *_residual(f"{middle}.block_1", f"{part}.middle.block_1", decoder),
        *_attention(f"{middle}.attn_1", f"{part}.middle.attention", middle_norm, decoder, convolved),
        *_residual(f"{middle}.block_2", f"{part}.middle.block_2", decoder),
        *_norm(f"{part}.norm_out", f"{part}.norm_out", decoder),
        rename(f"{part}.conv_out.*", f"{part}.conv_out.*"),
        *_temporal(part, part),
    ]


def _table(name: str, convolved: bool) -> Naming:
    rules = [
        *_half("encoder", convolved),
        *_half("decoder", convolved),
        rename("quantize.embedding.weight", "quantizer.codebook"),
        rename("quant_conv.conv.*", "into_codebook.conv.*"),
        rename("post_quant_conv.conv.*", "from_codebook.conv.*"),
    ]
    return Naming(name, rules, [COUNTERS])


EMU3_VISION = _table("emu3_vision_tokenizer", convolved=True)
TRANSFORMERS_VISION = _table("transformers_emu3_vision", convolved=False)
