"""llama.cpp in this process, by the package xllamacpp: texts to tokens and back, and answers as they are written."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from multimodal_zoo.packages import needed

#: The package, what needs it, and what it is installed with.
XLLAMACPP = ("xllamacpp", "llama_cpp_engine", "llama_cpp")
#: Stands for what a user says, to find its place in a model's layout of conversations.
_PLACE = "PLACE-OF-THE-PROMPT"
_SECONDS = 60.0


@dataclass(frozen=True)
class Written:
    """What llama.cpp wrote behind a prompt.

    Attributes:
        text: without special tokens.
        finish: `stop` where the model ended, `length` at the limit, None where `goes_on` ended it.
        tokens: new ones.
        cached: tokens of the prompt that were known from the one before.
        error: what llama.cpp refused, or None.
    """

    text: str
    finish: str | None = None
    tokens: int = 0
    cached: int = 0
    error: str | None = None


class LlamaCppServer:
    """One model in memory with `slots` places for answers under way.

    What prompts begin with stays in a slot from one to the next. Tokens are asked for over the server's own port on
    this machine, which wants a key that nobody else knows.

    Args:
        path: a GGUF file; its weights are mapped, so that processes share them.
        threads: that compute.
        slots: answers that are written at once.
        context: most tokens of a prompt and its answer.
        gpu_layers: layers on an accelerator, if xllamacpp was built for one.

    Raises:
        ModuleNotFoundError: no xllamacpp.
        ValueError: llama.cpp cannot read the file.
    """

    def __init__(self, path: Path, *, threads: int, slots: int, context: int, gpu_layers: int) -> None:
        xllamacpp = needed(*XLLAMACPP)
        self._key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx, params.n_gpu_layers = slots, context * slots, gpu_layers
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads, cpu.poll = threads, 0  # threads that wait do not spin
        if gpu_layers == 0:
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # a little faster
        params.warmup, params.ui, params.verbosity, params.api_keys = False, False, 0, [self._key]
        params.cache_ram_mib, params.cache_idle_slots = 0, False  # no copies of prompts: their beginning is enough
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ValueError(f"fusion_engine.model: llama.cpp cannot read {path}: {error}") from error
        self._address = str(self._server.listening_address).removeprefix("http://")
        self._layout: tuple[str, str] | None = None

    def tokens(self, text: str, *, special: bool = False, begin: bool = False) -> list[int]:
        """Ids of a text.

        Args:
            text: any.
            special: whether strings of special tokens become these.
            begin: whether the model's begin token, if it has one, stands in front.

        Raises:
            ConnectionError: the server does not answer.
        """
        body = {"content": text, "parse_special": special, "add_special": begin}
        found: list[int] = self._post("/tokenize", body)["tokens"]
        return found

    def text(self, ids: list[int]) -> str:
        """The text of ids."""
        return str(self._post("/detokenize", {"tokens": ids})["content"])

    def chat(self, prompt: str) -> str:
        """A prompt as what a user says, in the model's own layout, up to where the answer begins.

        Raises:
            ValueError: the model's file has no layout.
        """
        if self._layout is None:
            messages = [{"role": "user", "content": _PLACE}]
            laid = str(self._post("/apply-template", {"messages": messages}).get("prompt", ""))
            before, place, after = laid.partition(_PLACE)
            if not place:
                raise ValueError("fusion_engine.layout is chat; the model's file knows no layout of conversations")
            self._layout = before, after
        return prompt.join(self._layout)

    def write(
        self,
        prompt: str | list[int],
        most: int,
        temperature: float,
        seed: int,
        goes_on: Callable[[str], bool],
    ) -> Written:
        """What follows a prompt.

        Args:
            prompt: a text, in which strings of special tokens are these, or ids.
            most: new tokens.
            temperature: 0 takes the likeliest token at every step.
            seed: of draws.
            goes_on: asked with all that is written so far; False ends it.
        """
        pieces: list[str] = []
        last: dict[str, Any] = {}

        def take(chunk: dict[str, Any]) -> bool:
            """Note a piece of the answer; whether that was enough."""
            last.update(chunk)
            choice = chunk["choices"][0] if chunk.get("choices") else {}
            pieces.append(choice.get("text") or "")
            last["finish"] = choice.get("finish_reason")
            return "error" in chunk or not goes_on("".join(pieces))

        drawing = {"temperature": temperature, "seed": seed} if temperature > 0 else {"temperature": 0.0}
        body = {"prompt": prompt, "max_tokens": most, "cache_prompt": True, "stream": True, **drawing}
        self._server.handle_completions(body, take)
        if "error" in last:
            return Written("", error=str(last["error"].get("message", last["error"])))
        used, timings = last.get("usage", {}), last.get("timings", {})
        tokens = int(used.get("completion_tokens", len(pieces)))
        return Written("".join(pieces), last.get("finish"), tokens, int(timings.get("cache_n", 0)))

    def close(self) -> None:
        """Stop the server and give its memory back."""
        self._server = None

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the server over its own port.

        Raises:
            ConnectionError: it does not answer.
            RuntimeError: it refuses.
        """
        connection = HTTPConnection(self._address, timeout=_SECONDS)
        try:
            sent = json.dumps(body).encode()
            connection.request(
                "POST", path, sent, {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            )
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            raise ConnectionError(f"llama.cpp does not answer {path}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"llama.cpp answers {path} with status {answer.status}: {content[:200]!r}")
        found: dict[str, Any] = json.loads(content)
        return found
