"""The tab that answers questions about a picture, or writes its caption."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pil

from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.streaming import streamed
from multimodal_zoo.gallery.uploads import asked
from multimodal_zoo.generation.loop import Progress
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.live import Typing
from multimodal_zoo.inference.writers import writer_of

#: Most tokens that can be asked for.
MOST = 512


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


def ask(
    room: Showroom,
    model: str | None,
    picture: str | None,
    question: str | None,
    before: list[Turn],
    tokens: float,
    temperature: float,
) -> Iterator[list[Turn]]:
    """A conversation with one more answer, which grows while it is written.

    Args:
        room: what is shown.
        model: name of a model that writes.
        picture: path of an uploaded picture, or None.
        question: empty: the model goes on behind the picture, as a captioner does.
        before: what was said; models whose layout has no turns (Emu3) answer each question by itself.
        tokens: of the answer at most.
        temperature: 0 takes the likeliest word at every step.

    Raises:
        LookupError, ValueError: nothing is asked, or what is asked cannot be.
    """
    words, seen = asked(room, question, "question", picture, "type a question, or upload a picture for a caption")
    room.shelf.entry(model, "chat")
    sampling = Sampling(greedy=True) if temperature <= 0 else Sampling(temperature=float(temperature))
    most = max(1, min(MOST, int(tokens)))

    def work(say: Callable[[str], None]) -> None:
        """Write the answer, saying all of it that is there."""
        with room.shelf.lent(model, "chat") as speaker:
            say("")  # the model is there, and reads
            writer = writer_of(speaker, "chat")
            document = _document(seen, before if writer.turns else [], words)
            said: list[str] = []
            typing = Typing(writer.decode, said.append)

            def tell(progress: Progress) -> None:
                """Say what is there."""
                typing(progress)
                say("".join(said))

            (text,) = answer(
                speaker,
                document,
                sampling=sampling,
                max_new_tokens=most,
                special=False,
                seed=len(before),
                on_token=tell,
            )
            say(text)

    for text in streamed(work, room.limits.seconds):
        yield [*before, Turn(words, text.strip())]


def _document(seen: Pil.Image | None, turns: list[Turn], words: str) -> Document:
    segments: list[Segment] = [] if seen is None else [Image(seen)]
    for turn in turns:
        if turn.answer:  # none where it was stopped, or failed
            segments += [Text(turn.question, role="user")] if turn.question else []
            segments.append(Text(turn.answer, role="assistant"))
    return Document([*segments, *([Text(words, role="user")] if words else [])])


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """Turns as Gradio's chat field takes them, which reads HTML: texts are shown as they are, and are no markup."""
    found = []
    for turn in turns:
        found.append({"role": "user", "content": html.escape(turn.question or "(a caption)", quote=False)})
        found.append({"role": "assistant", "content": html.escape(turn.answer or "\u2026", quote=False)})
    return found


def tab(room: Showroom) -> None:
    """The components, inside of a Gradio tab."""
    import gradio as gr

    from multimodal_zoo.gallery.wiring import connect, model_choice, picture_field

    turns = gr.State([])
    with gr.Row():
        with gr.Column(scale=1):
            model = model_choice(room, "chat")
            picture = picture_field("Picture", "chat-picture")
            tokens = gr.Slider(1, MOST, 64, step=1, label="Most tokens")
            heat = gr.Slider(0, 2, 0, step=0.1, label="Temperature; 0 takes the likeliest word")
        with gr.Column(scale=2):
            shown = gr.Chatbot(
                label="Conversation", height=360, render_markdown=False, buttons=["copy"], elem_id="chat-said"
            )
            question = gr.Textbox(
                label="Question; leave it empty for a caption", placeholder="What is this?", elem_id="chat-question"
            )
            with gr.Row():
                button = gr.Button("Ask", variant="primary", elem_id="chat-go")
                stop = gr.Button("Stop", elem_id="chat-stop")
                clear = gr.Button("Begin anew")

    def go(*fields: Any) -> Iterator[tuple[list[Turn], list[dict[str, str]]]]:
        """Ask."""
        for found in ask(room, *fields):
            yield found, messages(found)

    inputs = [model, picture, question, turns, tokens, heat]
    connect(room, [button.click, question.submit], go, inputs, [turns, shown], stop)
    for changed in (clear.click, model.change, picture.change):
        changed(lambda: ([], []), None, [turns, shown], api_visibility="private")
