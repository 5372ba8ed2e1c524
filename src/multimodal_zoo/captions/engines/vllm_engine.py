"""The engine for GPUs by the hundred thousand rows: vLLM, in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.model_files import find_model, fingerprint
from multimodal_zoo.captions.engines.stopping import (
    RETRY_TEMPERATURE,
    before_stop,
    require_layout,
    stops_of,
)
from multimodal_zoo.captions.engines.texts import Texts, TransformersTexts, prompt_ids, without_last
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="vllm_engine")
class VllmEngine:
    """The likeliest continuation of each prompt, by vLLM, which batches by itself and reads common beginnings once.

    Written after vLLM's documentation of `LLM`, `SamplingParams` and prompts of ids, and tested against a stand-in with
    these signatures: it was not run on a GPU. vLLM starts processes of its own, so that a script that makes this engine
    needs `if __name__ == "__main__":`. The model is read when the first text is counted or answered.

    A row that is asked again is drawn, at `RETRY_TEMPERATURE`, with the number of its attempt as the seed. Strings of
    special tokens in captions are ordinary text.

    Args:
        model: a folder of Hugging Face, or `hf://organisation/repository`.
        layout: `plain`, the answer continues the prompt; or `chat`, the prompt is what a user says.
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer, and are no part of it, behind its first visible character.
        dtype: of the weights: auto, bfloat16, float16 or float32.
        context: most tokens of a prompt and its answer.
        devices: GPUs that share the model's weights.
        memory: share of each GPU's memory that vLLM takes.
        batch_size: requests that it gets at once; more of them leave fewer pauses.

    Raises:
        ImportError: no vllm.
        FileNotFoundError, ValueError: no such model, or a value that cannot be.
    """

    def __init__(
        self,
        model: str,
        *,
        layout: str = "plain",
        max_new_tokens: int = 80,
        stop: Sequence[str] = (),
        dtype: str = "auto",
        context: int = 2048,
        devices: int = 1,
        memory: float = 0.9,
        batch_size: int = 2048,
    ) -> None:
        if find_spec("vllm") is None:
            raise ImportError("vllm_engine needs the package vllm: pip install 'multimodal_zoo[vllm]'")
        self.layout, self.stop = require_layout(layout), stops_of(stop)
        require_least("fusion_engine", 1, max_new_tokens=max_new_tokens, devices=devices, batch_size=batch_size)
        require_least("fusion_engine", max_new_tokens + 1, context=context)
        if not 0 < memory <= 1:
            raise ValueError(f"fusion_engine.memory is {memory}; expected a share above 0, 1 at most")
        self.files = find_model(model)
        if self.files.is_gguf:
            raise ValueError(f"fusion_engine.model: {model} is a GGUF file; fusion_engine=llama_cpp reads it")
        self.max_new_tokens, self.dtype, self.context = max_new_tokens, dtype, context
        self.devices, self.memory, self.batch_size = devices, memory, batch_size
        self._ready: tuple[Any, Texts] | None = None
        self._closed = False

    def describe(self) -> dict[str, Any]:
        """What decides the answers; the model is not read for it."""
        names = ("layout", "max_new_tokens", "dtype")
        return {
            "engine": "vllm_engine",
            "model": self.files.place,
            "fingerprint": fingerprint(self.files.files()),
            **{name: getattr(self, name) for name in names},
            "stop": list(self.stop),
        }

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; strings of special tokens count as ordinary text."""
        _, known = self.ready()
        return [len(known.ids(text, special=False)) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last tokens."""
        return without_last(self.ready()[1], text, tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request; one that is too long has an error.

        Raises:
            RuntimeError: the engine is closed, or vLLM fails.
        """
        _, texts = self.ready()
        rows = [prompt_ids(texts, one, self.layout == "chat") for one in requests]
        most, answers = self.context - self.max_new_tokens, [Answer("")] * len(requests)
        whole = [number for number, row in enumerate(rows) if 0 < len(row) <= most]
        for number in set(range(len(rows))).difference(whole):
            answers[number] = Answer("", error=f"a prompt of {len(rows[number])} tokens; expected 1 to {most}")
        self._fill(answers, whole, requests, rows, self.stop)
        # a model that begins with a newline would end there: ask without such words, and cut here
        lasting = tuple(word for word in self.stop if word.strip())
        if lasting != self.stop:
            blank = [number for number in whole if answers[number].ended and not answers[number].text.strip()]
            self._fill(answers, blank, requests, rows, lasting)
        return answers

    def close(self) -> None:
        """Stop vLLM's processes and give the GPU's memory back."""
        if self._ready is not None:
            engine: Any = getattr(self._ready[0], "llm_engine", None)
            shutdown = getattr(getattr(engine, "engine_core", None), "shutdown", None)
            if shutdown is not None:
                shutdown()
        self._ready, self._closed = None, True

    def ready(self) -> tuple[Any, Texts]:
        """The model and its tokenizer, read when they are needed first.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("vllm_engine is closed")
        if self._ready is None:
            os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM reports its use otherwise
            from vllm import LLM

            llm = LLM(
                model=str(self.files.path),
                dtype=self.dtype,
                tensor_parallel_size=self.devices,
                gpu_memory_utilization=self.memory,
                max_model_len=self.context,
                enable_prefix_caching=True,
                seed=0,
            )
            self._ready = llm, TransformersTexts(llm.get_tokenizer())
        return self._ready

    def _fill(
        self,
        answers: list[Answer],
        numbers: Sequence[int],
        requests: Sequence[Request],
        rows: Sequence[list[int]],
        stop: tuple[str, ...],
    ) -> None:
        """Have some rows answered."""
        if not numbers:
            return
        llm, _ = self.ready()
        prompts = [{"prompt_token_ids": rows[number]} for number in numbers]
        drawing = [self._drawing(requests[number].attempt, stop) for number in numbers]
        try:
            outputs = llm.generate(prompts, drawing, use_tqdm=False)
        except Exception as error:
            raise RuntimeError(f"vLLM: {type(error).__name__}: {error}") from error
        if len(outputs) != len(numbers):
            raise RuntimeError(f"vLLM: {len(outputs)} answers to {len(numbers)} prompts")
        for number, output in zip(numbers, outputs, strict=True):
            answers[number] = self._read(output)

    def _drawing(self, attempt: int, stop: tuple[str, ...]) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=RETRY_TEMPERATURE if attempt else 0.0,
            seed=attempt if attempt else None,
            max_tokens=self.max_new_tokens,
            stop=list(stop) or None,
        )

    def _read(self, output: Any) -> Answer:
        if not output.outputs:
            return Answer("", error="vLLM gave no answer")
        best = output.outputs[0]
        cut = before_stop(best.text, self.stop)
        ended = cut is not None or best.finish_reason == "stop"
        return Answer(best.text if cut is None else cut, ended, len(best.token_ids))
