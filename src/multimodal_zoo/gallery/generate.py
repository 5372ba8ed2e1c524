"""The tab that draws pictures from texts, and shows them while they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.streaming import streamed
from multimodal_zoo.inference.live import Sketching, Unfinished, beside
from multimodal_zoo.inference.text_to_image import draw

#: Pictures at once, and ratios of width to height that can be chosen.
MOST = 8
#: Pixels that the shorter side of a sketch has at least; small ones are shown larger.
SIDE = 240
RATIOS = ("1:1", "4:3", "3:4", "16:9", "9:16")


@dataclass(frozen=True)
class Stand:
    """How far a drawing is.

    Attributes:
        said: in words.
        sketch: all pictures as far as they are, as one; the same object while there is nothing new, None before that.
        pictures: when all is done.
    """

    said: str
    sketch: Image.Image | None = None
    pictures: tuple[Image.Image, ...] = ()


def paint(
    room: Showroom,
    model: str | None,
    prompt: str | None,
    ratio: str,
    count: float,
    seed: float | None,
    guidance: float | None,
) -> Iterator[Stand]:
    """Pictures of a text, and what there is of them while they are drawn: rows, or pictures behind less and less noise.

    Args:
        room: what is shown.
        model: name of a model that draws: token by token (Emu3), or by diffusion (Emu).
        prompt: what to draw.
        ratio: width to height.
        count: pictures.
        seed: of the first one; None for 0.
        guidance: scale of classifier-free guidance; None or 0 takes the model's own.

    Raises:
        LookupError, ValueError: no text, or what is asked cannot be.
    """
    words = room.limits.text(prompt, "text")
    if not words:
        raise ValueError("type what is to be drawn")
    room.shelf.entry(model, "generate")
    many, first = max(1, min(MOST, int(count))), int(seed or 0)

    def work(say: Callable[[Stand], None]) -> None:
        """Draw, saying how far it is."""
        sketching, sketch = Sketching(), None

        def tell(batch: Unfinished) -> None:
            """Say how much there is, with a picture of it."""
            nonlocal sketch
            sheet = sketching(batch)
            sketch = sketch if sheet is None else larger(sheet)
            say(Stand(f"{batch.done:,} of {batch.whole:,} {batch.unit}", sketch))

        with room.shelf.lent(model, "generate") as painter:
            say(Stand("reading the text"))
            drawn = draw(
                painter, words, ratio=ratio, per_prompt=many, seed=first, guidance=guidance or None,
                special=False, on_step=tell,
            )  # fmt: skip
        pictures = tuple(one.image for one in drawn)
        sizes = " and ".join(sorted({f"{one.image.width} x {one.image.height}" for one in drawn}))
        say(Stand(f"“{words}”, {sizes} pixels, seed {first}", larger(beside(pictures)), pictures))

    yield from streamed(work, room.limits.seconds)


def larger(picture: Image.Image) -> Image.Image:
    """A small picture with every pixel as a square, so that its shorter side has at least `SIDE` pixels."""
    times = -(-SIDE // min(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def tab(room: Showroom) -> None:
    """The components, inside of a Gradio tab."""
    import gradio as gr

    from multimodal_zoo.gallery.wiring import connect, model_choice, picture_shown, pictures_shown

    with gr.Row():
        with gr.Column(scale=1):
            model = model_choice(room, "generate")
            prompt = gr.Textbox(label="What to draw", placeholder="a red apple", elem_id="generate-text")
            ratio = gr.Dropdown(list(RATIOS), value="1:1", label="Width to height")
            count = gr.Slider(1, MOST, 4, step=1, label="Pictures")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed")
            guidance = gr.Number(0, minimum=0, label="Guidance; 0 is the model's own")
            with gr.Row():
                button = gr.Button("Draw", variant="primary", elem_id="generate-go")
                stop = gr.Button("Stop", elem_id="generate-stop")
        with gr.Column(scale=2):
            sketch = picture_shown("While it is drawn", 260, "generate-sketch")
            gallery = pictures_shown("Pictures", 4, 320, "generate-drawn")
            said = gr.Markdown(elem_id="generate-said")

    def go(*fields: Any) -> Iterator[tuple[object, list[Image.Image], str]]:
        """Draw."""
        before = None
        for stand in paint(room, *fields):
            yield (gr.skip() if stand.sketch is before else stand.sketch), list(stand.pictures), stand.said
            before = stand.sketch

    inputs = [model, prompt, ratio, count, seed, guidance]
    connect(room, [button.click, prompt.submit], go, inputs, [sketch, gallery, said], stop)
