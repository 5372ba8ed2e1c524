"""The HTTP engine against a real server in a thread, which is slow, busy, broken or wrong as told."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from multimodal_zoo.captions.asking import ask
from multimodal_zoo.captions.checks import Checks
from multimodal_zoo.captions.engine import Answer, Request
from multimodal_zoo.captions.engines import http_posting
from multimodal_zoo.captions.engines.http_posting import RefusedError, wait_seconds
from multimodal_zoo.captions.engines.openai_engine import OpenAiEngine
from multimodal_zoo.captions.engines.rough_tokens import rough_count, rough_cut
from multimodal_zoo.captions.prompts import FusionPrompt
from multimodal_zoo.captions.rows import FAILED, FUSED, CaptionRow
from multimodal_zoo.registry import build

pytest.importorskip("httpx")
CONF = Path(__file__).parents[3] / "conf" / "fusion_engine" / "openai.yaml"
KEY = "sk-very-secret"
#: What a server does with a request: status, headers, and the body as JSON or bytes; None never answers.
Reply = tuple[int, dict[str, str], Any] | None


class Server(ThreadingHTTPServer):
    """A server that speaks as OpenAI's; `does` may answer in its place."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        self.models = ["small"]
        self.does: Callable[[dict[str, Any], int], Reply] = lambda body, count: (200, {}, answered(body))
        self.together, self.most_together = 0, 0
        self.lock, self.over = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {}, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, body, self.headers.get("Authorization")))
            count = len(self.server.seen)
            self.server.together += 1
            self.server.most_together = max(self.server.most_together, self.server.together)
        reply = self.server.does(body, count)
        with self.server.lock:
            self.server.together -= 1
        if reply is None:
            self.server.over.wait(5)
            self.close_connection = True
        else:
            self._send(*reply)

    def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


def answered(body: dict[str, Any], text: str | None = None, finish: str = "stop") -> dict[str, Any]:
    """An answer in the layout of the request: the prompt's last word, unless a text is given."""
    prompt = body["messages"][0]["content"] if "messages" in body else body["prompt"]
    said = prompt.split()[-1] if text is None else text
    choice = {"message": {"content": said}} if "messages" in body else {"text": said}
    return {"choices": [{**choice, "finish_reason": finish}], "usage": {"completion_tokens": 3}}


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.over.set()
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits of a busy server last no time; how long they would have been."""
    waits: list[float] = []

    def noted(after: str | None, attempt: int) -> float:
        waits.append(wait_seconds(after, attempt))
        return 0.0

    monkeypatch.setattr(http_posting, "wait_seconds", noted)
    return waits


def asked(*words: str, attempt: int = 0) -> list[Request]:
    return [Request(f"Say {word}", word, (), attempt) for word in words]


def test_both_layouts_ask_as_the_servers_want_it(server: Server) -> None:
    for layout, path in (("plain", "/v1/completions"), ("chat", "/v1/chat/completions")):
        server.seen.clear()
        engine = OpenAiEngine(
            server.url + "/", "small", layout=layout, max_new_tokens=9, stop=["\n"], body={"top_k": 1}
        )
        assert engine.answer(asked("cat")) == [Answer("cat", True, 3)]
        engine.answer(asked("cat", attempt=2))
        (first_path, first, key), (_, second, _) = server.seen
        prompt = {"prompt": "Say cat"} if layout == "plain" else {"messages": [{"role": "user", "content": "Say cat"}]}
        common = {"model": "small", "max_tokens": 9, "stop": ["\n"], "top_k": 1, **prompt}
        assert (first_path, first, key) == (path, {**common, "temperature": 0.0}, None)
        assert second == {**common, "temperature": 0.7, "seed": 2}
        engine.close()
        with pytest.raises(RuntimeError, match="closed"):
            engine.answer(asked("cat"))


def test_requests_go_out_together_and_come_back_in_order(server: Server) -> None:
    gate = threading.Barrier(3, timeout=5)

    def does(body: dict[str, Any], count: int) -> Reply:
        gate.wait()
        return 200, {}, answered(body)

    server.does = does
    engine = OpenAiEngine(server.url, "small", concurrent=3)
    words = [f"word{number}" for number in range(12)]
    assert [one.text for one in engine.answer(asked(*words))] == words
    assert server.most_together == 3
    assert engine.answer([]) == []


def test_the_key_is_sent_and_shown_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    engine = OpenAiEngine(server.url, "small", key_variable="A_KEY", tries=2)
    with caplog.at_level(logging.DEBUG):
        engine.answer(asked("cat"))
        server.does = lambda body, count: (500, {}, {"error": {"message": f"bad key {KEY}"}})
        (busy,) = engine.answer(asked("cat"))
        server.does = lambda body, count: (401, {}, f"no such key {KEY}".encode())
        with pytest.raises(RefusedError) as refused:
            engine.answer(asked("cat"))
    assert {key for _, _, key in server.seen} == {f"Bearer {KEY}"}
    assert "status 401: 'no such key ***'; put the key into the environment variable" in str(refused.value)
    shown = [caplog.text, busy.error, str(refused.value), json.dumps(engine.describe()), repr(vars(engine))]
    assert not any(KEY in str(one) for one in shown)
    monkeypatch.setenv("A_KEY", " ")
    with pytest.raises(ValueError, match=r"fusion_engine\.key_variable: .* A_KEY is not set"):
        OpenAiEngine(server.url, key_variable="A_KEY")


def test_a_busy_server_is_asked_again(server: Server, no_pauses: list[float]) -> None:
    replies: list[Reply] = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": "9999"}, b""), (500, {}, b"oops")]
    server.does = lambda body, count: replies[count - 1] if count <= 3 else (200, {}, answered(body))
    engine = OpenAiEngine(server.url, "small")
    assert engine.answer(asked("cat"))[0].text == "cat"
    assert no_pauses[:2] == [7.0, 60.0]
    assert 1.5 <= no_pauses[2] <= 2.5
    server.does = lambda body, count: (503, {}, {"error": {"message": "loading\nmodel"}})
    (busy,) = engine.answer(asked("cat"))
    assert busy.error == (
        f"{server.url}/chat/completions answers with status 503: loading model; asked 5 times (fusion_engine.tries)"
    )
    assert len(server.seen) == 9


def test_pauses_follow_the_header_or_grow() -> None:
    assert wait_seconds("0", 1) == 0.0
    assert wait_seconds("-3", 1) == 0.0
    assert wait_seconds("Wed, 21 Oct 2015 07:28:00 GMT", 1) == 0.0
    for attempt, seconds in ((1, 0.5), (3, 2.0), (99, 60.0)):
        for after in (None, "soon", "nan"):
            assert 0.75 * seconds <= wait_seconds(after, attempt) <= 1.25 * seconds


BROKEN = {
    b"{half": "no JSON object: '{half'",
    b"[1]": "no JSON object",
    b"\xff\xfe": "no JSON object",
    b"{}": "malformed answer",
    b'{"choices": []}': "malformed answer: no choices",
    b'{"choices": [{"text": "x"}]}': "malformed answer: no choices[0] of the layout chat",
    b'{"choices": [{"message": {"content": null}}]}': "its text is NoneType",
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}': "content filter",
    b'{"error": "out of memory"}': "out of memory",
}


@pytest.mark.parametrize("content", BROKEN)
def test_malformed_answers_are_errors_of_their_rows(server: Server, content: bytes) -> None:
    server.does = lambda body, count: (200, {}, content if "bad" in str(body) else answered(body))
    good, bad = OpenAiEngine(server.url, "small").answer(asked("good", "bad"))
    assert (good.text, good.error) == ("good", None)
    assert bad.text == ""
    assert bad.error is not None
    assert BROKEN[content] in bad.error


def test_a_row_that_is_refused_fails_alone(server: Server) -> None:
    refused: Reply = (
        400,
        {},
        {"error": {"message": "the prompt has 9000 tokens", "type": "exceed_context_size_error"}},
    )
    server.does = lambda body, count: refused if "long" in str(body) else (200, {}, answered(body, finish="length"))
    long, short = OpenAiEngine(server.url, "small").answer(asked("long", "short"))
    assert long.error == f"{server.url}/chat/completions answers with status 400: the prompt has 9000 tokens"
    assert (short.text, short.ended) == ("short", False)


def test_a_wrong_model_stops_the_batch(server: Server) -> None:
    server.does = lambda body, count: (404, {}, {"error": {"message": "The model `large` does not exist."}})
    engine = OpenAiEngine(server.url, "large", concurrent=2)
    with pytest.raises(
        RefusedError, match=r"status 404: The model `large` does not exist\.; check .*fusion_engine.model"
    ):
        engine.answer(asked(*"abcdefgh"))
    assert len(server.seen) <= 4
    prompt, rows = FusionPrompt("{raw}"), [CaptionRow(str(number), f"row {number}") for number in range(5)]
    found = ask(engine, prompt, rows, Checks({}), retries=1)
    assert {(one.status, one.attempts) for one in found} == {(FAILED, 1)}
    assert "status 404" in found[0].reason
    assert len(server.seen) <= 12


def test_the_only_model_is_found(server: Server) -> None:
    engine = OpenAiEngine(server.url)
    engine.answer(asked("cat"))
    assert server.seen[0][1]["model"] == "small"
    assert engine.describe()["model"] == "small"
    server.models = ["a", "b"]
    with pytest.raises(ValueError, match=r"fusion_engine\.model is null, and .* has a, b; name one"):
        OpenAiEngine(server.url).describe()


def test_slow_rows_time_out(server: Server) -> None:
    server.does = lambda body, count: None if "slow" in str(body) else (200, {}, answered(body))
    engine = OpenAiEngine(server.url, "small", timeout=0.2)
    quick, slow = engine.answer(asked("quick", "slow"))
    assert quick.text == "quick"
    assert slow.error is not None
    assert "within 0.2 s; raise fusion_engine.timeout" in slow.error
    with pytest.raises(TimeoutError, match="no answer from http"):
        engine.answer(asked("slow"))
    rows = [CaptionRow("0", "slow"), CaptionRow("1", "quick")]
    found = ask(engine, FusionPrompt("Say {raw}"), rows, Checks({}), retries=1)
    assert [(one.status, one.attempts) for one in found] == [(FAILED, 2), (FUSED, 1)]


def test_an_absent_server_is_named(no_pauses: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        engine = OpenAiEngine(url, "small", tries=3)
        with pytest.raises(ConnectionError, match=rf"no connection to {url}/chat/completions .*; start the server"):
            engine.answer(asked("cat"))
        assert len(no_pauses) == 2
        with pytest.raises(ConnectionError, match="no connection"):
            OpenAiEngine(url).describe()


def test_stop_words_count_behind_the_first_visible_character(server: Server) -> None:
    """A model that begins with a newline is asked once more without newlines as stop words, and cut here."""

    def does(body: dict[str, Any], count: int) -> Reply:
        del count
        return 200, {}, answered(body, "" if "\n" in body["stop"] else "\n A cat\nWeb caption")

    server.does = does
    engine = OpenAiEngine(server.url, "small", stop=["\n", "Web"])
    assert engine.answer(asked("x")) == [Answer("\n A cat", True, 3)]
    assert [one[1]["stop"] for one in server.seen] == [["\n", "Web"], ["Web"]]


def test_fields_can_be_taken_out(server: Server) -> None:
    engine = OpenAiEngine(
        server.url, "small", body={"max_tokens": None, "max_completion_tokens": 5, "temperature": None}
    )
    engine.answer(asked("cat"))
    assert set(server.seen[0][1]) == {"model", "max_completion_tokens", "messages"}


def test_rough_tokens() -> None:
    assert [rough_count(text) for text in ("", "cat", "photograph", "a b", "\u6771\u4eac")] == [0, 1, 3, 2, 2]
    assert rough_cut("a photograph of cats", 0) == "a photograph of cats"
    assert rough_cut("a photograph of cats", 2) == "a photograph"
    assert rough_cut("a photograph of cats", 3) == "a photogra"
    assert rough_cut("a photograph of cats", 99) == ""
    text = "a \u6771\u4eac photograph \U0001f600\U0001f600 of cats"
    for tokens in range(rough_count(text) + 1):
        assert rough_count(rough_cut(text, tokens)) <= rough_count(text) - tokens


def test_errors_name_the_key(server: Server) -> None:
    wrong: dict[str, Any] = {
        "layout": "x",
        "max_new_tokens": 0,
        "concurrent": 0,
        "tries": 0,
        "timeout": 0.0,
        "stop": "\n",
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"fusion_engine.{name} is"):
            OpenAiEngine(server.url, **{name: value})
    for url in ("127.0.0.1:80/v1", "ftp://host/v1", ""):
        with pytest.raises(ValueError, match=r"fusion_engine\.url is"):
            OpenAiEngine(url)
    with pytest.raises(ValueError, match=r"holds a user or password") as error:
        OpenAiEngine("http://me:secret@host/v1")
    assert "secret" not in str(error.value)


def test_the_preset_asks(server: Server) -> None:
    engine = build({**yaml.safe_load(CONF.read_text()), "url": server.url})
    assert engine.answer(asked("cat"))[0].text == "cat"
    assert json.loads(json.dumps(engine.describe())) == engine.describe()
