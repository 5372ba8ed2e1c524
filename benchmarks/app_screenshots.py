"""Pictures of `mmzoo app` for docs/app.md: the page in Chromium, over models that were trained.

    python benchmarks/app_screenshots.py runs

The folder holds runs of quickstart, emu3/emoji, a captioner (emu/emoji) and fast_bev/synthetic, one each.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from multimodal_zoo.commands.gallery import Options, showroom
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.pictures import open_picture, to_rgb
from multimodal_zoo.gallery.server import serving

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
#: Colours of the stored pictures, and milliseconds that an answer may take.
COLOURS, PATIENCE = 128, 600_000


def keep(page: Any, name: str) -> None:
    """Write what the page shows, in few colours."""
    time.sleep(1.5)  # pictures fade in
    path = FIGURES / f"app_{name}.png"
    page.screenshot(path=str(path))
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def choose(page: Any, field: str, ending: str) -> None:
    """Choose the model whose name ends in some way."""
    page.locator(f"{field} input").click()
    page.get_by_role("option").filter(has_text=ending).first.click()


def emoji(folder: Path, name: str) -> str:
    """A picture that no recipe trained on, as a file."""
    document = next(one for one in EmojiPairs(["twemoji"], ["test"], 64) if one.text == name)
    path = folder / "picture.png"
    to_rgb(open_picture(document.image)).resize((256, 256)).save(path)
    return str(path)


def visit(page: Any, words: argparse.Namespace, folder: Path) -> None:
    """Use every tab."""
    picture = emoji(folder, words.picture)
    page.locator("#retrieve-text textarea").fill(words.query)
    page.locator("#retrieve-go").click()
    page.locator("#retrieve-said").get_by_text("pictures of").wait_for(timeout=PATIENCE)
    keep(page, "retrieve")

    page.get_by_role("tab", name="Zero-shot").click()
    page.locator("#zero-shot-picture input[type=file]").set_input_files(picture)
    page.locator("#zero-shot-picture img").first.wait_for(timeout=PATIENCE)
    page.locator("#zero-shot-go").click()
    page.locator("#zero-shot-label").get_by_text("%").first.wait_for(timeout=PATIENCE)
    keep(page, "zero_shot")

    page.get_by_role("tab", name="Chat").click()
    choose(page, "#chat-model", words.captioner)
    page.locator("#chat-picture input[type=file]").set_input_files(picture)
    page.locator("#chat-picture img").first.wait_for(timeout=PATIENCE)
    page.locator("#chat-go").click()
    page.locator("#chat-said .bot").first.wait_for(timeout=PATIENCE)
    time.sleep(5)
    keep(page, "chat")

    page.get_by_role("tab", name="Generate").click()
    page.locator("#generate-text textarea").fill(words.prompt)
    page.locator("#generate-go").click()
    page.locator("#generate-sketch img").wait_for(timeout=PATIENCE)
    keep(page, "drawing")
    page.locator("#generate-said").get_by_text("seed").wait_for(timeout=PATIENCE)
    keep(page, "generate")

    page.set_viewport_size({"width": 1200, "height": 1080})
    page.get_by_role("tab", name="Detect").click()
    page.locator("#detect-go").click()
    page.locator("#detect-said").get_by_text("boxes of score").wait_for(timeout=PATIENCE)
    keep(page, "detect")
    page.set_viewport_size({"width": 1200, "height": 860})

    page.get_by_role("tab", name="Fuse").click()
    page.locator("#fuse-go").click()
    time.sleep(5)
    keep(page, "fuse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--query", default="a flag", help="text that is searched for")
    parser.add_argument("--picture", default="flag: Anguilla", help="name of an emoji of the test split")
    parser.add_argument("--prompt", default="red apple", help="text that is drawn")
    parser.add_argument("--captioner", default="captions", help="ending of the name of the model that writes")
    words = parser.parse_args()

    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder:
        room = showroom(words.folders, Options(), Path(folder))
        with serving(room, port=0) as url, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1200, "height": 860})
            page.goto(url, timeout=PATIENCE)
            visit(page, words, Path(folder))
            browser.close()


if __name__ == "__main__":
    main()
