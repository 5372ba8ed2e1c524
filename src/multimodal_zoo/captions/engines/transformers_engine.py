"""Fusion by a causal language model of transformers, on a CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from multimodal_zoo.captions.engines.local_engine import Decoding, LocalEngine, Ready, device_of, dtype_of
from multimodal_zoo.captions.engines.model_files import ModelFiles, find_model, fingerprint
from multimodal_zoo.captions.engines.stopping import stops_of
from multimodal_zoo.registry import CAPTIONS

logger = logging.getLogger(__name__)


@CAPTIONS.register_module(name="transformers_engine")
def transformers_engine(
    model: str,
    *,
    layout: str = "plain",
    beams: int = 1,
    length_penalty: float = 1.0,
    max_new_tokens: int = 80,
    stop: Sequence[str] = (),
    batch_size: int = 64,
    timeout: float | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> LocalEngine:
    """An engine around a model of transformers: batches by length, what all prompts begin with read once.

    Answers are those that transformers' own `generate` gives to each row alone, up to rounding. Models whose past is no
    plain cache of keys and values (sliding windows, recurrent layers) go through that `generate` in batches.

    Args:
        model: a folder of Hugging Face, a `.gguf` file (LLaMA's and Qwen2's families), `package:NAME` for one inside an
            installed package, or `hf://organisation/repository`.
        layout: `plain`, the answer continues the prompt; or `chat`, the prompt is what a user says.
        beams: 1 for the likeliest token at every step; the published script searches with 3.
        length_penalty: sums of log-probabilities of beams are divided by the length to this power.
        max_new_tokens: most tokens of an answer; published: 80.
        stop: strings that end an answer and are no part of it.
        batch_size: prompts that are answered at once; halved where memory does not suffice.
        timeout: seconds that a batch may take; None for any.
        device: a torch device, or auto: a GPU where there is one.
        dtype: of the weights, or auto: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        FileNotFoundError, ValueError: no such model, or a value that cannot be.
    """
    files, decoding = find_model(model), Decoding(layout, beams, length_penalty, max_new_tokens, stops_of(stop))
    place = device_of(device)
    kind, sums = dtype_of(dtype, place), fingerprint(files.files())
    facts = {"engine": "transformers_engine", "model": model, "fingerprint": sums, "dtype": kind}
    return LocalEngine(lambda: _loaded(files, place, kind, decoding), facts, decoding, batch_size, timeout)


def _loaded(files: ModelFiles, device: str, dtype: str, decoding: Decoding) -> Ready:
    from multimodal_zoo.captions.engines.plain_writing import PlainWriting
    from multimodal_zoo.captions.engines.shared_writing import SharedWriting
    from multimodal_zoo.captions.engines.transformers_decoder import decoder_of, positions_of
    from multimodal_zoo.captions.engines.transformers_models import load_transformers

    model, texts = load_transformers(files, device, dtype)
    decoder = decoder_of(model)
    if isinstance(decoder, str):
        logger.warning("prompts share nothing, and are read by transformers' generate: %s", decoder)
        plain = PlainWriting(model, texts.pad, decoding.beams, decoding.length_penalty)
        return Ready(texts, plain, positions_of(model))
    return Ready(texts, SharedWriting(decoder, decoding.beams, decoding.length_penalty), decoder.max_positions)
