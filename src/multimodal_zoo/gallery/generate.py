"""The tab that draws pictures from texts, and shows them while they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.streaming import streamed
from multimodal_zoo.inference.live import Sketching, beside
from multimodal_zoo.inference.painter import Sketches, tokens_of
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.inference.visual_drawing import draw_visual

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
        sketch: the rows so far of all pictures as one, the same object while there are no new ones; None before that.
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
    seed: float,
    guidance: float | None,
) -> Iterator[Stand]:
    """Pictures of a text, and their rows while they are drawn.

    Args:
        room: what is shown.
        model: name of a model that draws: token by token (Emu3), or by diffusion (Emu).
        prompt: what to draw.
        ratio: width to height.
        count: pictures.
        seed: of the first one.
        guidance: scale of classifier-free guidance; None or 0 takes the model's own.

    Raises:
        LookupError, ValueError: no text, or what is asked cannot be.
    """
    words = room.limits.text(prompt, "text")
    if not words:
        raise ValueError("type what is to be drawn")
    painter = room.shelf.load(model, "generate")
    many = max(1, min(MOST, int(count)))
    sketching, sheets = Sketching(painter), list[Image.Image | None]([None])

    def on_token(sketches: Sketches, say: Callable[[Stand], None]) -> None:
        """Say how many tokens there are, with a picture of them."""
        whole, sheet = sum(tokens_of(grid) for grid in sketches.grids), sketching(sketches)
        sheets[:] = sheets if sheet is None else [larger(sheet)]
        say(Stand(f"{sketches.tokens:,} of {whole:,} tokens", sheets[0]))

    def work(say: Callable[[Stand], None]) -> None:
        """Draw, saying how far it is."""
        if isinstance(painter, Emu):
            drawn = draw_visual(
                painter, words, ratio=ratio, per_prompt=many, seed=int(seed), guidance=guidance or None,
                special=False, on_step=lambda done, most: say(Stand(f"{done:,} of {most:,} steps")),
            )  # fmt: skip
        else:
            drawn = draw(
                painter, words, ratio=ratio, per_prompt=many, seed=int(seed), guidance=guidance or None,
                special=False, on_token=lambda sketches: on_token(sketches, say),
            )  # fmt: skip
        pictures = tuple(one.image for one in drawn)
        sizes = " and ".join(sorted({f"{one.image.width} x {one.image.height}" for one in drawn}))
        say(Stand(f"“{words}”, {sizes} pixels, seed {int(seed)}", larger(beside(pictures)), pictures))

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
                stop = gr.Button("Stop")
        with gr.Column(scale=2):
            sketch = picture_shown("While it is drawn", 260, "generate-sketch")
            gallery = pictures_shown("Pictures", 4, 320, "generate-drawn")
            said = gr.Markdown(elem_id="generate-said")

    def go(
        model: str | None, prompt: str | None, ratio: str, count: float, seed: float, guidance: float | None
    ) -> Iterator[tuple[object, list[Image.Image], str]]:
        """Draw."""
        before = None
        for stand in paint(room, model, prompt, ratio, count, seed or 0, guidance):
            yield (gr.skip() if stand.sketch is before else stand.sketch), list(stand.pictures), stand.said
            before = stand.sketch

    connect(
        room,
        [button.click, prompt.submit],
        go,
        [model, prompt, ratio, count, seed, guidance],
        [sketch, gallery, said],
        stop,
    )
