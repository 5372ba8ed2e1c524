"""Emu3's cases: the visual tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from harness.cases import Call, Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from torch import Tensor, nn

from multimodal_zoo.checkpoints.tables.emu3_vision import EMU3_VISION
from multimodal_zoo.checkpoints.tables.emu3_vision_config import DEFAULTS, vision_node
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_vision import Emu3VisionTokenizer

#: Codes are compared where the two nearest entries differ by more (squared distance).
CLEAR = 1e-4
#: Frames computed together where intermediate values are watched, and where they are not.
ALL, FEW = 1 << 20, 3


def vision_tokenizer(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Emu3VisionTokenizer:
    """Our tokenizer of a published configuration, with weights in the published naming."""
    known = take_known(config, DEFAULTS.keys() | {"model_type"}, "vision config")
    model = build(vision_node(known))
    model.load_state_dict(EMU3_VISION.load(state))
    model.frames_at_once = ALL  # so that a module that is watched sees every frame at once
    return model.eval()


def min_margin(case: Case) -> Outcome:
    """The field `min_margin`: the smallest of the case's margins, which the handlers compare one by one."""
    return {"min_margin": Pair(float(case.tensors["margin"].min()), float(case.fields["min_margin"]))}


#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"min_margin": min_margin}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"encode\((?:image|video)\)", when=_is_vision)(encode)
    system.call(r"decode\(\w+(?:\[:, :(?P<steps>\d+)\])?\)", when=_is_vision)(decode)


def _is_vision(case: Case, call: Call) -> bool:
    return "temporal_downsample_factor" in case.config


def _model(case: Case) -> Emu3VisionTokenizer:
    return case.once("vision_tokenizer", lambda: vision_tokenizer(case.config, case.state))


def encode(request: Request) -> Outcome:
    """Codes with what is computed on the way, a still in both ways."""
    case, model = request.case, _model(request.case)
    (pixels,) = case.take(request.call)
    still = pixels.ndim == 4
    expected = case.tensors["codes"]
    ways = [pixels] if not still else [pixels, pixels[:, None].expand(-1, model.temporal_factor, -1, -1, -1)]
    found: dict[str, list[Tensor]] = {}
    for way in ways:
        for name, tensor in _encoded(model, way).items():
            found.setdefault(name, []).append(tensor)
        with _few_frames(model):
            found["codes"].append(model.encode(way))
        found["margin"].append(found["margin"][-1])
    codes = [way[:, 0] if still and way.ndim == 4 else way for way in found["codes"]]
    margins = [way[:, 0] if still else way for way in found["margin"]]
    found["codes"] = [torch.where(margin > CLEAR, way, expected) for way, margin in zip(codes, margins, strict=True)]
    if still:  # computed once for all copies
        copies = model.temporal_factor
        found["enc_conv_out"][0] = found["enc_conv_out"][0].repeat_interleave(copies, 0)
    return {name: tuple(tensors) for name, tensors in found.items() if name in request.call.outputs}


def _encoded(model: Emu3VisionTokenizer, pixels: Tensor) -> dict[str, Tensor]:
    encoder = model.encoder
    watched: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
        "enc_conv_in": (encoder.conv_in, lambda x: x[0, :2]),
        "enc_down0_block0": (encoder.levels[0].blocks[0], lambda x: x[0, :2]),
        "enc_mid_out": (encoder.middle, lambda x: x[0, :8]),
        "enc_conv_out": (encoder.conv_out, lambda x: x),
        "enc_out": (encoder.temporal, lambda x: x.transpose(1, 2)),
        "prequant": (model.into_codebook, lambda x: x),
    }
    attending = [level for level in encoder.levels if level.attentions]
    if attending:
        watched["enc_last_attn0"] = (attending[-1].attentions[0], lambda x: x[0, :8])
    for number, conv in enumerate(encoder.temporal.convs):
        watched[f"enc_time_conv{number}"] = (conv, lambda x: x)
    with _watching(watched) as found:
        codes = model.encode(pixels)
    return {**found, "codes": codes, "margin": _margins(model, found["prequant"])}


def _margins(model: Emu3VisionTokenizer, latents: Tensor) -> Tensor:
    vectors, entries = latents.movedim(1, -1).double(), model.quantizer.codebook.detach().double()
    distances = (vectors[..., None, :] - entries).square().sum(-1)
    first, second = distances.topk(2, largest=False).values.unbind(-1)
    return second - first


def decode(request: Request) -> Outcome:
    """Pixels with what is computed on the way; a still is also the first frame of a clip of one step."""
    model, outputs = _model(request.case), request.call.outputs
    (codes,) = request.case.take(request.call)
    if request.match["steps"]:
        codes = codes[:, : int(request.match["steps"])]
    (pixels,) = (name for name in outputs if not name.startswith("dec_"))
    ways = [_decoded(model, codes)]
    if codes.ndim == 3:
        ways.append(_decoded(model, codes[:, None]))
        ways[1]["pixels"] = ways[1]["pixels"][:, 0]
    found = {name: tuple(way[name] for way in ways) for name in ways[0]}
    with _few_frames(model):
        found["pixels"] = (*found["pixels"], model.decode(codes))
    return {name: found["pixels" if name == pixels else name] for name in outputs}


def _decoded(model: Emu3VisionTokenizer, codes: Tensor) -> dict[str, Tensor]:
    decoder = model.decoder
    watched: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
        "dec_post_quant": (model.from_codebook, lambda x: x),
        "dec_conv_in": (decoder.conv_in, lambda x: x[0, :8]),
        "dec_mid_block1": (decoder.middle.block_1, lambda x: x[0, :8]),
        "dec_mid_attn": (decoder.middle.attention, lambda x: x[0, :8]),
        "dec_up_last_level": (decoder.levels[-1].blocks[-1], lambda x: x[0, :8]),
        "dec_norm_out": (decoder.norm_out, lambda x: x[0, :2]),
    }
    if decoder.temporal.convs:
        watched["dec_time_out"] = (decoder.temporal.convs[-1], lambda x: x)
    with _watching(watched) as found:
        pixels = model.decode(codes)
    return {**found, "pixels": pixels}


@contextmanager
def _few_frames(model: Emu3VisionTokenizer) -> Iterator[None]:
    """A few frames at a time for a while."""
    model.frames_at_once = FEW
    try:
        yield
    finally:
        model.frames_at_once = ALL


@contextmanager
def _watching(
    watched: Mapping[str, tuple[nn.Module, Callable[[Tensor], Tensor]]],
) -> Iterator[dict[str, Tensor]]:
    """What some modules give while they run, copied: activations work in place."""
    found: dict[str, Tensor] = {}

    def keep(name: str, pick: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        """A hook that keeps what it sees."""

        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            found[name] = pick(output).detach().clone()

        return hook

    hooks = [module.register_forward_hook(keep(name, pick)) for name, (module, pick) in watched.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
