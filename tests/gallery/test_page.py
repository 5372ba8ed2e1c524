"""The page itself: served to this machine, safe against what it should not give, and used in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from multimodal_zoo.gallery import chat, generate
from multimodal_zoo.gallery.albums import Albums
from multimodal_zoo.gallery.limits import Limits
from multimodal_zoo.gallery.server import serving
from multimodal_zoo.gallery.shelf import Shelf
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.uploads import read_picture
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.text_to_image import draw

gradio = pytest.importorskip("gradio", reason="needs the extra app: pip install 'multimodal_zoo[app]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Milliseconds that an answer may take; a machine that does other things besides is slow.
PATIENCE = 120_000
#: Seconds that a step takes of work that is to be stopped: a tiny model would be through before the server hears of it.
PAUSE = 0.1


@pytest.fixture(scope="module")
def served(runs: Path, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Showroom, str]]:
    """A room and where its page is."""
    scratch = tmp_path_factory.mktemp("own").resolve()
    room = Showroom(shelf, Albums([runs], most=9), Limits(megabytes=1, megapixels=1), scratch)
    with serving(room, port=0) as url:
        yield room, url.rstrip("/")


def fetched(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, named), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def sent(url: str, name: str, content: bytes) -> tuple[int, bytes]:
    """The answer to an upload."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return fetched(
        f"{url}/gradio_api/upload", head + content + b"\r\n--x--\r\n", content_type="multipart/form-data; boundary=x"
    )


def test_nothing_outside_of_the_folder_is_served(served, tmp_path) -> None:
    room, url = served
    (tmp_path / "secret.txt").write_text("secret")
    (room.scratch / "link.txt").symlink_to(tmp_path / "secret.txt")
    files = ("/etc/passwd", "%2Fetc%2Fpasswd", f"{room.scratch}/../secret.txt", f"{room.scratch}/%2e%2e/secret.txt")
    files += (
        f"{room.scratch}/link.txt",
        f"{tmp_path}/secret.txt",
        str(Path(__file__)),
        "pyproject.toml",
        "..%2F..%2Fx",
    )
    files += (f"{room.shelf.folders[0]}/pairs/model/config.yaml", "http://127.0.0.1:9/x", "C:%5Cx")
    for file in files:
        for route in (
            "/gradio_api/file=",
            "/gradio_api/file/",
            "/file=",
            "/gradio_api/proxy=",
            "/static/../",
            "/assets/..%2F",
        ):
            status, body = fetched(f"{url}{route}{file}")
            assert status in (400, 403, 404, 405), (route, file)
            assert b"root:" not in body
            assert b"secret" not in body or b"secret.txt" in body


def test_uploads_are_bounded_and_kept_in_the_folder(served) -> None:
    room, url = served
    status, body = sent(url, "../../a.txt", b"words")
    (place,) = json.loads(body)
    assert status == 200
    assert Path(place).resolve().is_relative_to(room.scratch)
    assert fetched(f"{url}/gradio_api/file={place}") == (200, b"words")
    assert sent(url, "large.png", b"\0" * (2**20 + 1))[0] == 413
    assert fetched(f"{url}/gradio_api/upload", b"x", origin="http://evil.example")[0] == 403
    assert fetched(f"{url}/", host="evil.example")[0] == 403


def test_no_work_is_done_on_files_of_other_folders(served, tmp_path) -> None:
    room, url = served
    Image.new("RGB", (9, 9), "white").save(tmp_path / "secret.png")
    config = json.loads(fetched(f"{url}/config")[1])
    work = next(one for one in config["dependencies"] if one["targets"] and len(one["inputs"]) == 4)  # zero-shot's
    picture = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    body = {"data": ["runs/pairs", picture, "a\nb", ""], "fn_index": work["id"], "session_hash": "mine"}
    said = fetched(f"{url}/gradio_api/queue/join", json.dumps(body).encode(), content_type="application/json")
    assert said == (403, b"files are uploaded; none is read from elsewhere")
    with pytest.raises(ValueError, match="is no uploaded file"):  # nor would the tab read it
        read_picture(room, tmp_path / "secret.png")


def test_other_programs_find_no_api(served) -> None:
    _, url = served
    config = json.loads(fetched(f"{url}/config")[1])
    assert config["analytics_enabled"] is False
    assert not config.get("is_space")
    for path in ("/gradio_api/call/go", "/gradio_api/run/predict", "/gradio_api/api/go"):
        assert fetched(f"{url}{path}", b'{"data": []}', content_type="application/json")[0] == 404
    text = fetched(url)[1].decode()
    assert "fonts.googleapis.com" not in text


class Visitor:
    """What a person does on the page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def choose(self, field: str, name: str) -> None:
        """Choose in a list."""
        self.page.locator(f"{field} input").click()
        self.page.get_by_role("option", name=name).click()

    def upload(self, field: str, *paths: str) -> None:
        """Upload files, and wait until they are there."""
        self.page.locator(f"{field} input[type=file]").set_input_files(list(paths))
        shown = f"{field} img" if len(paths) == 1 else f"{field} .file-preview"
        self.page.locator(shown).first.wait_for(timeout=PATIENCE)

    def click(self, button: str) -> None:
        """Click."""
        self.page.locator(button).click()

    def told(self, button: str, text: str) -> str:
        """The message that clicking gives; Gradio ignores clicks while the answer before is on its way."""
        found, deadline = self.page.locator(".toast-body").filter(has_text=text), time.monotonic() + PATIENCE / 1000
        while not found.count():
            assert time.monotonic() < deadline, f"no message with {text}"
            self.click(button)
            self.page.wait_for_timeout(1000)
        return str(found.first.inner_text())

    def stopping(self) -> Any:
        """A block that ends when the server says that what was stopped has ended: Gradio ignores clicks before."""
        return self.page.expect_response(lambda answer: answer.url.endswith("/cancel"), timeout=PATIENCE)

    def reads(self, field: str, text: str | re.Pattern[str]) -> str:
        """The text of a field, once it is of some kind."""
        found = self.page.locator(field).filter(has_text=text)
        found.wait_for(timeout=PATIENCE)
        return str(found.inner_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser."""
    if find_spec("playwright") is None or CHROMIUM is None:
        pytest.skip("needs the package playwright and a chromium in PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def visitor(served, browser) -> Iterator[Visitor]:
    """A visitor who sees the page; whatever the browser asked of other machines is an error."""
    _, url = served
    page, asked = browser.new_page(viewport={"width": 1200, "height": 900}), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url, timeout=PATIENCE)
    page.get_by_role("tab", name="Retrieve", exact=True).wait_for(timeout=PATIENCE)
    yield Visitor(page)
    page.close()
    assert [one for one in asked if not one.startswith((url, "data:", "blob:"))] == []


def scene(sent: Path) -> list[str]:
    """The files of a scene."""
    return sorted(map(str, sent.iterdir()))


@pytest.mark.slow
def test_every_tab_in_a_browser(visitor, sent: Path, tmp_path) -> None:
    page, photo = visitor.page, tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(photo)
    (tmp_path / "no.png").write_bytes(b"no picture")

    visitor.choose("#retrieve-album", "runs/photos")
    page.locator("#retrieve-text textarea").fill("a red wall")
    visitor.click("#retrieve-go")
    assert "3 pictures of runs/photos" in visitor.reads("#retrieve-said", "pictures of")
    assert page.locator("#retrieve-found img").count() == 3

    visitor.tab("Zero-shot")
    visitor.click("#zero-shot-go")
    assert "Upload a picture first" in visitor.reads(".toast-body", "picture")
    visitor.upload("#zero-shot-picture", str(photo))
    page.locator("#zero-shot-names textarea").fill("red\ngreen")
    visitor.click("#zero-shot-go")
    assert "%" in visitor.reads("#zero-shot-label", re.compile("green"))

    visitor.tab("Chat")
    page.locator("#chat-question textarea").fill("What is <b>this</b>?")
    visitor.click("#chat-go")
    page.locator("#chat-said .bot").first.wait_for(timeout=PATIENCE)
    assert "What is <b>this</b>?" in visitor.reads("#chat-said", "What is")  # shown as typed, not as markup

    page.locator("#chat-picture input[type=file]").set_input_files(str(tmp_path / "no.png"))
    page.locator("#chat-picture img").first.wait_for(state="attached", timeout=PATIENCE)
    assert "is no picture that is read here" in visitor.told("#chat-go", "no.png").replace("\n", " ")

    visitor.tab("Generate")
    visitor.choose("#generate-model", "runs/tokens")
    page.locator("#generate-text textarea").fill("a dog")
    visitor.click("#generate-go")
    page.locator("#generate-sketch img").wait_for(timeout=PATIENCE)  # rows appear
    assert "“a dog”" in visitor.reads("#generate-said", "seed 0")
    page.locator("#generate-drawn img").nth(3).wait_for(timeout=PATIENCE)

    visitor.tab("Detect")
    visitor.upload("#detect-files", *scene(sent))
    visitor.click("#detect-go")
    assert "boxes of score 0.5 or more" in visitor.reads("#detect-said", "boxes of score")
    page.locator("#detect-above img").wait_for(timeout=PATIENCE)
    assert page.locator("#detect-cameras img").count() == 6

    visitor.tab("Fuse")
    visitor.click("#fuse-go")
    visitor.page.wait_for_function(
        "document.querySelector('#fuse-fused textarea').value.startsWith('A yellow tram on a narrow street: Lisbon')"
    )


class Slow:
    """A model's own way of drawing, whose first picture waits at its third token until it is let on."""

    def __init__(self) -> None:
        self.begun, self.let_on, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, model: Any, prompt: str, **options: Any) -> Any:
        """Draw."""
        if self.begun.is_set():
            return draw(model, prompt, **options)
        tell, steps = options["on_step"], []

        def slowly(batch: Any) -> None:
            """Wait once."""
            steps.append(batch.step)
            if len(steps) == 3:
                self.begun.set()
                self.let_on.wait(PATIENCE / 1000)
            time.sleep(PAUSE)
            tell(batch)

        try:
            return draw(model, prompt, **{**options, "on_step": slowly})
        finally:
            self.steps = len(steps)
            self.ended.set()


@pytest.mark.slow
def test_a_drawing_is_stopped_in_a_browser_and_another_one_drawn(visitor, served, monkeypatch) -> None:
    (_, url), page, slow = served, visitor.page, Slow()
    monkeypatch.setattr(generate, "draw", slow)
    visitor.tab("Generate")
    visitor.choose("#generate-model", "runs/tokens")
    page.locator("#generate-text textarea").fill("a dog")
    visitor.click("#generate-go")
    assert slow.begun.wait(PATIENCE / 1000)
    with visitor.stopping():
        visitor.click("#generate-stop")
        assert fetched(url)[0] == 200  # the others are answered while the last token is computed
        slow.let_on.set()
    assert slow.ended.wait(PATIENCE / 1000)
    assert slow.steps < 40  # of 80
    page.locator("#generate-text textarea").fill("a cat")
    visitor.click("#generate-go")
    assert "“a cat”" in visitor.reads("#generate-said", "seed 0")  # and not the dog

    visitor.choose("#generate-model", "runs/painter")
    visitor.click("#generate-go")
    visitor.reads("#generate-said", re.compile("46 x 46|32 x 32|pixels"))
    page.locator("#generate-sketch img").wait_for(timeout=PATIENCE)


@pytest.mark.slow
def test_an_answer_is_stopped_in_a_browser_and_the_talk_goes_on(visitor, monkeypatch) -> None:
    page, begun, let_on = visitor.page, threading.Event(), threading.Event()
    counts: list[int] = []

    def slowly(model: Any, document: Any, **options: Any) -> Any:
        """Answer, but wait at the second token of the first question."""
        tell = options["on_token"]
        counts.append(0)

        def telling(progress: Any) -> None:
            """Wait once."""
            counts[-1] += 1
            if counts == [2]:
                begun.set()
                let_on.wait(PATIENCE / 1000)
            time.sleep(PAUSE if len(counts) == 1 else 0)
            tell(progress)

        return answer(model, document, **{**options, "on_token": telling})

    monkeypatch.setattr(chat, "answer", slowly)
    visitor.tab("Chat")
    page.locator("#chat-question textarea").fill("First?")
    visitor.click("#chat-go")
    assert begun.wait(PATIENCE / 1000)
    with visitor.stopping():
        visitor.click("#chat-stop")
        let_on.set()
    page.locator("#chat-question textarea").fill("Second?")
    visitor.click("#chat-go")
    visitor.reads("#chat-said", "Second?")
    assert "First?" in visitor.reads("#chat-said", "First?")
    assert counts[0] < 32  # of 64
