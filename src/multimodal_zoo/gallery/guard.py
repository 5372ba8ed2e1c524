"""What reaches the server at all: the routes that the page needs, from the page itself, within bounds.

Gradio checks files and uploads itself; this stands in front of it and does not rely on that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from multimodal_zoo.files import parsed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Status and reason of a refusal.
Refusal = tuple[int, str]

FILE, UPLOAD, QUEUE = "/gradio_api/file=", "/gradio_api/upload", "/gradio_api/queue/"
#: Gradio's routes that the page uses; all others (its proxy, its API for programs, monitoring, ...) are closed.
PLACES = frozenset(("/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt", UPLOAD))
BELOW = (
    "/assets/", "/static/", "/svelte/", QUEUE, "/gradio_api/upload_progress", "/gradio_api/heartbeat/",
    "/gradio_api/startup-events", "/gradio_api/app_id", "/gradio_api/cancel", "/gradio_api/reset",
    "/gradio_api/theme.css",
)  # fmt: skip
#: A browser fetches nothing from elsewhere, whatever a model writes; the page may not be framed by others.
PAGE_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; connect-src 'self'; "
    b"worker-src 'self' blob:; frame-ancestors 'none'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
#: An uploaded file that is opened by itself runs no script and loads nothing.
FILE_POLICY = b"default-src 'none'; sandbox; frame-ancestors 'none'"
#: Bytes beside the files in the body of an upload, and of the body of any other request.
FRAME, WORDS = 2**16, 2**20


class Guard:
    """An ASGI middleware.

    Args:
        app: what is guarded.
        scratch: the only folder whose files are served; links that lead out of it are not followed.
        upload: bytes of files that are uploaded together.
        hosts: names by which the server may be called, without ports; None for any. A page of another site that makes a
            browser take this machine for its own (DNS rebinding) calls it by another name.
    """

    def __init__(self, app: Any, scratch: Path, upload: int, hosts: Sequence[str] | None) -> None:
        self.app, self.scratch, self.upload = app, scratch.resolve(), upload
        self.hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = scope["path"]
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self.refusal(scope["method"], path, headers)
        if refused is None and path.startswith(QUEUE) and scope["method"] == "POST":
            body = await _whole(receive)
            refused, receive = self.refused_work(body, headers.get("host", "")), _once(body, receive)
        if refused is not None:
            await _answer(send, *refused)
        else:
            await self.app(scope, receive, _with_headers(send, FILE_POLICY if path.startswith(FILE) else PAGE_POLICY))

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Status and reason why a request is refused; None if it is not.

        Args:
            method: GET, POST, ...
            path: of the address, decoded.
            headers: lower-case names.
        """
        host = headers.get("host", "")
        if self.hosts is not None and _hostname(host) not in self.hosts:
            return 403, "this page is called by another name"
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return 403, "requests of other pages are not answered"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "no such method here"
        if path.startswith(FILE):
            name = path.removeprefix(FILE)
            return None if self.inside(name) and Path(name).is_file() else (403, "this file is not served")
        if ".." in path.split("/") or (path not in PLACES and not path.startswith(BELOW)):
            return 404, "there is nothing here"
        return self._too_long(path, headers) if method == "POST" else None

    def _too_long(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """A body must say how long it is: the server reads no more than that, and nothing of one that is too long."""
        most = self.upload + FRAME if path == UPLOAD else WORDS
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
            return 411, "the length of a request must be stated"
        if len(length) > len(str(most)) or int(length) > most:
            return 413, f"at most {most:,} bytes are taken"
        return None

    def inside(self, name: str) -> bool:
        """Whether a path lies in the folder of uploads and results, links followed."""
        try:
            place = Path(name)
            return place.is_absolute() and place.resolve().is_relative_to(self.scratch)
        except (OSError, ValueError, RuntimeError):
            return False

    def refused_work(self, body: bytes, host: str) -> Refusal | None:
        """Status and reason why a request for work is refused: all files that it names must be uploaded ones.

        Args:
            body: JSON.
            host: by which the server was called.
        """
        try:
            content = parsed(body or b"null")
        except ValueError:
            return 400, "expected JSON"
        for value in _objects(content):
            path, url = value.get("path"), value.get("url")
            if path is not None and not (isinstance(path, str) and self.inside(path)):
                return 403, "files are uploaded; none is read from elsewhere"
            if url and not (isinstance(url, str) and _netloc(url) in ("", host) and FILE in url):
                return 403, "files are uploaded; none is fetched from an address"
        return None


def _objects(content: Any) -> Iterator[Mapping[str, Any]]:
    """All objects of a JSON value, however deep."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _netloc(address: str) -> str:
    """Host and port of an address; a word that no host has where it is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return "?"


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


async def _whole(receive: Receive) -> bytes:
    """The body of a request, whose length is bounded; empty where the visitor left."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


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


def _rules(policy: bytes) -> list[tuple[bytes, bytes]]:
    """What a browser is told beside an answer."""
    return [
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]


def _with_headers(send: Send, policy: bytes) -> Send:
    rules = _rules(policy)

    async def wrapped(message: Message) -> None:
        """Send, with the headers."""
        if message["type"] == "http.response.start":
            own = {name for name, _ in rules}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in own]
            message = {**message, "headers": [*kept, *rules]}
        await send(message)

    return wrapped


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_rules(FILE_POLICY)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
