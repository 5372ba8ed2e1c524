"""What stands in front of the server: routes, callers, files, bodies and addresses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.gallery.guard import FILE, FRAME, WORDS, Guard
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

    length = {} if body is None else {"content_length": str(len(body))}
    given = {"host": HOST, **length, **headers}
    scope = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in given.items() if value != "no"],
    }
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    """In front of an echo."""
    return Guard(echo, tmp_path / "own", upload=100, hosts=LOOPBACK)


def test_the_page_comes_with_rules_for_the_browser(guard) -> None:
    status, body, headers = asked(guard, "/")
    assert (status, body) == (200, b"page")
    assert b"connect-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"sandbox" not in headers[b"content-security-policy"]


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
        ({"host": "["}, 403),  # none at all
        ({"origin": "http://["}, 403),
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
    status, _, headers = asked(guard, f"{FILE}{own}/inner/a.png")
    assert (status, headers[b"content-security-policy"][:27]) == (200, b"default-src 'none'; sandbox")
    assert asked(guard, f"{FILE}{own}/inner/../inner/a.png")[0] == 200
    refused = [other, "/etc/passwd", f"{own}/../other.txt", f"{own}/link.txt", f"{own}/folder/other.txt", own]
    refused += ["inner/a.png", f"{own}/none.png", f"{own}/a\0b", "http://127.0.0.1/a.png", "", "~/a"]
    for path in refused:
        assert asked(guard, f"{FILE}{path}")[:2] == (403, b"this file is not served"), path


@pytest.mark.parametrize(
    ("path", "size", "headers", "status"),
    [
        ("/gradio_api/upload", 90, {}, 200),
        ("/gradio_api/upload", FRAME + 101, {}, 413),
        ("/gradio_api/upload", 9, {"content_length": "no"}, 411),  # the server would read on and on
        ("/gradio_api/upload", 9, {"transfer_encoding": "chunked"}, 411),
        ("/gradio_api/upload", 9, {"content_length": "-1"}, 411),
        ("/gradio_api/upload", 9, {"content_length": "9" * 5000}, 413),
        ("/gradio_api/cancel", WORDS + 1, {}, 413),
        ("/gradio_api/queue/join", WORDS + 1, {}, 413),
    ],
)
def test_bodies_are_bounded_by_what_they_state(guard, path, size, headers, status) -> None:
    assert asked(guard, path, b"x" * size, **headers)[0] == status


def test_work_comes_to_the_server_as_it_was_sent(guard) -> None:
    body = b'{"data": [1, "http://x"], "path": null}'
    assert asked(guard, "/gradio_api/queue/join", body, parts=4)[:2] == (200, body)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"path": "OWN/a.png", "url": f"http://{HOST}{FILE}OWN/a.png"}, 200),
        ({"path": "OWN/gone.png", "url": None}, 200),  # the tab says what is wrong with it
        ({"path": "OWN/a.png", "url": f"{FILE}OWN/a.png"}, 200),
        ({"path": "http://127.0.0.1:1/x"}, 403),
        ({"path": "/etc/passwd"}, 403),
        ({"path": "OWN/../other.png"}, 403),
        ({"path": ["OWN/a.png"]}, 403),
        ({"path": "OWN/a.png", "url": "http://evil.example/x"}, 403),
        ({"path": "OWN/a.png", "url": f"http://evil.example{FILE}OWN/a.png"}, 403),
        ({"path": None, "url": "https://evil.example/x"}, 403),
        ({"path": "OWN/a.png", "url": "http://["}, 403),
    ],
)
def test_work_names_uploaded_files_alone(guard, tmp_path, content, status) -> None:
    text = json.dumps({"data": [[{"x": content}], "http://a"]}).replace("OWN", str(tmp_path / "own"))
    assert asked(guard, "/gradio_api/queue/join", text.encode())[0] == status


def test_work_that_is_no_json_is_refused(guard) -> None:
    for body in (b"no JSON", b"[" * 10_000):
        assert asked(guard, "/gradio_api/queue/join", body)[0] == 400


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
