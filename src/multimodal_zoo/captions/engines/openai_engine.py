"""The engine behind an address: llama.cpp's and vLLM's servers, hosted models, all that speak as OpenAI's do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines.http_posting import Poster, RefusedError
from multimodal_zoo.captions.engines.rough_tokens import rough_count, rough_cut
from multimodal_zoo.captions.engines.stopping import (
    RETRY_TEMPERATURE,
    before_stop,
    require_layout,
    stops_of,
)
from multimodal_zoo.registry import CAPTIONS

#: Requests for each connection that are taken at once, so that few connections wait for the last answer of a batch.
WAITING = 8
_PATHS = {"plain": "/completions", "chat": "/chat/completions"}


@CAPTIONS.register_module(name="openai_engine")
class OpenAiEngine:
    """Asks an OpenAI-compatible server, several requests at once.

    The likeliest token is taken at every step; a row that is asked again is drawn, with the number of its attempt as
    the seed. Tokens are estimated (`rough_tokens`), as such servers do not count them.

    Args:
        url: of the server, mostly with `/v1` at its end.
        model: its name there; None takes the only one that the server has.
        layout: `plain`, the answer continues the prompt (`/completions`); or `chat`, the prompt is what a user says
            (`/chat/completions`).
        key_variable: environment variable with the key; None sends no key. The key itself is never shown or written.
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer, and are no part of it, behind its first visible character.
        timeout: seconds that one answer may take.
        concurrent: requests under way at once.
        tries: how often a request is sent while the server is busy (429, 500, 503, ...) or away, with growing pauses.
        body: further fields of each request; one that is null is not sent, as in `{max_tokens: null,
            max_completion_tokens: 80}` for servers with other names.

    Raises:
        ImportError: no httpx.
        ValueError: an address or another value that cannot be, or a key variable that is not set.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        layout: str = "chat",
        key_variable: str | None = None,
        max_new_tokens: int = 80,
        stop: Sequence[str] = (),
        timeout: float = 120.0,
        concurrent: int = 8,
        tries: int = 5,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self.layout, self.stop = require_layout(layout), stops_of(stop)
        require_least("fusion_engine", 1, max_new_tokens=max_new_tokens, concurrent=concurrent, tries=tries)
        require_least("fusion_engine", 0.001, timeout=timeout)
        key = None
        if key_variable is not None:
            key = os.environ.get(key_variable, "").strip()
            if not key:
                raise ValueError(
                    f"fusion_engine.key_variable: the environment variable {key_variable} is not set; export it, or "
                    "set fusion_engine.key_variable=null for a server without keys"
                )
        self.max_new_tokens, self.concurrent, self.body = max_new_tokens, concurrent, dict(body or {})
        self.batch_size = WAITING * concurrent
        self._poster = Poster(url, key=key, timeout=timeout, tries=tries)
        self._model, self._closed = model, False

    def describe(self) -> dict[str, Any]:
        """What decides the answers; a server that is asked for its only model must be there.

        Raises:
            ConnectionError, RuntimeError, ValueError: it is not, or has several models.
        """
        return {
            "engine": "openai_engine",
            "model": _shown(self.model()),
            "layout": self.layout,
            "max_new_tokens": self.max_new_tokens,
            "stop": list(self.stop),
            "body": self.body,
        }

    def count(self, texts: Sequence[str]) -> list[int]:
        """About how many tokens each text has."""
        return [rough_count(text) for text in texts]

    def cut(self, text: str, tokens: int) -> str:
        """The text without its last words."""
        return rough_cut(text, tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request, or what the server said instead.

        Raises:
            ConnectionError: no server there, or one that refuses all requests like these.
            TimeoutError: none of them was answered in time.
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("openai_engine is closed")
        if not requests:
            return []
        self.model()
        refused: list[RefusedError] = []
        with ThreadPoolExecutor(min(self.concurrent, len(requests))) as pool:
            try:
                found = list(pool.map(lambda one: self._outcome(one, refused), requests))
            except BaseException:  # interrupted: nobody waits for the others
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise
        if refused:
            raise refused[0]
        for kind in (ConnectionError, TimeoutError):
            same = [one for one in found if isinstance(one, kind)]
            if len(same) == len(found):
                raise same[0]
        return [one if isinstance(one, Answer) else Answer("", error=str(one)) for one in found]

    def close(self) -> None:
        """Give connections back."""
        self._closed = True
        self._poster.close()

    def model(self) -> str:
        """The model's name at the server.

        Raises:
            ConnectionError, RuntimeError: the server does not tell.
            ValueError: it has none, or several.
        """
        if self._model is None:
            listed = self._poster.get("/models").get("data")
            names = [str(one["id"]) for one in listed or [] if isinstance(one, dict) and "id" in one]
            if len(names) != 1:
                shown = ", ".join(names[:8]) or "none"
                raise ValueError(f"fusion_engine.model is null, and {self._poster.url} has {shown}; name one")
            self._model = names[0]
        return self._model

    def _outcome(self, request: Request, refused: list[RefusedError]) -> Answer | Exception:
        """An answer, or why there is none; once the server has refused one request the others are not sent."""
        if refused:
            return refused[0]
        try:
            return self._answer(request)
        except RefusedError as error:
            refused.append(error)
            return error
        except Exception as error:  # whatever it is, it is this row's
            return error

    def _answer(self, request: Request) -> Answer:
        answer = self._asked(request, self.stop)
        blank = tuple(word for word in self.stop if not word.strip())
        if blank and answer.error is None and answer.ended and not answer.text.strip():
            # a model that begins with a newline would end there: ask without such words, and cut here
            answer = self._asked(request, tuple(word for word in self.stop if word.strip()))
        cut = before_stop(answer.text, self.stop)
        return answer if cut is None else Answer(cut, True, answer.tokens)

    def _asked(self, request: Request, stop: tuple[str, ...]) -> Answer:
        body: dict[str, Any] = {"model": self.model(), "max_tokens": self.max_new_tokens, "temperature": 0.0}
        if request.attempt:
            body |= {"temperature": RETRY_TEMPERATURE, "seed": request.attempt}
        if stop:
            body["stop"] = list(stop)
        body |= self.body
        if self.layout == "chat":
            body["messages"] = [{"role": "user", "content": request.prompt}]
        else:
            body["prompt"] = request.prompt
        sent = {name: value for name, value in body.items() if value is not None}
        return _read(self._poster.post(_PATHS[self.layout], sent), self.layout)


def _shown(name: str) -> str:
    """A model's name; of a path, as llama.cpp's server has them, the file's name."""
    return name.rsplit("/", 1)[-1] if name.startswith("/") else name


def _read(found: dict[str, Any], layout: str) -> Answer:
    """The answer in what a server sent."""
    try:
        choice = found["choices"][0]
        text = choice["message"]["content"] if layout == "chat" else choice["text"]
        finish, usage = choice.get("finish_reason"), found.get("usage") or {}
    except (KeyError, IndexError, TypeError, AttributeError):
        said = found.get("error") if isinstance(found.get("error"), str) else ", ".join(map(str, found))
        return Answer(
            "", error=f"malformed answer: no choices[0] of the layout {layout} in it; it has {str(said)[:200]}"
        )
    if finish == "content_filter":
        return Answer("", error="the server's content filter refused the answer")
    if not isinstance(text, str):
        return Answer("", error=f"malformed answer: its text is {type(text).__name__}")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Answer(text, finish != "length", tokens if isinstance(tokens, int) else rough_count(text))
