"""The tab that says which of some names fits a picture."""

from __future__ import annotations

import re
from functools import partial

import torch
from torch.nn.functional import normalize

from multimodal_zoo.encoders.matching import matching_of
from multimodal_zoo.evaluation.class_vectors import build_classifier
from multimodal_zoo.evaluation.features import embed_images
from multimodal_zoo.evaluation.searching import BATCH
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.uploads import read_picture

#: Names that are compared at most.
MOST = 1000


def classify(
    room: Showroom, model: str | None, picture: str | None, names: str | None, template: str | None
) -> dict[str, float]:
    """How well each name fits a picture, as shares that add up to 1.

    Args:
        room: what is shown.
        model: name of a dual encoder.
        picture: path of an uploaded picture.
        names: one a line, or with commas between.
        template: a sentence with `{c}` where the name goes; several, one a line, are averaged. Empty is `{c}` alone.

    Raises:
        LookupError, ValueError: no picture, no names or too many, or a template without a place for them.
    """
    listed = [one.strip() for one in re.split(r"[\n,]", room.limits.text(names, "names"))]
    classes = list(dict.fromkeys(filter(None, listed)))
    if not 2 <= len(classes) <= MOST:
        raise ValueError(f"{len(classes)} names; give 2 to {MOST:,}, one a line or with commas between")
    sentences = [one.strip() for one in room.limits.text(template, "template").splitlines() if one.strip()] or ["{c}"]
    seen = read_picture(room, picture)
    with room.shelf.lent(model, "zero_shot") as encoder, torch.no_grad():
        device, matching = next(encoder.parameters()).device, matching_of(encoder)
        vectors = build_classifier(encoder, encoder.processor, classes, sentences, BATCH, device=device)
        features = embed_images(
            encoder,
            [seen],
            encoder.processor.images,
            batch_size=1,
            device=device,
            encode=lambda pixels: matching.encode_image(encoder, pixels),
            workers=0,
        )
        scores = matching.image_scores(normalize(features, dim=-1), vectors) * float(encoder.logit_scale())
    return dict(zip(classes, scores[0].softmax(dim=-1).tolist(), strict=True))


def tab(room: Showroom) -> None:
    """The components, inside of a Gradio tab."""
    import gradio as gr

    from multimodal_zoo.gallery.wiring import connect, model_choice, picture_field

    with gr.Row():
        with gr.Column():
            model = model_choice(room, "zero_shot")
            picture = picture_field("Picture", "zero-shot-picture")
            names = gr.Textbox("cat\ndog\nheart\nflag", lines=4, label="Names, one a line", elem_id="zero-shot-names")
            template = gr.Textbox("{c}", lines=1, label="Sentence, {c} is the name")
            button = gr.Button("Classify", variant="primary", elem_id="zero-shot-go")
        label = gr.Label(label="Which fits", num_top_classes=10, elem_id="zero-shot-label")

    connect(room, [button.click], partial(classify, room), [model, picture, names, template], [label])
