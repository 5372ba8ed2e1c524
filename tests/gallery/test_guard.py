"""What stands in front of the server: routes, callers, files, bodies and addresses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.gallery.guard import FILE, Guard, names_address
from multimodal_zoo.gallery.server import LOOPBACK, is_loopback

HOST = "127.0.0.1:7860"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body."""
    message = await receive() if scope["method"] == "POST" else {"body": b"page"}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-content-type-options", b"none")]})
    await send({"type": "http.response.body", "body": message["body"]})


def asked(
    guard: Guard, path: str, body: bytes | None = None, parts: int = 1, **headers: str
) -> tuple[int, bytes, dict[bytes, bytes]]:
    """Status, body and headers of the answer to a request."""
    sent: list[dict[str, Any]] = []
    size = -(-len(body or b"") // parts)
    pieces = [(body or b"")[start : start + size] for start in range(0, max(1, len(body or b"")), size or 1)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": HOST, **headers}
    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in given.items()],
    }
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    """In front of an echo."""
    return Guard(echo, tmp_path / "own", most=100, hosts=LOOPBACK)


def test_the_page_comes_with_rules_for_the_browser(guard) -> None:
    status, body, headers = asked(guard, "/")
    assert (status, body) == (200, b"page")
    assert b"connect-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://127.0.0.1/x", "/monitoring", "/docs", "/gradio_api/info", "/gradio_api/run/predict",
        "/gradio_api/call/x",
        "/gradio_api/component_server", "/gradio_api/stream/a/b/c", "/dev/reload", "/gradio_api/vibe-edit/",
        "/custom_component/1/a/b/c", "/gradio_api/deep_link", "/file/etc/passwd", "/file=/etc/passwd", "//etc/passwd",
        "/static/../../../etc/passwd", "/assets/..",
    ],
)  # fmt: skip
def test_routes_that_the_page_does_not_need_are_closed(guard, path) -> None:
    assert asked(guard, path)[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"origin": f"http://{HOST}"}, 200),
        ({"host": "evil.example"}, 403),  # another site's name that leads here
        ({"host": "127.0.0.1.evil.example:7860"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content_length": "99999999"}, 413),
        ({"content_length": "-1"}, 413),
    ],
)
def test_who_may_call(guard, headers, status) -> None:
    assert asked(guard, "/", **headers)[0] == status


def test_files_come_from_one_folder_alone(guard, tmp_path) -> None:
    own, other = tmp_path / "own", tmp_path / "other.txt"
    (own / "inner").mkdir(parents=True)
    (own / "inner" / "a.png").write_bytes(b"a")
    other.write_text("secret")
    (own / "link.txt").symlink_to(other)
    (own / "folder").symlink_to(tmp_path)
    assert asked(guard, f"{FILE}{own}/inner/a.png")[0] == 200
    assert asked(guard, f"{FILE}{own}/inner/../inner/a.png")[0] == 200
    refused = [other, "/etc/passwd", f"{own}/../other.txt", f"{own}/link.txt", f"{own}/folder/other.txt", own]
    refused += ["inner/a.png", f"{own}/none.png", f"{own}/a\0b", "http://127.0.0.1/a.png", "", "~/a"]
    for path in refused:
        assert asked(guard, f"{FILE}{path}") == (403, b"this file is not served", asked(guard, f"{FILE}x")[2]), path


def test_bodies_are_bounded_however_they_come(guard) -> None:
    assert asked(guard, "/gradio_api/upload", b"x" * 90)[:2] == (200, b"x" * 90)
    assert asked(guard, "/gradio_api/upload", b"x" * (2**16 + 101), parts=9)[0] == 413
    assert (
        asked(guard, "/gradio_api/queue/join", b'{"data": [1, "http://x"]}', parts=4)[1] == b'{"data": [1, "http://x"]}'
    )


def test_no_file_is_fetched_from_an_address(guard) -> None:
    body = json.dumps({"data": [[{"path": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}}]]}).encode()
    assert asked(guard, "/gradio_api/queue/join", body)[0] == 403
    assert names_address(b'{"path": "/own/a.png", "url": "http://evil.example/x"}')
    assert names_address(b'[{"x": {"path": null, "url": "https://evil.example/x"}}]')
    own = {"path": "/own/a.png", "url": f"http://{HOST}{FILE}/own/a.png"}
    assert not names_address(json.dumps({"data": [own, "http://a"]}).encode())
    assert not names_address(b"no JSON")
    assert not names_address(b"[" * 10_000)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a.example", False),
    ],
)
def test_which_addresses_are_this_machine_alone(host, own) -> None:
    assert is_loopback(host) is own
