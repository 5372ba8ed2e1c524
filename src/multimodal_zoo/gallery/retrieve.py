"""The tab that finds pictures by a text or a picture."""

from __future__ import annotations

from functools import partial

from PIL import Image, ImageDraw

from multimodal_zoo.evaluation.pictures import wrap
from multimodal_zoo.evaluation.searching import embed_queries
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.uploads import asked

#: Most pictures that can be asked for.
MOST = 48
#: Pixels of a side of what is shown for a match without a picture.
CARD = 240


def search(
    room: Showroom, model: str | None, album: str | None, text: str | None, picture: str | None, count: float
) -> tuple[list[tuple[Image.Image, str]], str]:
    """The pictures of an album that are nearest to a text, or to a picture.

    Args:
        room: what is shown.
        model: name of a dual encoder.
        album: name of what is searched.
        text: the query; the picture counts where there is one.
        picture: path of an uploaded picture.
        count: pictures at most.

    Returns:
        the pictures with a score each, best first; and a sentence.

    Raises:
        LookupError, ValueError: nothing is asked, or what is asked cannot be.
    """
    words, seen = asked(room, text, "text", picture, "type a text, or upload a picture")
    found = room.albums.find(album)
    with room.shelf.lent(model, "retrieve") as encoder:
        query = embed_queries(encoder, [words if seen is None else seen], next(encoder.parameters()).device)
        matches = room.albums.search(encoder, str(model), found, query, max(1, min(MOST, int(count))))
    shown = [(one.picture or _card(one.caption), f"{one.score:.3f}  {one.caption}") for one in matches]
    what = "your picture" if seen is not None else f"“{words}”"
    return shown, f"{len(shown)} pictures of {found.name}, nearest to {what} first; the number is the cosine."


def _card(text: str) -> Image.Image:
    card = Image.new("RGB", (CARD, CARD), (242, 244, 247))
    ImageDraw.Draw(card).multiline_text((12, 12), wrap(text, 32, lines=14), fill=(40, 44, 52))
    return card


def tab(room: Showroom) -> None:
    """The components, inside of a Gradio tab."""
    import gradio as gr

    from multimodal_zoo.gallery.wiring import connect, model_choice, picture_field, pictures_shown

    with gr.Row():
        with gr.Column(scale=1):
            model = model_choice(room, "retrieve")
            names = list(room.albums.albums)
            album = gr.Dropdown(names, value=names[0] if names else None, label="Pictures", elem_id="retrieve-album")
            text = gr.Textbox(label="Text", placeholder="a red heart", elem_id="retrieve-text")
            picture = picture_field("or a picture", "retrieve-picture")
            count = gr.Slider(1, MOST, 12, step=1, label="How many")
            button = gr.Button("Search", variant="primary", elem_id="retrieve-go")
        with gr.Column(scale=2):
            gallery = pictures_shown("Found", 4, 520, "retrieve-found")
            said = gr.Markdown(elem_id="retrieve-said")

    inputs = [model, album, text, picture, count]
    connect(room, [button.click, text.submit], partial(search, room), inputs, [gallery, said])
