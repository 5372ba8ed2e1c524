"""Fusion by a causal decoder of this library: published ones of LLaMA's and Qwen2's families, and trained students."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_zoo.captions.engines.local_engine import Decoding, LocalEngine, Ready, device_of, dtype_of
from multimodal_zoo.captions.engines.model_files import fingerprint
from multimodal_zoo.captions.engines.stopping import stops_of
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="zoo_engine")
def zoo_engine(
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
    """An engine around a decoder of this library: batches by length, what all prompts begin with read once.

    Args:
        model: what `zoo.from_pretrained` takes and holds a decoder: a training run, a folder of `save_model`, a folder
            of Hugging Face, a `.gguf` file, `package:NAME`, or `hf://organisation/repository`.
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
    from multimodal_zoo.checkpoints.errors import CheckpointError
    from multimodal_zoo.checkpoints.store import recognise

    decoding, place = Decoding(layout, beams, length_penalty, max_new_tokens, stops_of(stop)), device_of(device)
    kind = dtype_of(dtype, place)
    try:
        files = recognise(model).files
    except CheckpointError as error:  # it knows the path, not the key that named it
        raise type(error)(f"fusion_engine.model: {error}") from error
    facts = {"engine": "zoo_engine", "model": model, "fingerprint": fingerprint(files), "dtype": kind}
    return LocalEngine(lambda: _loaded(model, place, kind, decoding), facts, decoding, batch_size, timeout)


def _loaded(model: str, device: str, dtype: str, decoding: Decoding) -> Ready:
    from multimodal_zoo.captions.engines.shared_writing import SharedWriting
    from multimodal_zoo.captions.engines.texts import ZooTexts
    from multimodal_zoo.nn.low_rank import merge_adapters
    from multimodal_zoo.zoo import from_pretrained

    whole: Any = from_pretrained(model, device=device, dtype=dtype)
    if str(whole.weights).startswith("random"):
        raise ValueError(f"fusion_engine.model: the weights of {model} are {whole.weights}; train them first")
    decoder, processor = getattr(whole, "decoder", whole), whole.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    if not (hasattr(decoder, "cache") and hasattr(decoder, "head") and hasattr(tokenizer, "special_ids")):
        raise ValueError(
            f"fusion_engine.model: {model} is a {type(whole).__name__} with {type(tokenizer).__name__}; expected a "
            "causal decoder with its tokenizer"
        )
    merge_adapters(whole)
    return Ready(
        ZooTexts(tokenizer), SharedWriting(decoder, decoding.beams, decoding.length_penalty), decoder.max_positions
    )
