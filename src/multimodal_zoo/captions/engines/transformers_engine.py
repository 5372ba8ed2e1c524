"""Fusion by a causal language model of transformers, on a CPU or a GPU."""

from __future__ import annotations

import logging
from pathlib import Path

from multimodal_zoo.captions.engines.local_engine import LocalEngine, Ready
from multimodal_zoo.captions.engines.model_files import find_model
from multimodal_zoo.registry import CAPTIONS

logger = logging.getLogger(__name__)


@CAPTIONS.register_module(name="transformers_engine")
class TransformersEngine(LocalEngine):
    """A model of transformers: batches by length, what all prompts begin with read once.

    Answers are those that transformers' own `generate` gives to each row alone, up to rounding. Models whose past is no
    plain cache of keys and values (sliding windows, recurrent layers) go through that `generate` in batches.

    The model is a folder of Hugging Face, a `.gguf` file (LLaMA's and Qwen2's families), `package:NAME` for one inside
    an installed package, or `hf://organisation/repository`. Arguments are those of `LocalEngine`.
    """

    name = "transformers_engine"

    def _files(self) -> list[Path]:
        return find_model(self.model).files()

    def _loaded(self) -> Ready:
        from multimodal_zoo.captions.engines.plain_writing import PlainWriting
        from multimodal_zoo.captions.engines.shared_writing import SharedWriting
        from multimodal_zoo.captions.engines.transformers_decoder import decoder_of, positions_of
        from multimodal_zoo.captions.engines.transformers_models import load_transformers

        model, texts = load_transformers(find_model(self.model), self.device, self.dtype)
        decoder, rules = decoder_of(model), (self.decoding.beams, self.decoding.length_penalty)
        if isinstance(decoder, str):
            logger.warning("prompts share nothing, and are read by transformers' generate: %s", decoder)
            return Ready(texts, PlainWriting(model, texts.pad, *rules), positions_of(model))
        return Ready(texts, SharedWriting(decoder, *rules), decoder.max_positions)
