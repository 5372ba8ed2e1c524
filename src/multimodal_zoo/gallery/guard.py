"""What reaches the server at all: the routes that the page needs, from the page itself, within bounds.

Gradio checks files and uploads itself; this stands in front of it and does not rely on that.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Gradio's routes that the page uses; all others (its proxy, its API for programs, monitoring, ...) are closed.
PLACES = frozenset(
    ("/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt", "/gradio_api/upload")
)
BELOW = (
    "/assets/", "/static/", "/svelte/", "/gradio_api/queue/", "/gradio_api/upload_progress", "/gradio_api/heartbeat/",
    "/gradio_api/startup-events", "/gradio_api/app_id", "/gradio_api/cancel", "/gradio_api/reset",
    "/gradio_api/theme.css",
)  # fmt: skip
FILE = "/gradio_api/file="
#: A browser fetches nothing from elsewhere, whatever a model writes; the page may not be framed by others.
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; connect-src 'self'; "
        b"worker-src 'self' blob:; frame-ancestors 'none'; object-src 'none'; base-uri 'self'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
#: Bytes beside the file in the body of an upload.
FRAME = 2**16


class Guard:
    """An ASGI middleware.

    Args:
        app: what is guarded.
        scratch: the only folder whose files are served; links that lead out of it are not followed.
        most: bytes of the body of a request.
        hosts: names by which the server may be called, without ports; None for any. A page of another site that makes a
            browser take this machine for its own (DNS rebinding) calls it by another name.
    """

    def __init__(self, app: Any, scratch: Path, most: int, hosts: Sequence[str] | None) -> None:
        self.app, self.scratch, self.most = app, scratch.resolve(), most + FRAME
        self.hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self.refusal(scope["method"], scope["path"], headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        body = await self._body(receive) if scope["method"] == "POST" else b""
        if body is None:
            await _answer(send, 413, f"at most {self.most:,} bytes are taken")
        elif scope["path"].startswith("/gradio_api/queue/") and names_address(body):
            await _answer(send, 403, "files are uploaded; none is fetched from an address")
        else:
            await self.app(scope, _once(body, receive) if scope["method"] == "POST" else receive, _with_headers(send))

    def refusal(self, method: str, path: str, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        """Status and reason why a request is refused; None if it is not.

        Args:
            method: GET, POST, ...
            path: of the address, decoded.
            headers: lower-case names.
        """
        host = headers.get("host", "")
        if self.hosts is not None and (urlsplit(f"//{host}").hostname or "") not in self.hosts:
            return 403, "this page is called by another name"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests of other pages are not answered"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "no such method here"
        if not headers.get("content-length", "0").isdecimal() or int(headers.get("content-length", "0")) > self.most:
            return 413, f"at most {self.most:,} bytes are taken"
        if path.startswith(FILE):
            return None if self.serves(path.removeprefix(FILE)) else (403, "this file is not served")
        if ".." in path.split("/") or (path not in PLACES and not path.startswith(BELOW)):
            return 404, "there is nothing here"
        return None

    def serves(self, name: str) -> bool:
        """Whether a file may be served: a plain one inside the folder of uploads and results, links followed."""
        try:
            place = Path(name)
            return place.is_absolute() and place.resolve(strict=True).is_relative_to(self.scratch) and place.is_file()
        except (OSError, ValueError, RuntimeError):
            return False

    async def _body(self, receive: Receive) -> bytes | None:
        """The body of a request; None where it is too long."""
        parts, length, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return b""
            parts.append(message.get("body", b""))
            length, more = length + len(parts[-1]), message.get("more_body", False)
            if length > self.most:
                return None
        return b"".join(parts)


def names_address(body: bytes) -> bool:
    """Whether a request for work names a file by an address, which the server would fetch.

    Args:
        body: JSON; anything else names none.
    """
    try:
        waiting = [json.loads(body or b"null")]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if any("://" in str(value.get(key) or "")[:16] for key in ("path", "url")) and not _own(value):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _own(value: MutableMapping[str, Any]) -> bool:
    """Whether a file is one of this server's own: its path is none of elsewhere."""
    return "://" not in str(value.get("path") or "") and FILE in str(value.get("url") or "")


def _once(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, once more; then what else comes."""
    given = False

    async def again() -> Message:
        """The body, then what comes."""
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        """Send, with the headers."""
        if message["type"] == "http.response.start":
            own = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in own]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return wrapped


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
