"""JSON to an HTTP server and back, with time limits and bounded retries, and errors that say what to change."""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from multimodal_zoo.packages import needed

logger = logging.getLogger(__name__)

#: Status codes of servers that may answer a moment later.
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
#: Status codes that all requests will get, with what to change.
ADVICE = {
    301: "set fusion_engine.url to the address that the server names",
    302: "set fusion_engine.url to the address that the server names",
    307: "set fusion_engine.url to the address that the server names",
    308: "set fusion_engine.url to the address that the server names",
    401: "put the key into the environment variable that fusion_engine.key_variable names",
    402: "the account behind the key has no credit",
    403: "the key of fusion_engine.key_variable has no right to this model",
    404: "check fusion_engine.url, which mostly ends in /v1, fusion_engine.model and fusion_engine.layout",
    405: "check fusion_engine.url, which mostly ends in /v1, and fusion_engine.layout",
}
CONNECT_SECONDS = 10.0
MOST_WAIT = 60.0
MOST_BYTES = 1 << 24


class RefusedError(ConnectionError):
    """The server refuses all requests of this kind."""


class ServerError(RuntimeError):
    """The server does not answer this request as it should."""


class Poster:
    """Posts JSON to paths below one address; its methods may be called from several threads.

    Args:
        url: what all paths stand behind, without a key in it.
        key: sent as `Authorization: Bearer`, and never shown; None sends none.
        timeout: seconds that one answer may take, from the first byte sent to the last one read.
        tries: how often a request is sent while the server is busy (`BUSY`) or away; between two it waits as long as
            `Retry-After` says, or twice as long each time, a minute at most.

    Raises:
        ModuleNotFoundError: no httpx.
        ValueError: an address that is no HTTP address, or holds a password.
    """

    def __init__(self, url: str, *, key: str | None, timeout: float, tries: int) -> None:
        httpx = needed("httpx", "openai_engine", "captions")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = f"{parts.scheme}://..." if "@" in url else url
            raise ValueError(f"fusion_engine.url is {shown}; expected http://HOST:PORT/v1 or https://HOST/v1")
        if "@" in parts.netloc:
            raise ValueError("fusion_engine.url holds a user or password; use fusion_engine.key_variable")
        self.url, self.timeout, self.tries, self._key = url.rstrip("/"), timeout, tries, key
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        limit = httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS), pool=None)
        self._client = httpx.Client(headers=headers, timeout=limit, limits=httpx.Limits(max_connections=None))
        self._closed = threading.Event()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to a JSON object.

        Args:
            path: behind the address, with a slash in front.
            body: what is sent.

        Raises:
            ConnectionError: no server there, still after `tries`.
            RefusedError: it refuses requests like this one (no key, no such model, no such path).
            ServerError: it refuses this one, is busy still after `tries`, or answers with something else than JSON.
            TimeoutError: it takes longer than `timeout`.
        """
        return self._ask("POST", path, json.dumps(body).encode())

    def get(self, path: str) -> dict[str, Any]:
        """What the server has at a path; raises as `post` does."""
        return self._ask("GET", path, None)

    def close(self) -> None:
        """Give connections back; who waits stops waiting."""
        self._closed.set()
        self._client.close()

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        for attempt in range(1, self.tries + 1):
            last = attempt == self.tries
            try:
                status, headers, content = self._once(method, path, body)
            except ConnectionError as error:
                if last or body is None:
                    raise
                said, after = str(error), None
            else:
                if status == 200:
                    return self._read(path, content)
                if last or status not in BUSY:
                    self._refuse(path, status, content)
                said, after = f"{self.url}{path} answers with status {status}", headers.get("retry-after")
            seconds = wait_seconds(after, attempt)
            logger.info("%s; asking again in %.1f s", said, seconds)
            if self._closed.wait(seconds):
                break
        raise ServerError("the engine is closed")

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, Any, bytes]:
        """Status, headers and content of one exchange."""
        import httpx

        deadline = time.monotonic() + self.timeout
        content = bytearray()
        json_type = {"Content-Type": "application/json"}
        try:
            with self._client.stream(method, self.url + path, content=body, headers=json_type) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("the answer goes on and on")
                    if len(content) > MOST_BYTES:
                        raise ServerError(f"{self.url}{path} answers with more than {MOST_BYTES} bytes")
                return response.status_code, response.headers, bytes(content)
        except httpx.ConnectTimeout as error:
            raise ConnectionError(self._nobody(path, error)) from None
        except httpx.TimeoutException:
            raise TimeoutError(
                f"no answer from {self.url}{path} within {self.timeout:g} s; raise fusion_engine.timeout, or lower "
                "fusion_engine.concurrent"
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ConnectionError(self._nobody(path, error)) from None

    def _nobody(self, path: str, error: Exception) -> str:
        said = self._shown(str(error) or type(error).__name__)
        return f"no connection to {self.url}{path} ({said}); start the server, or set fusion_engine.url"

    def _read(self, path: str, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServerError(f"{self.url}{path} answers with what is no JSON object: {self._start(content)}")
        return found

    def _refuse(self, path: str, status: int, content: bytes) -> NoReturn:
        """Say what the server said."""
        text = f"{self.url}{path} answers with status {status}: {self._said(content)}"
        if status in ADVICE:
            raise RefusedError(f"{text}; {ADVICE[status]}")
        if status in BUSY:
            raise ServerError(f"{text}; asked {self.tries} times (fusion_engine.tries)")
        raise ServerError(text)

    def _said(self, content: bytes) -> str:
        """The message of an error as OpenAI's servers write it, or what else there is."""
        try:
            found = json.loads(content)
            found = found.get("error", found)
            message = found.get("message", found) if isinstance(found, dict) else found
        except (ValueError, AttributeError):
            return self._start(content)
        return self._shown(str(message))

    def _start(self, content: bytes) -> str:
        return repr(self._shown(content.decode("utf-8", "replace")))

    def _shown(self, text: str) -> str:
        """A text of bounded length on one line, in which the key is not."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:200]


def wait_seconds(retry_after: str | None, attempt: int) -> float:
    """Seconds until a busy server is asked again.

    Args:
        retry_after: its header of that name, seconds or a date; None if there is none.
        attempt: how often it was asked.
    """
    seconds = math.nan
    if retry_after is not None:
        try:
            seconds = float(retry_after)
        except ValueError:
            with suppress(ValueError, TypeError, OverflowError):
                seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
    if not math.isnan(seconds):
        return min(max(seconds, 0.0), MOST_WAIT)
    return float(min(0.5 * 2 ** (attempt - 1), MOST_WAIT) * random.uniform(0.75, 1.25))
