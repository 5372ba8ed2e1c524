"""`mmzoo chat SOURCE [PICTURE ...] ["QUESTION"]`: answers in words to questions about pictures, or to texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from multimodal_zoo.files import write_text

if TYPE_CHECKING:
    from multimodal_zoo.data.documents import Segment
    from multimodal_zoo.generation.beams import Beams


def run(config: DictConfig) -> float | None:
    """Answer what the configuration asks, or what is typed.

    Args:
        config: see `conf/base/chat.yaml`.

    Raises:
        ValueError: random weights that were not asked for, settings out of bounds.
        FileNotFoundError: no such picture.
        TypeError: a model that does not write.
    """
    from multimodal_zoo.commands.live import say
    from multimodal_zoo.commands.machine import use_threads
    from multimodal_zoo.commands.speaking import load_speaker, paths_of, sampling_of
    from multimodal_zoo.data.documents import Document, Image, Text
    from multimodal_zoo.data.pictures import load, open_picture
    from multimodal_zoo.generation.remembering import Remembering
    from multimodal_zoo.inference.chat import answer
    from multimodal_zoo.inference.live import Typing
    from multimodal_zoo.inference.speaking import evaluating
    from multimodal_zoo.inference.writers import writer_of

    pictures = paths_of(config.image, "image")
    sampling, beams = sampling_of(config), beams_of(config)
    use_threads(config.threads)
    model = load_speaker(config, "chat")
    writer = writer_of(model, "chat")
    with evaluating(model) as device:  # once for all questions
        (seen,) = writer.seen([Document([Image(load(open_picture(path))) for path in pictures])], device)
    reader = Remembering(writer.model.decoder)  # pictures and what was said are read once
    said: list[Segment] = []  # the conversation so far
    follows = config.prompt is None and config.conversation and writer.turns
    done: list[dict[str, Any]] = []
    for number, question in enumerate(_questions(config)):
        typing = Typing(writer.decode, say)
        (text,) = answer(
            model,
            Document([*seen.segments, *said, Text(question, role="user")]),
            sampling=sampling,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed + number,
            special=config.special,
            reader=reader,
            beams=beams,
            on_token=typing if beams is None else None,
        )
        typing.finish(text)
        if follows:
            said += [Text(question, role="user"), Text(text, role="assistant")]
        done.append({"images": [str(path) for path in pictures], "prompt": question, "answer": text})
        if config.out is not None:
            write_text(config.out, json.dumps(done, indent=1, ensure_ascii=False) + "\n")
    return None


def beams_of(config: DictConfig) -> Beams | None:
    """How beams are searched; None where no number of them is given."""
    from multimodal_zoo.generation.beams import Beams

    values: Any = OmegaConf.to_container(config.beams, resolve=True)
    return None if values["count"] is None else Beams(**values)


def _questions(config: DictConfig) -> Iterator[str]:
    """Those of the configuration, or the lines that are typed until an empty one."""
    from multimodal_zoo.commands.live import say
    from multimodal_zoo.commands.speaking import listed

    if config.prompt is not None:
        yield from listed(config.prompt)
        return
    asking = sys.stdin.isatty()
    while True:
        if asking:
            say("> ")
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
