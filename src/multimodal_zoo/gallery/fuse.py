"""The tab that fuses a caption from the web with one that a model wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

from omegaconf import OmegaConf

import multimodal_zoo.captions.parts  # noqa: F401  # registers them
from multimodal_zoo.captions.asking import ask
from multimodal_zoo.captions.checks import Checks
from multimodal_zoo.captions.engine import Answer, Engine
from multimodal_zoo.captions.prompts import FusionPrompt
from multimodal_zoo.captions.rows import FUSED, CaptionRow, FusedRow
from multimodal_zoo.config import compose
from multimodal_zoo.gallery import chat
from multimodal_zoo.gallery.kept import Kept
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.registry import build

#: What fuses without a model, and wordings of the prompt (`conf/fusion_prompt`).
RULES = "rules, without a model"
PROMPTS = ("short", "examples", "default")


class Fused(NamedTuple):
    """One fused caption.

    Attributes:
        caption: the sentence; empty where none came.
        said: what became of it, and which filters object, in words.
        prompt: what the model was asked.
    """

    caption: str
    said: str
    prompt: str


@lru_cache(maxsize=len(PROMPTS))
def asked_with(prompt: str) -> tuple[FusionPrompt, Checks]:
    """A wording of the prompt and the filters of `mmzoo fuse`, that of languages left out.

    Args:
        prompt: one of `PROMPTS`.

    Raises:
        ValueError: another one.
    """
    if prompt not in PROMPTS:
        raise ValueError(f"prompt: {prompt}; expected {', '.join(PROMPTS)}")
    words = [f"+fusion_prompt={prompt}", "+fusion_filters=default", "fusion_filters.language=null"]
    config: Any = OmegaConf.to_container(compose(None, words), resolve=True)
    filters = {
        name: None if node is None else build(node, path=f"fusion_filters.{name}")
        for name, node in config["fusion_filters"].items()
    }
    return build(config["fusion_prompt"], path="fusion_prompt"), Checks(filters)


class Engines:
    """Engines by model; the rules and the model used last stay in memory.

    Args:
        room: whose models answer.
    """

    def __init__(self, room: Showroom) -> None:
        self.room = room
        self._kept: Kept[Engine] = Kept(2)

    def names(self) -> list[str]:
        """What can be chosen."""
        return [RULES, *self.room.shelf.names("fuse")]

    @contextmanager
    def lent(self, name: str) -> Iterator[Engine]:
        """One of `names`, for one block alone.

        Raises:
            LookupError: another one.
        """
        node: dict[str, Any] = {"type": "template_engine"}
        if name != RULES:
            path, shelf = str(self.room.shelf.entry(name, "fuse").path), self.room.shelf
            node = {"type": "zoo_engine", "model": path, "stop": ["\n"], "device": shelf.device}
            node["timeout"] = float(self.room.limits.seconds)
        with self._kept.lent(name, lambda: build(node, path="fusion_engine")) as engine:
            yield engine


def fuse(engines: Engines, name: str, prompt: str, raw: str | None, synthetic: str | None) -> Fused:
    """One caption of two.

    Args:
        engines: what answers; the limits of its room hold.
        name: which of them.
        prompt: one of `PROMPTS`.
        raw: the caption from the web.
        synthetic: the caption that a model wrote.

    Raises:
        LookupError, ValueError: no caption at all, or no such engine or prompt.
    """
    limits = engines.room.limits
    row = CaptionRow("app", limits.text(raw, "web caption"), _one(limits.text(synthetic, "model caption")))
    if not row.raw and not row.synthetic:
        raise ValueError("type a caption from the web, one of a model, or both")
    wording, checks = asked_with(prompt)
    with engines.lent(name) as engine:
        (found,) = ask(engine, wording, [row], checks, retries=1)
    return Fused(found.fused, _words(found, checks), wording.fill(row.raw, row.synthetic))


def describe(room: Showroom, model: str | None, picture: str | None, tokens: int = 48) -> Iterator[str]:
    """The caption that a model writes of an uploaded picture, as it grows.

    Raises:
        LookupError, ValueError: no picture or model.
    """
    if picture is None:
        raise ValueError("upload a picture first")
    for (turn,) in chat.ask(room, model, picture, None, [], tokens, temperature=0):
        yield turn.answer


def _one(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _words(found: FusedRow, checks: Checks) -> str:
    """What became of a caption."""
    verdict = checks.judge(found.row, Answer(found.fused)) if found.fused else None
    objections: Sequence[tuple[str, str]] = list(zip(verdict.flags, verdict.objections, strict=True)) if verdict else []
    listed = "; ".join(f"{name}: {text}" for name, text in objections)
    if found.status == FUSED:
        return f"Fused. Remarks of the filters: {listed}." if listed else "Fused; no filter objects."
    return f"{found.status.capitalize()} ({found.reason}). {listed}".strip()


def tab(room: Showroom) -> None:
    """The components, inside of a Gradio tab."""
    import gradio as gr

    from multimodal_zoo.gallery.wiring import connect, model_choice, picture_field

    engines = Engines(room)
    with gr.Row():
        with gr.Column():
            raw = gr.Textbox(
                "Lisbon tram 28 Alfama HD wallpaper IMG_2041.jpg", lines=2, label="Web caption", elem_id="fuse-raw"
            )
            synthetic = gr.Textbox(
                "A yellow tram on a narrow street.", lines=2, label="Model caption", elem_id="fuse-synthetic"
            )
            name = gr.Dropdown(engines.names(), value=RULES, label="Fused by", elem_id="fuse-engine")
            prompt = gr.Dropdown(list(PROMPTS), value=PROMPTS[0], label="Prompt (conf/fusion_prompt)")
            button = gr.Button("Fuse", variant="primary", elem_id="fuse-go")
            with gr.Accordion("Let a model write the caption of a picture", open=False):
                captioner = model_choice(room, "chat")
                picture = picture_field("Picture", "fuse-picture")
                write = gr.Button("Write the model caption")
        with gr.Column():
            fused = gr.Textbox(label="Fused caption", lines=3, interactive=False, elem_id="fuse-fused")
            said = gr.Textbox(label="Filters", interactive=False, elem_id="fuse-said")
            filled = gr.Textbox(label="Prompt as it is asked", lines=8, interactive=False)

    connect(room, [button.click], partial(fuse, engines), [name, prompt, raw, synthetic], [fused, said, filled])
    connect(room, [write.click], partial(describe, room), [captioner, picture], [synthetic])
