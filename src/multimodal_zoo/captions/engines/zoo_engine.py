"""Fusion by a causal decoder of this library: published ones of LLaMA's and Qwen2's families, and trained students."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from multimodal_zoo.captions.engines.local_engine import LocalEngine, Ready
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="zoo_engine")
class ZooEngine(LocalEngine):
    """A decoder of this library: batches by length, what all prompts begin with read once.

    The model is what `zoo.from_pretrained` takes and holds a decoder: a training run, a folder of `save_model`, a
    folder of Hugging Face, a `.gguf` file, `package:NAME`, or `hf://organisation/repository`. Arguments are those of
    `LocalEngine`.
    """

    name = "zoo_engine"

    def _files(self) -> Iterable[Path]:
        from multimodal_zoo.checkpoints.errors import CheckpointError
        from multimodal_zoo.checkpoints.store import recognise

        try:
            return recognise(self.model).files
        except CheckpointError as error:  # it knows the path, not the key that named it
            raise type(error)(f"fusion_engine.model: {error}") from error

    def _loaded(self) -> Ready:
        from multimodal_zoo.captions.engines.shared_writing import SharedWriting
        from multimodal_zoo.captions.engines.texts import ZooTexts
        from multimodal_zoo.nn.low_rank import merge_adapters
        from multimodal_zoo.zoo import from_pretrained

        whole: Any = from_pretrained(self.model, device=self.device, dtype=self.dtype)
        if str(whole.weights).startswith("random"):
            raise ValueError(f"fusion_engine.model: the weights of {self.model} are {whole.weights}; train them first")
        decoder, processor = getattr(whole, "decoder", whole), whole.processor
        tokenizer = getattr(processor, "tokenizer", processor)
        if not (hasattr(decoder, "cache") and hasattr(decoder, "head") and hasattr(tokenizer, "special_ids")):
            raise ValueError(
                f"fusion_engine.model: {self.model} is a {type(whole).__name__} with {type(tokenizer).__name__}; "
                "expected a causal decoder with its tokenizer"
            )
        merge_adapters(whole)
        write = SharedWriting(decoder, self.decoding.beams, self.decoding.length_penalty)
        return Ready(ZooTexts(tokenizer), write, decoder.max_positions)
