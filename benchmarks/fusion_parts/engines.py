"""Engines, prompts and rivals of `fusion_engines.py`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from multimodal_zoo.captions.engine import Engine, Request
from multimodal_zoo.captions.engines.local_engine import LocalEngine, Ready
from multimodal_zoo.captions.engines.texts import prompt_ids
from multimodal_zoo.config import compose
from multimodal_zoo.data.emoji_triples import triples
from multimodal_zoo.registry import build

STOP = "\n"
#: Tokens that end an answer at a newline, for `generate`, which stops at ids.
NEWLINES = ("\n", "\n\n")


def local_engine(kind: str, model: str, limit: int, beams: int) -> LocalEngine:
    """One of our engines that run a model in this process, as its YAML has it."""
    settings = {"model": model, "max_new_tokens": limit, "stop": [STOP], "beams": beams}
    engine: LocalEngine = build({"type": kind, **settings}, path="fusion_engine")
    return engine


def default_engine(model: str, limit: int) -> Engine:
    """The engine that `mmzoo fuse` takes if nothing is said."""
    settings = {"model": model, "max_new_tokens": limit, "stop": [STOP], "device": "cpu"}
    engine: Engine = build({"type": "auto_engine", **settings}, path="fusion_engine")
    return engine


class Prompts:
    """Captions of emoji in a prompt.

    Args:
        name: of the prompt's YAML.
        rows: how many.
        engine: what counts tokens.
    """

    def __init__(self, name: str, rows: int, engine: Engine) -> None:
        from omegaconf import OmegaConf

        node = compose(None, [f"+fusion_prompt={name}"]).fusion_prompt
        prompt: Any = build(OmegaConf.to_container(node, resolve=True), path="fusion_prompt")
        every = triples("train", "twemoji", seed=0)
        chosen = every[:: max(1, len(every) // rows)][:rows]
        filled = [prompt.prepare(one.raw, one.synthetic) for one in chosen]
        self.requests = [Request(one.prompt, one.raw, one.synthetic) for one in filled]
        self.tokens = statistics.fmean(engine.count([one.prompt for one in self.requests]))

    def answers(self, engine: Engine) -> list[str]:
        """What an engine says, in batches that it likes."""
        requests, size = self.requests, engine.batch_size
        batches = [engine.answer(requests[start : start + size]) for start in range(0, len(requests), size)]
        return [answer.text for batch in batches for answer in batch]


class Peer:
    """The same model by transformers' own `generate`.

    Args:
        ready: the engine's model and tokenizer, so that weights are held once.
        limit: most new tokens.
    """

    def __init__(self, ready: Ready, limit: int) -> None:
        write: Any = ready.write
        self.model, self.texts, self.limit = write.decoder.model, ready.texts, limit
        self.ends = [*ready.texts.ends, *(one for text in NEWLINES for one in ready.texts.ids(text, special=False))]

    @torch.no_grad()
    def _generate(self, rows: Sequence[list[int]], tokens: int, beams: int) -> list[str]:
        from transformers import GenerationConfig

        pad = self.texts.pad
        ids = torch.tensor([[pad] * (tokens - len(row)) + row for row in rows])
        real = torch.tensor([[0] * (tokens - len(row)) + [1] * len(row) for row in rows])
        settings = GenerationConfig(
            max_new_tokens=self.limit, num_beams=beams, do_sample=False, eos_token_id=self.ends, pad_token_id=pad
        )
        written = self.model.generate(input_ids=ids, attention_mask=real, generation_config=settings)
        return [self._text(row[tokens:].tolist()) for row in written]

    def _text(self, ids: list[int]) -> str:
        end = next((place for place, number in enumerate(ids) if number in self.ends), len(ids))
        return self.texts.text(ids[:end])

    def _ids(self, request: Request) -> list[int]:
        return prompt_ids(self.texts, request, chat=False)

    def row_by_row(self, requests: Sequence[Request]) -> list[str]:
        """Greedy, nothing padded or shared."""
        rows = [self._ids(one) for one in requests]
        return [self._generate([row], len(row), 1)[0] for row in rows]

    def reference(self, requests: Sequence[Request], batch: int, tokens: int) -> list[str]:
        """As the published script: small batches padded on the left to a fixed length, three beams."""
        rows = [self._ids(one)[:tokens] for one in requests]
        found = [self._generate(rows[start : start + batch], tokens, 3) for start in range(0, len(rows), batch)]
        return [text for texts in found for text in texts]
