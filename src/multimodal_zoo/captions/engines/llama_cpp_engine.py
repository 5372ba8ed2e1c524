"""The engine for CPUs: llama.cpp on a GGUF file, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.llama_cpp_server import XLLAMACPP, LlamaCppServer
from multimodal_zoo.captions.engines.model_files import fingerprint, gguf_path
from multimodal_zoo.captions.engines.q8_weights import has_q4_1, with_q8_weights
from multimodal_zoo.captions.engines.stopping import (
    RETRY_TEMPERATURE,
    before_stop,
    require_layout,
    stops_of,
)
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import CAPTIONS

#: Requests for each slot that are taken at once: all slots stay busy but for the last answers of a batch.
WAITING = 16
#: Bytes of a file up to which `weights=auto` rewrites it: larger models wait for memory, and would wait longer.
SMALL = 1 << 30
#: Captions without any of these characters hold no string of a special token.
_SIGNS = "<[|"


@CAPTIONS.register_module(name="llama_cpp_engine")
class LlamaCppEngine:
    """The likeliest continuation of each prompt, by llama.cpp (package xllamacpp), with quantised weights.

    What prompts have in common at their beginning is read once. A row that is asked again is drawn, at
    `RETRY_TEMPERATURE`, with the number of its attempt as the seed. Strings of special tokens in captions are ordinary
    text. The model is read when the first text is counted or answered.

    Args:
        model: a `.gguf` file, a folder with one, `package:NAME`, or `hf://organisation/repository/file`.
        layout: `plain`, the answer continues the prompt; or `chat`, the prompt is what a user says.
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer, and are no part of it, behind its first visible character.
        timeout: seconds that one answer may be written; None for any. It is then an error.
        threads: that compute. One gives most captions per CPU-second, and does not suffer from other processes; more
            processes (runner.processes) use more cores.
        slots: answers that are written at once: 1 on a CPU, more on an accelerator.
        context: most tokens of a prompt and its answer.
        gpu_layers: layers of the model on an accelerator, if xllamacpp was built for one.
        weights: `stored`, as the file has them; or `auto`: on a CPU, Q4_1 weights of files up to `SMALL` bytes are
            rewritten as Q8_0 once (`q8_weights`), with which answers cost about a quarter less.

    Raises:
        ModuleNotFoundError: no xllamacpp.
        FileNotFoundError, ValueError: no such model, or a value that cannot be.
    """

    def __init__(
        self,
        model: str,
        *,
        layout: str = "plain",
        max_new_tokens: int = 80,
        stop: Sequence[str] = (),
        timeout: float | None = None,
        threads: int = 1,
        slots: int = 1,
        context: int = 2048,
        gpu_layers: int = 0,
        weights: str = "auto",
    ) -> None:
        needed(*XLLAMACPP)
        self.layout, self.stop = require_layout(layout), stops_of(stop)
        require_least("fusion_engine", 1, max_new_tokens=max_new_tokens, threads=threads, slots=slots)
        require_least("fusion_engine", 0, timeout=timeout, gpu_layers=gpu_layers)
        require_least("fusion_engine", max_new_tokens + 1, context=context)
        if weights not in ("auto", "stored"):
            raise ValueError(f"fusion_engine.weights is {weights!r}; expected auto or stored")
        self.path, self.max_new_tokens, self.timeout = gguf_path(model), max_new_tokens, timeout
        self.threads, self.slots, self.context, self.gpu_layers = threads, slots, context, gpu_layers
        small = weights == "auto" and not gpu_layers and self.path.stat().st_size <= SMALL
        self.rewrites, self.batch_size = small and has_q4_1(self.path), WAITING * slots
        self._closed = False
        self._server: LlamaCppServer | None = None

    def describe(self) -> dict[str, Any]:
        """What decides the answers; the model is not read for it."""
        return {
            "engine": "llama_cpp_engine",
            "model": self.path.name,
            "fingerprint": fingerprint([self.path]),
            "layout": self.layout,
            "max_new_tokens": self.max_new_tokens,
            "stop": list(self.stop),
            "weights": "Q4_1 as Q8_0" if self.rewrites else "stored",
        }

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; strings of special tokens count as ordinary text."""
        server = self.server()
        return [len(server.tokens(text)) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last tokens."""
        server = self.server()
        return server.text(server.tokens(text)[:-tokens]) if tokens > 0 else text

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request; one that is too long or takes too long has an error.

        Raises:
            RuntimeError: the engine is closed.
            ConnectionError: llama.cpp has gone.
        """
        server = self.server()
        if self.slots == 1:
            return [self._answer(server, one) for one in requests]
        with ThreadPoolExecutor(self.slots) as pool:
            return list(pool.map(lambda one: self._answer(server, one), requests))

    def close(self) -> None:
        """Give the model's memory back."""
        if self._server is not None:
            self._server.close()
        self._server, self._closed = None, True

    def server(self) -> LlamaCppServer:
        """The model, read when it is needed first.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("llama_cpp_engine is closed")
        if self._server is None:
            self._server = LlamaCppServer(
                with_q8_weights(self.path) if self.rewrites else self.path,
                threads=self.threads,
                slots=self.slots,
                context=self.context,
                gpu_layers=self.gpu_layers,
            )
        return self._server

    def _answer(self, server: LlamaCppServer, request: Request) -> Answer:
        started, stopped = time.monotonic(), ""

        def goes_on(text: str) -> bool:
            """Whether the answer is neither too late nor over."""
            nonlocal stopped
            if self.timeout is not None and time.monotonic() - started > self.timeout:
                stopped = "time"
            elif before_stop(text, self.stop) is not None:
                stopped = "word"
            return not stopped

        temperature = RETRY_TEMPERATURE if request.attempt else 0.0
        prompt = _prompt(server, request, self.layout == "chat")
        written = server.write(prompt, self.max_new_tokens, temperature, request.attempt, goes_on)
        if written.error is not None:
            return Answer("", error=f"llama.cpp: {written.error}")
        if stopped == "time":
            return Answer("", error=f"no whole answer within fusion_engine.timeout={self.timeout} seconds")
        if not stopped and written.finish is None:
            return Answer("", error="llama.cpp broke off")
        cut = before_stop(written.text, self.stop)
        ended = cut is not None or written.finish == "stop"
        return Answer(written.text if cut is None else cut, ended, written.tokens)


def _prompt(server: LlamaCppServer, request: Request, chat: bool) -> str | list[int]:
    """What llama.cpp reads: a text; or ids where a caption holds strings of special tokens, which must stay text."""
    prompt = server.chat(request.prompt) if chat else request.prompt
    suspects = [one for one in (request.raw, *request.synthetic) if any(sign in one for sign in _SIGNS)]
    foreign = {one for one in suspects if server.tokens(one) != server.tokens(one, special=True)}
    if not foreign:
        return prompt
    pieces = [(prompt, True)]
    for caption in sorted(foreign, key=len, reverse=True):
        pieces = [part for piece in pieces for part in _split(*piece, caption)]
    return [
        token
        for number, (piece, ours) in enumerate(pieces)
        for token in server.tokens(piece, special=ours, begin=number == 0)
    ]


def _split(piece: str, ours: bool, caption: str) -> list[tuple[str, bool]]:
    """A piece of a prompt cut at a caption; what is a caption already stays whole."""
    if not ours:
        return [(piece, ours)]
    between = piece.split(caption)
    parts = [(between[0], True)]
    for rest in between[1:]:
        parts += [(caption, False), (rest, True)]
    return [part for part in parts if part[0]]
